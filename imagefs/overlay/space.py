"""What an overlay hands out and never twice: inode numbers and heap addresses.

Both are counters. The database holds upper bounds of them, raised in steps, so that a crash
costs a few numbers and a transaction in thousands. The same row says whether the overlay
was closed in order; if not, the heap may hold ranges that no row names.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import merge

from imagefs.errors import NoSpace
from imagefs.model import Ino
from imagefs.overlay.database import Database
from imagefs.overlay.heap import Range

LIMIT = 8 << 40
"""Heap addresses end here: half of what ext4 allows for one file."""

_RESERVE_BYTES = 256 << 20
_RESERVE_INOS = 1024
_MAX_INO = 2**32 - 1
_REACHED = 2

_GET = "SELECT next_ino, heap_end, heap_limit, clean FROM state"
_SET = "UPDATE state SET next_ino = ?, heap_end = ?, heap_limit = ?, clean = ?"
_GET_RELINKED = "SELECT relinked FROM state"
_SET_RELINKED = "UPDATE state SET relinked = 1"
_USED = """
    SELECT place, place + capacity FROM inode WHERE capacity > 0
    UNION ALL SELECT place, place + capacity FROM extent ORDER BY 1"""


def used_end(database: Database) -> int:
    """Where the last range ends that a row names; reads every extent."""
    return max((end for _, end in database.each(_USED)), default=0)


def gaps(database: Database, end: int, others: Sequence[Range] = ()) -> list[Range]:
    """The ranges below `end` that no row and none of the `others` (address and length)
    names; reads every extent."""
    found = []
    last = 0
    also = sorted((place, place + length) for place, length in others)
    for begin, stop in merge(database.each(_USED), also):
        if last < begin:
            found.append((last, min(begin, end)))
        last = max(last, stop)
    found.append((last, end))
    return [(begin, stop) for begin, stop in found if begin < stop]


class Space:
    """The counters of an open overlay. Loop's thread only.

    The free part of the heap is one range of addresses; when it is used up, `use` is given
    another, which deletions have left somewhere below.
    """

    def __init__(self, database: Database, first_ino: int) -> None:
        self._database = database
        row: tuple[int, int, int, int] = database.row(_GET)
        next_ino, self._end, limit, clean = row
        self._next_ino = max(next_ino, first_ino)
        self._limit = limit or LIMIT
        self._reserved_ino = self._next_ino
        self._reserved_end = self._end
        self._changing = False
        self.clean = bool(clean)
        """Whether all ranges that no row names are punched."""
        self.reached = clean == _REACHED
        """Whether the heap file was as long as all addresses given out when it was closed."""
        self._relinked: bool = bool(database.row(_GET_RELINKED)[0])

    def __repr__(self) -> str:
        return f"<Space: next inode {self._next_ino}, heap {self._end} to {self._limit}>"

    def begin(self) -> None:
        """Call before the first change of a session: from here on a crash leaves traces."""
        if self._changing:
            return
        if self.clean:
            with self._database.new_wal():
                self._reserve(0)
        else:
            self._reserve(0)
        self._changing = True

    def take_ino(self) -> Ino:
        """An inode number that was never used."""
        ino = self._next_ino
        if ino >= self._reserved_ino:
            if ino > _MAX_INO:
                raise NoSpace("All inode numbers of this image or instance are used up: commit it")
            self._reserve(0)
        self._next_ino = ino + 1
        return Ino(ino)

    def fits(self, length: int) -> bool:
        """Whether there are that many addresses left."""
        return self._end + length <= self._limit

    def take(self, length: int) -> int:
        """The address of a fresh range of the heap, which reads as zeros."""
        place = self._end
        if place + length > self._reserved_end:
            self._reserve(length)
        self._end = place + length
        return place

    def can_extend(self, end: int, length: int) -> bool:
        """Whether the next range that is taken follows directly on one that ends there."""
        return end == self._end and self.fits(length)

    @property
    def free(self) -> Range:
        """The addresses that will be given out; what lies there is of no file."""
        return self._end, self._limit

    def use(self, gap: Range) -> None:
        """Take addresses from this range from now on; it reads as zeros and no row names it."""
        self._end, self._limit = gap
        self._reserve(0)

    @property
    def relinked(self) -> bool:
        """Whether the base's table of hard links may no longer be right."""
        return self._relinked

    def relink(self) -> None:
        """Note that, before the change that makes it so."""
        if not self._relinked:
            self._database.run(_SET_RELINKED)
            self._relinked = True

    def finish(self) -> None:
        """The session ends in order: no range waits to be punched, and the heap reaches the
        last address."""
        if self._changing or not self.clean:
            self._database.run(_SET, (self._next_ino, self._end, self._limit, _REACHED))
            self.clean = True
            self._changing = False
        self._reserved_ino = self._next_ino
        self._reserved_end = self._end

    def _reserve(self, length: int) -> None:
        ino = self._next_ino + _RESERVE_INOS
        end = min(self._end + max(_RESERVE_BYTES, length), self._limit)
        self._database.run(_SET, (ino, end, self._limit, 0))
        self._reserved_ino = ino
        self._reserved_end = end
