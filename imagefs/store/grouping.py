"""Which objects share a record: small ones that come together, content and metadata apart.

Belongs to whoever guards it.
"""

from __future__ import annotations

from typing import NamedTuple

from imagefs.format.record import DATA, MAX_OBJECTS, METADATA
from imagefs.model import CHUNK_SIZE, ObjectId

_GROUP_BYTES = CHUNK_SIZE
_ALONE = CHUNK_SIZE // 2


def is_well_filled(plain: int) -> bool:
    """Whether a record of so many plain bytes is as good as one made anew."""
    return plain > _ALONE


class Block(NamedTuple):
    """The objects of a record, and of which kind they are."""

    objects: list[tuple[ObjectId, bytes]]
    kind: int


class _Group:
    """Small objects that will share a block."""

    __slots__ = ("bytes", "objects")

    def __init__(self) -> None:
        self.objects: list[tuple[ObjectId, bytes]] = []
        self.bytes = 0


class Grouping:
    """Takes objects one by one and gives blocks."""

    def __init__(self) -> None:
        self._groups = {DATA: _Group(), METADATA: _Group()}

    def __repr__(self) -> str:
        waiting = sum(len(group.objects) for group in self._groups.values())
        return f"<Grouping: {waiting} objects waiting>"

    def add(self, oid: ObjectId, data: bytes, kind: int) -> Block | None:
        """Takes an object in; returns the block that is to be written now, if one is."""
        if len(data) > _ALONE:
            return Block([(oid, data)], kind)
        full = None
        group = self._groups[kind]
        if group.bytes + len(data) > _GROUP_BYTES or len(group.objects) == MAX_OBJECTS:
            full = Block(group.objects, kind)
            group = self._groups[kind] = _Group()
        group.objects.append((oid, data))
        group.bytes += len(data)
        return full

    def rest(self, kind: int) -> Block | None:
        """The block of what waits for more of its kind; nothing does afterwards."""
        objects = self._groups[kind].objects
        self._groups[kind] = _Group()
        return Block(objects, kind) if objects else None
