"""Who asks, and how the mount is set up: the values that the adapter hands in."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Credentials(msgspec.Struct, frozen=True):
    """What a request does not tell of the process behind it.

    `keeps_set_id` is the capability CAP_FSETID: its changes leave set-id bits alone.
    """

    groups: frozenset[int] = frozenset()
    keeps_set_id: bool = False


def _of_root(_: int) -> Credentials:
    return Credentials(keeps_set_id=True)


class Caller(msgspec.Struct, frozen=True, gc=False):
    """The process behind a request, as the kernel tells it.

    `inquire` finds the credentials of a process; few requests need them.
    """

    uid: int
    gid: int
    pid: int
    umask: int
    inquire: Callable[[int], Credentials] = _of_root

    def is_in(self, gid: int) -> bool:
        """Whether the caller is a member of a group."""
        return gid == self.gid or gid in self.inquire(self.pid).groups


class MountOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a mount decides about the view it shows.

    `uid`, `gid` own the directories above the images. With `enforced` the kernel checks
    modes and ACLs and callers are whoever they are; without it the one user who can get in
    may do what root may in a tree of his own. `open_to_all` lets others enter the top
    directory. `seal_after` is in seconds, 0 for never. `rest_after` is how many seconds an
    overlay's files stay open after a change: a thousand instances would need thousands of
    descriptors, and opening them again costs a millisecond.
    """

    uid: int
    gid: int
    enforced: bool
    open_to_all: bool = False
    seal_after: float = 60.0
    rest_after: float = 30.0

    def privileged(self, caller: Caller) -> bool:
        """Whether the caller may do what root may."""
        return not self.enforced or caller.uid == 0

    def keeps_set_id(self, caller: Caller) -> bool:
        """Whether what the caller changes keeps its set-user-id and set-group-id bits."""
        if not self.enforced:
            return True
        return caller.uid == 0 and caller.inquire(caller.pid).keeps_set_id
