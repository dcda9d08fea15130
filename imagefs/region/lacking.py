"""The objects of a tree that the other side lacks, in the order in which they travel.

Metadata first, in the order of the walk: who reads the tree later finds it together. 33 bytes of
memory for each object.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from imagefs.model import OBJECT_ID_SIZE, ObjectId

BATCH: Final = 1024

SizeOf = Callable[[Sequence[ObjectId]], int]
"""About how many bytes objects take when they travel together."""


class Batch(NamedTuple):
    """Up to `BATCH` objects in a row, and about how many bytes they take."""

    objects: list[ObjectId]
    metadata: bool
    bytes: int


class _Kind:
    """The objects of one kind: their ids, and the sizes of their batches."""

    __slots__ = ("ids", "sizes")

    def __init__(self) -> None:
        self.ids = bytearray()
        self.sizes = array("Q")

    def batch(self, number: int) -> list[ObjectId]:
        start = number * BATCH * OBJECT_ID_SIZE
        end = min(start + BATCH * OBJECT_ID_SIZE, len(self.ids))
        return [
            ObjectId(bytes(self.ids[at : at + OBJECT_ID_SIZE]))
            for at in range(start, end, OBJECT_ID_SIZE)
        ]

    @property
    def unmeasured(self) -> int:
        """Objects behind the last batch that was measured."""
        return len(self.ids) // OBJECT_ID_SIZE - len(self.sizes) * BATCH


class Lacking:
    """Add all objects, then `close`, then ask."""

    def __init__(self, size_of: SizeOf) -> None:
        self._size_of = size_of
        self._metadata = _Kind()
        self._content = _Kind()

    def __repr__(self) -> str:
        return f"<Lacking: {self.objects} objects, {self.bytes} bytes>"

    @property
    def objects(self) -> int:
        return (len(self._metadata.ids) + len(self._content.ids)) // OBJECT_ID_SIZE

    @property
    def bytes(self) -> int:
        return sum(self._metadata.sizes) + sum(self._content.sizes)

    def add(self, oid: ObjectId, *, metadata: bool) -> None:
        """One more object, which was not added before."""
        kind = self._metadata if metadata else self._content
        kind.ids += oid
        if kind.unmeasured == BATCH:
            self._measure(kind)

    def close(self) -> None:
        """No more objects come."""
        for kind in (self._metadata, self._content):
            if kind.unmeasured:
                self._measure(kind)

    def batches(self) -> Iterator[Batch]:
        """All objects in their order."""
        for kind in (self._metadata, self._content):
            for number, size in enumerate(kind.sizes):
                yield Batch(kind.batch(number), kind is self._metadata, size)

    def _measure(self, kind: _Kind) -> None:
        kind.sizes.append(self._size_of(kind.batch(len(kind.sizes))))
