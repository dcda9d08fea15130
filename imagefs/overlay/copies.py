"""Copies of chunks that were made durable before the row that names them is written.

The first write to a chunk of the image, or one that needs more room than a chunk has, moves
the chunk to a new place in the heap. The kernel writes the row and the data to the disk in
any order, so after power loss the row could name a place whose data is not there: bytes that
nobody touched, and that were durable, would be zeros. So such a chunk is copied first, by a
worker thread that waits for the disk (3 ms here, once for a chunk); then the write is taken
again and finds the copy. Copies nobody came back for belong to no row: whoever makes this give
one up releases its place, at the latest when the session ends.

The loop's thread alone puts and takes.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

MAX_WAITING = 256

Place = tuple[int, int]
"""Address in the heap and capacity."""


class Copy(NamedTuple):
    """A durable copy. `source` is what it was made of; it is good while that is the same.

    Of a stored chunk that is its id and length, of one in the heap the bytes themselves: writes
    in place can come in between, and times are too coarse to tell.
    """

    source: Hashable
    place: Place


class Copies:
    """The copies of one overlay that wait to be used."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, int], Copy] = {}

    def __repr__(self) -> str:
        return f"<Copies: {len(self._waiting)} waiting>"

    def put(self, ino: int, chunk: int, copy: Copy) -> list[Place]:
        """A copy of a chunk is durable; returns the places that are given up for it."""
        given_up = self.forget() if len(self._waiting) >= MAX_WAITING else []
        before = self._waiting.get((ino, chunk))
        self._waiting[ino, chunk] = copy
        return given_up if before is None else [*given_up, before.place]

    def find(self, ino: int, chunk: int, source: Hashable, length: int) -> Place | None:
        """Where the copy of a chunk is, if there is one of this source with that much room."""
        copy = self._waiting.get((ino, chunk))
        if copy is None or copy.source != source or copy.place[1] < length:
            return None
        return copy.place

    def used(self, ino: int, chunk: int) -> None:
        """The copy belongs to a row now, or its place was released."""
        self._waiting.pop((ino, chunk), None)

    def forget(self) -> list[Place]:
        """Give all of them up; returns their places."""
        places = [copy.place for copy in self._waiting.values()]
        self._waiting.clear()
        return places
