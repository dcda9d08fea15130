"""What a mount holds at this moment, in numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sized

import msgspec

from imagefs.vfs.volume import Volume


class Statistics(msgspec.Struct, frozen=True):
    """`lookups` are the kernel's references to inodes, `orphans` inodes without a name that
    something still has open; with nothing open and nothing remembered by the kernel, all but
    `volumes` are zero (drafts stay in use until they are sealed)."""

    open_files: int
    open_directories: int
    volumes: int
    lookups: int
    orphans: int


def collect(files: Sized, directories: Sized, volumes: Iterable[Volume]) -> Statistics:
    """The numbers of what is open and of the volumes in use."""
    used = list(volumes)
    return Statistics(
        open_files=len(files),
        open_directories=len(directories),
        volumes=len(used),
        lookups=sum(volume.lookups.total for volume in used),
        orphans=sum(len(volume.orphans) for volume in used),
    )
