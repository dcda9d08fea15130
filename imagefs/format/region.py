"""What a region holds beside records: descriptors of images, indexes of packs, the marker.

All of it comes from servers that others can write to, so decoding accepts exactly what encoding
gives, refuses what exceeds a limit before it takes memory for it, and raises `Corrupt` that
says what is wrong; the caller adds where. docs/format.md has the tables.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from operator import lt
from typing import Annotated, Final, NamedTuple

import msgspec
from xxhash import xxh3_64_intdigest

from imagefs.errors import Corrupt, StoreError
from imagefs.format.directory import MAX_INODES, UNDECODABLE
from imagefs.format.record import MAX_BLOCK, MAX_OBJECTS, PACK_HEADER_SIZE, least_record_size
from imagefs.model import MAX_FILE_SIZE, OBJECT_ID_SIZE, ObjectId

DESCRIPTOR_MAGIC: Final = "imagefs image"
DESCRIPTOR_VERSION: Final = 1
MAX_PACKS: Final = 100_000
"""Packs that one image may need."""

MAX_DESCRIPTOR: Final = 8 * 1024 * 1024
MAX_PARENT: Final = 1024
"""Characters of the reference that says where an image came from."""

INDEX_MAGIC: Final = b"IMFSPIDX"
PACK_INDEX_VERSION: Final = 1
MAX_PACK_INDEX: Final = 16 * 1024 * 1024
MAX_PACK: Final = 256 * 1024 * 1024
"""Longest pack of a region, its index included."""

MARKER_VERSION: Final = 1
MAX_MARKER: Final = 4096

_MARKER_LINE: Final = "imagefs region"
SALT_SIZE: Final = 16
_INDEX_HEADER = struct.Struct(f"<8sII{SALT_SIZE}s")
_RECORD = struct.Struct("<III")
_CHECKSUM = struct.Struct("<Q")

SMALLEST_PACK_INDEX: Final = _INDEX_HEADER.size + _RECORD.size + OBJECT_ID_SIZE + _CHECKSUM.size

_Bytes32 = Annotated[bytes, msgspec.Meta(min_length=OBJECT_ID_SIZE, max_length=OBJECT_ID_SIZE)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INODES)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=MAX_FILE_SIZE)]
_IndexLength = Annotated[int, msgspec.Meta(ge=SMALLEST_PACK_INDEX, le=MAX_PACK_INDEX)]
_Parent = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PARENT)]


# -- descriptors ------------------------------------------------------------------------


class PackName(
    msgspec.Struct, array_like=True, frozen=True, gc=False, order=True, forbid_unknown_fields=True
):
    """A pack of a region: BLAKE3-256 of all its bytes, and the length of the index at its end."""

    id: _Bytes32
    index_length: _IndexLength


class Descriptor(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """An image as a region holds it.

    `manifest` is its tree; `entries` and `bytes` are the count and size of the root's entry;
    `created` is ns since 1970; `parent` where it came from, for people; `packs`, in order of
    their ids, are all that is needed to read every object of the tree, maybe more.
    """

    manifest: _Bytes32
    entries: _Count
    bytes: _Number
    created: _Number
    parent: _Parent | None
    packs: tuple[PackName, ...]


class _DescriptorObject(
    msgspec.Struct, array_like=True, frozen=True, tag=DESCRIPTOR_MAGIC, forbid_unknown_fields=True
):
    version: int
    descriptor: msgspec.Raw


_encoder = msgspec.msgpack.Encoder()
_outer_decoder = msgspec.msgpack.Decoder(_DescriptorObject)
_descriptor_decoder = msgspec.msgpack.Decoder(Descriptor)


def encode_descriptor(descriptor: Descriptor) -> bytes:
    """The bytes of a descriptor; its packs are in order and at most `MAX_PACKS`."""
    inner = msgspec.Raw(_encoder.encode(descriptor))
    return _encoder.encode(_DescriptorObject(DESCRIPTOR_VERSION, inner))


def decode_descriptor(data: bytes) -> Descriptor:
    """The descriptor that these bytes are.

    Raises `Corrupt` for anything else, `StoreError` for one of a version that is not known.
    """
    if len(data) > MAX_DESCRIPTOR:
        raise Corrupt(f"It has {len(data)} bytes, a descriptor has at most {MAX_DESCRIPTOR}")
    try:
        outer = _outer_decoder.decode(data)
        if outer.version > DESCRIPTOR_VERSION:
            raise StoreError(
                f"It has version {outer.version}, this imagefs knows {DESCRIPTOR_VERSION}:"
                " use a newer imagefs"
            )
        descriptor = _descriptor_decoder.decode(outer.descriptor)
    except UNDECODABLE as error:
        raise Corrupt(f"It is no descriptor of an image: {error}") from error
    if len(descriptor.packs) > MAX_PACKS:
        raise Corrupt(f"It names {len(descriptor.packs)} packs, {MAX_PACKS} are allowed")
    ids = [pack.id for pack in descriptor.packs]
    if not all(map(lt, ids, ids[1:])):
        raise Corrupt("Its packs are not in order")
    if encode_descriptor(descriptor) != data:
        raise Corrupt("It is not in canonical form")
    return descriptor


# -- the index of a pack ----------------------------------------------------------------


class IndexedRecord(NamedTuple):
    """A record of a pack: where it begins, its bytes there, its objects in table order."""

    offset: int
    size: int
    objects: tuple[ObjectId, ...]


def encode_pack_index(records: Iterable[IndexedRecord], salt: bytes) -> bytes:
    """The index of a pack; the records are in the order in which they lie in it.

    `salt` is random: two packs are never one object of the server, whatever they hold. So a pack
    that is about to be deleted is not the one that a copy has just written.
    """
    parts = [b""]
    count = 0
    for record in records:
        count += 1
        parts.append(_RECORD.pack(record.offset, record.size, len(record.objects)))
        parts += record.objects
    parts[0] = _INDEX_HEADER.pack(INDEX_MAGIC, PACK_INDEX_VERSION, count, salt)
    body = b"".join(parts)
    return body + _CHECKSUM.pack(xxh3_64_intdigest(body))


def decode_pack_index(data: bytes, begin: int) -> list[IndexedRecord]:
    """The records that the index of a pack lists; `begin` is where the index begins in it.

    Raises `Corrupt` unless they can lie in the pack as it says, `StoreError` for a version that
    is not known. Whether they do lie there, each record says itself.
    """
    if not SMALLEST_PACK_INDEX <= len(data) <= MAX_PACK_INDEX:
        raise Corrupt(f"An index of a pack cannot have {len(data)} bytes")
    magic, version, count, _ = _INDEX_HEADER.unpack_from(data)
    if magic != INDEX_MAGIC:
        raise Corrupt("It does not begin like an index of a pack")
    body = memoryview(data)[: -_CHECKSUM.size]
    if xxh3_64_intdigest(body) != _CHECKSUM.unpack_from(data, len(body))[0]:
        raise Corrupt("The checksum of the index is wrong")
    if version != PACK_INDEX_VERSION:
        raise StoreError(
            f"It is an index of version {version}, this imagefs knows {PACK_INDEX_VERSION}:"
            " use a newer imagefs"
        )
    return _decode_records(data, len(body), count, begin)


def _decode_records(data: bytes, length: int, count: int, begin: int) -> list[IndexedRecord]:
    records: list[IndexedRecord] = []
    at = _INDEX_HEADER.size
    free = PACK_HEADER_SIZE
    while at < length:
        if at + _RECORD.size > length:
            raise Corrupt("The index ends within a record")
        offset, size, objects = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        end = at + objects * OBJECT_ID_SIZE
        if not 1 <= objects <= MAX_OBJECTS or end > length:
            raise Corrupt(f"The index has a record of {objects} objects")
        least = least_record_size(objects)
        if offset < free or not least <= size <= least + MAX_BLOCK or offset + size > begin:
            raise Corrupt(f"The index has a record of {size} bytes at {offset}, which cannot be")
        ids = tuple(ObjectId(data[i : i + OBJECT_ID_SIZE]) for i in range(at, end, OBJECT_ID_SIZE))
        records.append(IndexedRecord(offset, size, ids))
        free = offset + size
        at = end
    if len(records) != count or not records:
        raise Corrupt(f"The index has {len(records)} records and says {count}")
    return records


# -- the marker -------------------------------------------------------------------------


def encode_marker() -> bytes:
    """What says that a place on a server is a region, and its version."""
    return f"{_MARKER_LINE}\nversion {MARKER_VERSION}\n".encode()


def check_marker(data: bytes) -> None:
    """Raises `StoreError` unless these bytes are the marker of a region of this version."""
    lines = data[:MAX_MARKER].decode("ascii", "replace").splitlines()
    number = lines[1].removeprefix("version ") if len(lines) >= 2 else ""
    if number == "" or lines[0] != _MARKER_LINE or not number.isdecimal():
        raise StoreError("It is not a region of imagefs")
    if number != str(MARKER_VERSION):
        raise StoreError(
            f"It is a region of version {number[:20]}, this imagefs knows {MARKER_VERSION}:"
            " use a newer imagefs"
        )
