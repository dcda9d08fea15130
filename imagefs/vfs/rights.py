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
from imagefs.vfs.caller import Caller

CAPABILITY = b"security.capability"
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID


def owner_of_new(
    parent: Attributes, mode: int, caller: Caller, privileged: bool
) -> tuple[int, int]:
    """The mode and group of something that `caller` makes in `parent`.

    A set-group-id directory hands down its group, and itself to directories. A caller who
    is not a member of that group does not get a set-group-id program in it.
    """
    if not parent.mode & stat.S_ISGID:
        return mode, caller.gid
    if stat.S_ISDIR(mode):
        return mode | stat.S_ISGID, parent.gid
    program = mode & (stat.S_ISGID | stat.S_IXGRP) == stat.S_ISGID | stat.S_IXGRP
    if program and not privileged and parent.gid != caller.gid:
        mode &= ~stat.S_ISGID
    return mode, parent.gid


def without_privilege(mode: int) -> int:
    """The mode of a file whose content or owner an ordinary user changed."""
    if not stat.S_ISREG(mode):
        return mode
    mode &= ~stat.S_ISUID
    if mode & stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    return mode


def mode_after(attributes: Attributes, change: AttributeChange, privileged: bool) -> int | None:
    """The permission bits that a change of owner or size leaves, None if they stay."""
    if change.mode is not None or not attributes.mode & _SPECIAL_BITS:
        return None
    chown = change.uid is not None or change.gid is not None
    if not chown and (change.size is None or privileged):
        return None
    mode = without_privilege(attributes.mode)
    return stat.S_IMODE(mode) if mode != attributes.mode else None


def drop_privilege(overlay: Overlay, ino: Ino, privileged: bool) -> None:
    """What changes a file's content takes its set-user-id bits and capabilities."""
    attributes = overlay.attributes(ino)
    if CAPABILITY in overlay.list_xattr(ino):
        overlay.remove_xattr(ino, CAPABILITY)
    if not privileged and attributes.mode & _SPECIAL_BITS:
        mode = stat.S_IMODE(without_privilege(attributes.mode))
        overlay.change_attributes(ino, AttributeChange(mode=mode))


def inherited(overlay: Overlay, parent: Ino, mode: int) -> tuple[int, dict[bytes, bytes]]:
    """Mode and ACLs of something new in a directory that may have a default ACL."""
    if stat.S_ISLNK(mode) or acl.DEFAULT not in overlay.list_xattr(parent):
        return mode, {}
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


def set_acl(overlay: Overlay, ino: Ino, name: bytes, value: bytes) -> None:
    """Set an ACL; the access ACL changes the mode and is kept only where it says more."""
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
    if mode != stat.S_IMODE(attributes.mode):
        overlay.change_attributes(ino, AttributeChange(mode=mode))
