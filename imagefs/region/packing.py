"""Putting a pack of a region together in memory."""

from __future__ import annotations

import secrets
from typing import Final, NamedTuple

from imagefs.format.record import encode_pack_header, encode_record, object_id
from imagefs.format.region import (
    MAX_PACK_INDEX,
    SALT_SIZE,
    IndexedRecord,
    PackName,
    encode_pack_index,
)
from imagefs.model import OBJECT_ID_SIZE, ObjectId
from imagefs.store.grouping import Block
from imagefs.store.store import StoredRecord

PACK_BYTES: Final = 8 * 1024 * 1024
"""A pack that has grown to this many bytes is sent."""

_MOST_OBJECTS: Final = MAX_PACK_INDEX // (2 * OBJECT_ID_SIZE)
"""So is one of so many objects: its index is far from the limit."""


class Pack(NamedTuple):
    """A whole pack. `share` is what part of all that is to be sent it stands for, in bytes."""

    name: PackName
    data: bytes
    records: list[IndexedRecord]
    share: float


class PackBuilder:
    """Takes blocks until it is `full`; `take` gives the pack and begins the next one."""

    def __init__(self) -> None:
        self._begin()

    def __repr__(self) -> str:
        return f"<PackBuilder: {len(self._records)} records, {self._size} bytes>"

    def _begin(self) -> None:
        self._parts = [encode_pack_header()]
        self._size = len(self._parts[0])
        self._objects = 0
        self._records: list[IndexedRecord] = []

    @property
    def full(self) -> bool:
        return self._size >= PACK_BYTES or self._objects >= _MOST_OBJECTS

    def __bool__(self) -> bool:
        return bool(self._records)

    def add(self, block: Block | StoredRecord) -> None:
        """Puts a block at the end, compressed, or a record of the store as it is."""
        if isinstance(block, StoredRecord):
            self._append([block.data], block.objects)
        else:
            parts = encode_record(block.objects, block.kind)
            self._append(parts, tuple(oid for oid, _ in block.objects))

    def _append(self, parts: list[bytes], objects: tuple[ObjectId, ...]) -> None:
        size = sum(map(len, parts))
        self._records.append(IndexedRecord(self._size, size, objects))
        self._parts += parts
        self._size += size
        self._objects += len(objects)

    def take(self, share: float) -> Pack:
        """The pack of what was added; see `Pack` for `share`."""
        index = encode_pack_index(self._records, secrets.token_bytes(SALT_SIZE))
        data = b"".join([*self._parts, index])
        pack = Pack(PackName(object_id(data), len(index)), data, self._records, share)
        self._begin()
        return pack
