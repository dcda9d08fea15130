"""Packs and records: how objects lie on disk (docs/format.md has the byte tables).

A pack is a header followed by records. A record is one compression block: a header, a
table of the objects in it, the block, a checksum over all of that. Everything here is
pure; `Corrupt` says what is wrong, and the caller adds where.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import lz4.block
from blake3 import blake3
from xxhash import xxh3_64, xxh3_64_intdigest

from imagefs.errors import Corrupt
from imagefs.model import OBJECT_ID_SIZE, ObjectId

PACK_MAGIC = b"IMFSPACK"
PACK_VERSION = 1
PACK_HEADER_SIZE = 24
RECORD_MAGIC = b"\xf1IFR"
MAX_OBJECTS = 4096
MAX_BLOCK = 64 * 1024 * 1024
"""Longest block, so longest object, in plain bytes."""

DATA = 0
METADATA = 1
_RAW = 0
_LZ4 = 1

_PACK_HEADER = struct.Struct("<8sII")
_HEADER = struct.Struct("<4sBBHII")
_ENTRY = struct.Struct(f"<{OBJECT_ID_SIZE}sI")
_CHECKSUM = struct.Struct("<Q")
_END = struct.Struct("<I")
_SCAN_WINDOW = 1024 * 1024

SMALLEST_RECORD = _HEADER.size + _ENTRY.size + _CHECKSUM.size


def least_record_size(objects: int) -> int:
    """Bytes that a record of that many objects has at least."""
    return _HEADER.size + objects * _ENTRY.size + _CHECKSUM.size


def object_id(data: bytes) -> ObjectId:
    """The id of an object: BLAKE3-256 of its plain bytes."""
    return ObjectId(blake3(data).digest())


# -- packs ------------------------------------------------------------------------------


def encode_pack_header() -> bytes:
    head = _PACK_HEADER.pack(PACK_MAGIC, PACK_VERSION, 0)
    return head + _CHECKSUM.pack(xxh3_64_intdigest(head))


def check_pack_header(data: bytes) -> None:
    """Raises `Corrupt` unless `data` is the header of a pack of this version."""
    if len(data) < PACK_HEADER_SIZE or not data.startswith(PACK_MAGIC):
        raise Corrupt("It does not begin like a pack")
    head, checksum = data[: _PACK_HEADER.size], data[_PACK_HEADER.size : PACK_HEADER_SIZE]
    if _CHECKSUM.pack(xxh3_64_intdigest(head)) != checksum:
        raise Corrupt("The checksum of its header is wrong")
    _, version, _ = _PACK_HEADER.unpack(head)
    if version != PACK_VERSION:
        raise Corrupt(f"It is a pack of version {version}, this imagefs knows {PACK_VERSION}")


# -- records ----------------------------------------------------------------------------


class Record:
    """A decoded record: its plain block and the table of the objects in it."""

    __slots__ = ("count", "kind", "plain", "table")

    def __init__(self, kind: int, count: int, table: bytes, plain: bytes) -> None:
        self.kind = kind
        self.count = count
        self.table = table
        self.plain = plain

    @property
    def cost(self) -> int:
        """Bytes it keeps in memory, about."""
        return len(self.plain) + len(self.table) + 200

    def object(self, ordinal: int, oid: ObjectId) -> bytes | None:
        """The bytes of the object at a place of the table, None if another object is there."""
        if ordinal >= self.count:
            return None
        at = ordinal * _ENTRY.size
        if self.table[at : at + OBJECT_ID_SIZE] != oid:
            return None
        (end,) = _END.unpack_from(self.table, at + OBJECT_ID_SIZE)
        start = 0 if ordinal == 0 else _END.unpack_from(self.table, at - _END.size)[0]
        return self.plain[start:end]

    def objects(self) -> Iterator[tuple[ObjectId, bytes]]:
        """All objects in the order of the table."""
        start = 0
        for oid, end in _ENTRY.iter_unpack(self.table):
            yield ObjectId(oid), self.plain[start:end]
            start = end

    def ids_match(self) -> bool:
        """Whether every object has the id that the table gives it."""
        return all(object_id(data) == oid for oid, data in self.objects())


def encode_record(objects: Sequence[tuple[ObjectId, bytes]], kind: int) -> list[bytes]:
    """The record for 1 to `MAX_OBJECTS` objects, in pieces to be written one after the other."""
    plain = objects[0][1] if len(objects) == 1 else b"".join([data for _, data in objects])
    table = _encode_table(objects)
    block, compression = plain, _RAW
    packed = lz4.block.compress(plain, store_size=False)
    if len(packed) < len(plain):
        block, compression = packed, _LZ4
    head = (
        _HEADER.pack(RECORD_MAGIC, kind, compression, len(objects), len(plain), len(block)) + table
    )
    checksum = xxh3_64(head)
    checksum.update(block)
    return [head, block, _CHECKSUM.pack(checksum.intdigest())]


def _encode_table(objects: Sequence[tuple[ObjectId, bytes]]) -> bytes:
    end = 0
    entries = []
    for oid, data in objects:
        end += len(data)
        entries.append(_ENTRY.pack(oid, end))
    return b"".join(entries)


def decode_record(data: bytes) -> Record:
    """The record whose bytes are exactly `data`; raises `Corrupt` on any flipped byte."""
    size = record_size(data)
    if size is None:
        raise Corrupt("no record begins there")
    if size != len(data):
        raise Corrupt(f"the record has {size} bytes where {len(data)} were expected")
    view = memoryview(data)
    (checksum,) = _CHECKSUM.unpack_from(data, size - _CHECKSUM.size)
    if xxh3_64_intdigest(view[: -_CHECKSUM.size]) != checksum:
        raise Corrupt("the checksum is wrong")
    _, kind, compression, count, plain_length, stored_length = _HEADER.unpack_from(data)
    body = _HEADER.size + count * _ENTRY.size
    table = data[_HEADER.size : body]
    _check_table(table, plain_length)
    block = view[body : body + stored_length]
    return Record(kind, count, table, _expand(block, compression, plain_length))


def record_size(head: bytes) -> int | None:
    """Size of the record that begins with `head`, None if these bytes begin no record."""
    if len(head) < _HEADER.size:
        return None
    magic, kind, compression, count, plain_length, stored_length = _HEADER.unpack_from(head)
    if magic != RECORD_MAGIC or kind > METADATA or not 1 <= count <= MAX_OBJECTS:
        return None
    if plain_length > MAX_BLOCK:
        return None
    if compression == _RAW and stored_length != plain_length:
        return None
    if compression > _LZ4 or (compression == _LZ4 and stored_length >= plain_length):
        return None
    return int(_HEADER.size + count * _ENTRY.size + stored_length + _CHECKSUM.size)


def plain_length(head: bytes) -> int:
    """Bytes of the block of the record that begins with `head` once it is decompressed."""
    return int(_HEADER.unpack_from(head)[4])


def _check_table(table: bytes, plain_length: int) -> None:
    start = 0
    for _, end in _ENTRY.iter_unpack(table):
        if end < start:
            raise Corrupt("the table of objects is not in order")
        start = end
    if start != plain_length:
        raise Corrupt(f"the table of objects ends at {start} of {plain_length} bytes")


def _expand(block: memoryview, compression: int, length: int) -> bytes:
    if compression == _RAW:
        return bytes(block)
    try:
        plain = lz4.block.decompress(block, uncompressed_size=length)
    except lz4.block.LZ4BlockError as error:
        raise Corrupt(f"the block does not decompress: {error}") from error
    if len(plain) != length:
        raise Corrupt(f"the block has {len(plain)} plain bytes where {length} were expected")
    return bytes(plain)


# -- finding records again --------------------------------------------------------------


class Found(NamedTuple):
    """An intact record and where it lies."""

    offset: int
    size: int
    record: Record


def scan(read: Callable[[int, int], bytes], start: int, end: int) -> Iterator[Found]:
    """The intact records between two offsets of a pack; `read` takes a size and an offset.

    What is not an intact record is passed over: the scan goes on at the next place where one
    begins. Object ids are verified, because what looks like a record may be part of an object.
    """
    position: int | None = start
    while position is not None and position + SMALLEST_RECORD <= end:
        found = _record_at(read, position, end)
        if found is None:
            position = _next_magic(read, position + 1, end)
            continue
        yield found
        position += found.size


def _record_at(read: Callable[[int, int], bytes], offset: int, end: int) -> Found | None:
    size = record_size(read(_HEADER.size, offset))
    if size is None or offset + size > end:
        return None
    try:
        record = decode_record(read(size, offset))
    except Corrupt:
        return None
    return Found(offset, size, record) if record.ids_match() else None


def _next_magic(read: Callable[[int, int], bytes], start: int, end: int) -> int | None:
    overlap = len(RECORD_MAGIC) - 1
    while start < end:
        window = read(min(_SCAN_WINDOW, end - start), start)
        at = window.find(RECORD_MAGIC)
        if at >= 0:
            return start + at
        if len(window) <= overlap:
            return None
        start += len(window) - overlap
    return None
