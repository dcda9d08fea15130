"""Open files and directories."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Generic, NamedTuple, NewType, TypeVar

from imagefs.errors import Stale
from imagefs.model import Ino
from imagefs.vfs.caller import Caller
from imagefs.vfs.volume import Volume

FileHandle = NewType("FileHandle", int)

T = TypeVar("T")


class SyncPoint(NamedTuple):
    """What an fsync must make durable: so many changes of names above the trees, and of the
    tree. It is taken once, when the fsync begins: what is changed while it waits is for the next."""

    names: int
    changes: int


class OpenFile:
    """A regular file held open. `privileged` openers need no look at what writing takes away:
    the kernel has taken it."""

    __slots__ = ("ino", "opener", "privileged", "volume", "writable")

    def __init__(
        self, volume: Volume, ino: Ino, opener: Caller, *, writable: bool, privileged: bool
    ) -> None:
        self.volume = volume
        self.ino = ino
        self.opener = opener
        self.writable = writable
        self.privileged = privileged


class OpenDirectory:
    """A directory held open inside a volume, or above the volumes (then `volume` is None).

    `names[i]` is the name that the listing gave at position i, so that any position can be
    returned to however the directory changed since: names are listed in order, and the
    listing goes on behind that name.
    """

    __slots__ = ("ino", "names", "volume")

    def __init__(self, volume: Volume | None, ino: Ino) -> None:
        self.volume = volume
        self.ino = ino
        self.names: list[bytes] = []


class Handles(Generic[T]):
    """Numbers for open things; a number is not used twice."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._open: dict[int, T] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[T]:
        return iter(self._open.values())

    def add(self, thing: T) -> FileHandle:
        """Give `thing` a number."""
        number = next(self._numbers)
        self._open[number] = thing
        return FileHandle(number)

    def __getitem__(self, number: FileHandle) -> T:
        try:
            return self._open[number]
        except KeyError:
            raise Stale(f"File handle {number} is not open") from None

    def pop(self, number: FileHandle) -> T:
        """Take a number back."""
        return self._open.pop(number)
