"""The rules of modes and ACLs that a file system applies itself.

The kernel checks who may do what (where it checks at all); what is left to the file system
is the owner of something new, what it inherits, which special bits a change clears, and that
mode and access ACL agree. Sources: inode(7), chown(2), write(2), acl(5).
"""

from __future__ import annotations

import stat

from imagefs.errors import InvalidArgument
from imagefs.model import AttributeChange, Attributes, Ino
from imagefs.overlay import Overlay
from imagefs.vfs import acl
from imagefs.vfs.caller import Caller, MountOptions

CAPABILITY = b"security.capability"
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID
_NOTHING = AttributeChange()


def owner_of_new(parent: Attributes, mode: int, caller: Caller) -> tuple[int, int]:
    """The mode and group of something that `caller` makes in `parent`.

    A set-group-id directory hands down its group, and itself to directories. (Who is not
    in that group gets no set-group-id program in it: the kernel has seen to that.)
    """
    if not parent.mode & stat.S_ISGID:
        return mode, caller.gid
    if stat.S_ISDIR(mode):
        mode |= stat.S_ISGID
    return mode, parent.gid


def without_privilege(mode: int, *, member: bool) -> int:
    """A mode without what it gives to whoever runs the file. Without execution for the group
    set-group-id gives nothing, but stays for a `member` of the file's group only."""
    mode &= ~stat.S_ISUID
    if mode & stat.S_IXGRP or not member:
        mode &= ~stat.S_ISGID
    return mode


def mode_after(
    attributes: Attributes, change: AttributeChange, caller: Caller, options: MountOptions
) -> int | None:
    """The permission bits that a change leaves, None if they stay.

    The kernel says most of it itself, as a change of the mode. What it does not say is what
    happens to set-group-id without execution for the group, where it asks for a change of
    nothing at all; and nobody becomes a member of a group by setting a file's mode.
    """
    mode = attributes.mode if change.mode is None else change.mode
    if not mode & _SPECIAL_BITS or (stat.S_ISDIR(attributes.mode) and change.mode is None):
        return change.mode
    keeps = options.keeps_set_id(caller)
    if change.mode is not None:
        gid = attributes.gid if change.gid is None else change.gid
        if mode & stat.S_ISGID and not keeps and not caller.is_in(gid):
            mode &= ~stat.S_ISGID
        return mode
    chown = change.uid is not None or change.gid is not None
    written = change.size is not None or change == _NOTHING
    if chown or (written and not keeps):
        mode = without_privilege(mode, member=keeps or caller.is_in(attributes.gid))
    return stat.S_IMODE(mode) if mode != attributes.mode else None


def drop_privilege(overlay: Overlay, ino: Ino, caller: Caller, options: MountOptions) -> None:
    """What cuts a file when it is opened takes its set-id bits and capabilities."""
    attributes = overlay.attributes(ino)
    if CAPABILITY in overlay.list_xattr(ino):
        overlay.remove_xattr(ino, CAPABILITY)
    drop_set_id(overlay, attributes, caller, options)


def drop_set_id(
    overlay: Overlay, attributes: Attributes, caller: Caller, options: MountOptions
) -> None:
    """What changes a file's content takes its set-id bits."""
    if not attributes.mode & _SPECIAL_BITS or options.keeps_set_id(caller):
        return
    mode = without_privilege(attributes.mode, member=caller.is_in(attributes.gid))
    if mode != attributes.mode:
        overlay.change_attributes(attributes.ino, AttributeChange(mode=stat.S_IMODE(mode)))


def inherited(
    overlay: Overlay, parent: Ino, mode: int, umask: int
) -> tuple[int, dict[bytes, bytes]]:
    """Mode and ACLs of something new: a default ACL of its directory counts, else the umask."""
    if stat.S_ISLNK(mode):
        return mode, {}
    if acl.DEFAULT not in overlay.list_xattr(parent):
        return mode & ~umask, {}
    default = overlay.get_xattr(parent, acl.DEFAULT)
    mode, access = acl.inherited(default, mode)
    xattrs = {acl.DEFAULT: default} if stat.S_ISDIR(mode) else {}
    if access is not None:
        xattrs[acl.ACCESS] = access
    return mode, xattrs


def chmod_acl(overlay: Overlay, ino: Ino, mode: int) -> None:
    """Chmod changes the access ACL too, if there is one."""
    if acl.ACCESS in overlay.list_xattr(ino):
        value = acl.with_mode(overlay.get_xattr(ino, acl.ACCESS), mode)
        overlay.set_xattr(ino, acl.ACCESS, value)


def set_acl(
    overlay: Overlay, ino: Ino, name: bytes, value: bytes, caller: Caller, options: MountOptions
) -> None:
    """Set an ACL; the access ACL changes the mode and is kept only where it says more.

    Set-group-id goes as with chmod by somebody who is not in the group.
    """
    attributes = overlay.attributes(ino)
    entries = acl.parse(value)
    if name == acl.DEFAULT:
        if not stat.S_ISDIR(attributes.mode):
            raise InvalidArgument("Only directories have default ACLs")
        overlay.set_xattr(ino, name, value)
        return
    mode = acl.mode_of(entries, stat.S_IMODE(attributes.mode))
    if not acl.is_basic(entries):
        overlay.set_xattr(ino, name, value)
    elif name in overlay.list_xattr(ino):
        overlay.remove_xattr(ino, name)
    if mode & stat.S_ISGID and not options.keeps_set_id(caller):
        mode &= ~0 if caller.is_in(attributes.gid) else ~stat.S_ISGID
    if mode != stat.S_IMODE(attributes.mode):
        overlay.change_attributes(ino, AttributeChange(mode=mode))
