"""How often the kernel looked up each inode of a tree.

The kernel counts its references to an inode and gives them back with FORGET; an inode that
lost its last name lives until the count is zero. Counts are kept in pages of a fixed number
of inodes, because inode numbers are dense: a walk through a million inodes costs four bytes
each, not a dictionary entry.
"""

from __future__ import annotations

from array import array

from imagefs.model import Ino

_PAGE_BITS = 8
_PAGE_MASK = (1 << _PAGE_BITS) - 1
_EMPTY_PAGE = array("I", bytes(4 << _PAGE_BITS))


class LookupCounts:
    """Lookup counts of one tree; `total` is the sum of all."""

    __slots__ = ("_pages", "total")

    def __init__(self) -> None:
        self._pages: dict[int, array[int]] = {}
        self.total = 0

    def __repr__(self) -> str:
        return f"<LookupCounts: {self.total} in {len(self._pages)} pages>"

    def __getitem__(self, ino: Ino) -> int:
        page = self._pages.get(ino >> _PAGE_BITS)
        return page[ino & _PAGE_MASK] if page is not None else 0

    def add(self, ino: Ino) -> None:
        """The kernel was told of an inode once more."""
        number = ino >> _PAGE_BITS
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = _EMPTY_PAGE[:]
        page[ino & _PAGE_MASK] += 1
        self.total += 1

    def subtract(self, ino: Ino, count: int) -> int:
        """The kernel gives back `count` lookups; returns what is left.

        Raises ValueError if it gives back more than it has: the counting is wrong somewhere.
        """
        number = ino >> _PAGE_BITS
        page = self._pages.get(number)
        left = (page[ino & _PAGE_MASK] if page is not None else 0) - count
        if page is None or left < 0:
            raise ValueError(f"Inode {ino} was forgotten {-left} times too often")
        page[ino & _PAGE_MASK] = left
        self.total -= count
        if not left and page == _EMPTY_PAGE:
            del self._pages[number]
        return left
