"""Who asks, and how the mount is set up: the values that the adapter hands in."""

from __future__ import annotations

import msgspec


class Caller(msgspec.Struct, frozen=True, gc=False):
    """The process behind a request, as the kernel tells it."""

    uid: int
    gid: int
    pid: int
    umask: int


class MountOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a mount decides about the view it shows.

    `uid`, `gid` own the directories above the images. With `enforced` the kernel checks
    modes and ACLs and callers are whoever they are; without it the one user who can get in
    may do what root may in a tree of his own. `open_to_all` lets others enter the top
    directory. `seal_after` is in seconds, 0 for never.
    """

    uid: int
    gid: int
    enforced: bool
    open_to_all: bool = False
    seal_after: float = 60.0

    def privileged(self, caller: Caller) -> bool:
        """Whether the caller may do what root may."""
        return not self.enforced or caller.uid == 0
