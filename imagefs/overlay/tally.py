"""Counts by inode number in flat arrays: four bytes for each number near one that counts."""

from __future__ import annotations

from array import array

_BITS = 10
_EMPTY = array("i", bytes(4 << _BITS))


class Tally:
    """Counts that begin with 0."""

    def __init__(self) -> None:
        self._blocks: dict[int, array[int]] = {}

    def __repr__(self) -> str:
        return f"<Tally of up to {len(self._blocks) << _BITS} numbers>"

    def __getitem__(self, number: int) -> int:
        block = self._blocks.get(number >> _BITS)
        return 0 if block is None else block[number & (1 << _BITS) - 1]

    def add(self, number: int, count: int) -> None:
        """Count more, or fewer."""
        block = self._blocks.get(number >> _BITS)
        if block is None:
            block = self._blocks[number >> _BITS] = _EMPTY[:]
        block[number & (1 << _BITS) - 1] += count
