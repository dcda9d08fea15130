"""The rules of modes that a file system applies itself.

The kernel checks who may do what (where it checks at all); what is left to the file system
is the owner of something new and which special bits a change clears. Sources: inode(7),
chown(2), write(2).
"""

from __future__ import annotations

import stat

from imagefs.model import Attributes
from imagefs.vfs.caller import Caller

CAPABILITY = b"security.capability"


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
