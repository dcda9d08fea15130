"""What a region holds beside records: what is encoded comes back, nothing else is accepted."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from imagefs.errors import Corrupt, StoreError
from imagefs.format.directory import MAX_INODES
from imagefs.format.record import (
    MAX_BLOCK,
    MAX_OBJECTS,
    PACK_HEADER_SIZE,
    least_record_size,
    object_id,
)
from imagefs.format.region import (
    DESCRIPTOR_MAGIC,
    DESCRIPTOR_VERSION,
    MARKER_VERSION,
    MAX_DESCRIPTOR,
    MAX_PACK,
    MAX_PACK_INDEX,
    MAX_PACKS,
    MAX_PARENT,
    PACK_INDEX_VERSION,
    SALT_SIZE,
    SMALLEST_PACK_INDEX,
    Descriptor,
    IndexedRecord,
    PackName,
    check_marker,
    decode_descriptor,
    decode_pack_index,
    encode_descriptor,
    encode_marker,
    encode_pack_index,
)
from imagefs.model import MAX_FILE_SIZE, ObjectId

DOCUMENT = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")

ids = st.binary(min_size=32, max_size=32)
numbers = st.integers(0, MAX_FILE_SIZE)
packs = st.lists(
    st.builds(PackName, ids, st.integers(SMALLEST_PACK_INDEX, MAX_PACK_INDEX)),
    max_size=5,
    unique_by=lambda pack: pack.id,
).map(lambda found: tuple(sorted(found)))
descriptors = st.builds(
    Descriptor,
    ids,
    st.integers(0, MAX_INODES),
    numbers,
    numbers,
    st.none() | st.text(min_size=1, max_size=MAX_PARENT),
    packs,
)
SALT = bytes(range(SALT_SIZE))
A = PackName(b"a" * 32, SMALLEST_PACK_INDEX)
B = PackName(b"b" * 32, 100)
PLAIN = Descriptor(object_id(b"tree"), 3, 4, 5, None, (A, B))


@st.composite
def indexes(draw: st.DrawFn) -> list[IndexedRecord]:
    """Records that lie one behind the other, with and without gaps."""
    end = PACK_HEADER_SIZE
    found = []
    for _ in range(draw(st.integers(1, 6))):
        objects = tuple(map(ObjectId, draw(st.lists(ids, min_size=1, max_size=5))))
        offset = end + draw(st.integers(0, 9))
        size = least_record_size(len(objects)) + draw(st.integers(0, 999))
        found.append(IndexedRecord(offset, size, objects))
        end = offset + size
    return found


def end_of(records: list[IndexedRecord]) -> int:
    return records[-1].offset + records[-1].size


def flip(data: bytes, at: int, bits: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]


# -- descriptors ------------------------------------------------------------------------


@given(descriptors)
def test_a_descriptor_comes_back_as_it_was(descriptor: Descriptor) -> None:
    assert decode_descriptor(encode_descriptor(descriptor)) == descriptor


@given(descriptors, st.integers(0), st.integers(1, 255))
def test_a_changed_descriptor_is_refused_or_another_one(
    descriptor: Descriptor, at: int, bits: int
) -> None:
    data = flip(encode_descriptor(descriptor), at, bits)
    try:
        found = decode_descriptor(data)
    except (Corrupt, StoreError):
        return
    assert found != descriptor
    assert encode_descriptor(found) == data


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_a_descriptor(data: bytes) -> None:
    try:
        found = decode_descriptor(data)
    except (Corrupt, StoreError):
        return
    assert encode_descriptor(found) == data


@given(descriptors, st.integers(0))
def test_a_descriptor_that_is_cut_is_refused(descriptor: Descriptor, kept: int) -> None:
    data = encode_descriptor(descriptor)
    with pytest.raises(Corrupt):
        decode_descriptor(data[: kept % len(data)])
    with pytest.raises(Corrupt):
        decode_descriptor(data + b"\0")


@pytest.mark.parametrize(
    "changes",
    [
        {"manifest": b"short"},
        {"entries": -1},
        {"entries": MAX_INODES + 1},
        {"bytes": -1},
        {"created": -1},
        {"created": 2**63},
        {"parent": ""},
        {"parent": "x" * (MAX_PARENT + 1)},
        {"packs": (B, A)},
        {"packs": (A, A)},
        {"packs": (PackName(b"short", 100),)},
        {"packs": (PackName(A.id, SMALLEST_PACK_INDEX - 1),)},
        {"packs": (PackName(A.id, MAX_PACK_INDEX + 1),)},
    ],
)
def test_descriptors_that_cannot_exist(changes: dict[str, object]) -> None:
    with pytest.raises(Corrupt):
        decode_descriptor(encode_descriptor(msgspec.structs.replace(PLAIN, **changes)))


def test_a_descriptor_of_too_many_packs_is_refused() -> None:
    most = tuple(PackName(number.to_bytes(32, "big"), 100) for number in range(MAX_PACKS + 1))
    accepted = msgspec.structs.replace(PLAIN, packs=most[:-1])
    assert decode_descriptor(encode_descriptor(accepted)) == accepted
    with pytest.raises(Corrupt, match="packs"):
        decode_descriptor(encode_descriptor(msgspec.structs.replace(PLAIN, packs=most)))
    with pytest.raises(Corrupt, match="at most"):
        decode_descriptor(bytes(MAX_DESCRIPTOR + 1))


def test_a_number_in_another_spelling_is_refused() -> None:
    data = encode_descriptor(PLAIN)
    assert data.count(b"\x03\x04\x05\xc0") == 1
    with pytest.raises(Corrupt, match="canonical"):
        decode_descriptor(data.replace(b"\x03\x04\x05\xc0", b"\xcc\x03\x04\x05\xc0"))


def test_a_descriptor_of_a_later_version_says_what_to_do() -> None:
    later = msgspec.msgpack.encode([DESCRIPTOR_MAGIC, DESCRIPTOR_VERSION + 1, {"anything": 1}])
    with pytest.raises(StoreError, match="newer imagefs"):
        decode_descriptor(later)


# -- indexes of packs -------------------------------------------------------------------


@given(indexes())
def test_an_index_comes_back_as_it_was(records: list[IndexedRecord]) -> None:
    data = encode_pack_index(records, SALT)
    assert decode_pack_index(data, end_of(records)) == records
    with pytest.raises(Corrupt):
        decode_pack_index(data, end_of(records) - 1)


@given(indexes(), st.integers(0), st.integers(1, 255))
def test_a_changed_or_cut_index_is_refused(
    records: list[IndexedRecord], at: int, bits: int
) -> None:
    data = encode_pack_index(records, SALT)
    for bad in (flip(data, at, bits), data[: at % len(data)], data + b"\0"):
        with pytest.raises(Corrupt):
            decode_pack_index(bad, end_of(records))


@given(indexes(), st.data())
def test_an_index_of_whoever_makes_checksums_is_refused_or_means_itself(
    records: list[IndexedRecord], data: st.DataObject
) -> None:
    good = encode_pack_index(records, SALT)
    body = bytearray(good[:-8])
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    forged = bytes(body) + encode_checksum(bytes(body))
    try:
        found = decode_pack_index(forged, end_of(records))
    except (Corrupt, StoreError):
        return
    assert encode_pack_index(found, forged[16 : 16 + SALT_SIZE]) == forged


@pytest.mark.parametrize(
    "records",
    [
        [],
        [IndexedRecord(PACK_HEADER_SIZE - 1, 500, (ObjectId(A.id),))],
        [IndexedRecord(PACK_HEADER_SIZE, 501 - PACK_HEADER_SIZE, (ObjectId(A.id),))],
        [IndexedRecord(PACK_HEADER_SIZE, least_record_size(1) - 1, (ObjectId(A.id),))],
        [IndexedRecord(PACK_HEADER_SIZE, 200, ())],
        [IndexedRecord(PACK_HEADER_SIZE, 2**32 - 1, (ObjectId(A.id),))],
        [
            IndexedRecord(PACK_HEADER_SIZE, 200, (ObjectId(A.id),)),
            IndexedRecord(PACK_HEADER_SIZE + 199, 200, (ObjectId(B.id),)),
        ],
        [
            IndexedRecord(PACK_HEADER_SIZE + 200, 200, (ObjectId(A.id),)),
            IndexedRecord(PACK_HEADER_SIZE, 200, (ObjectId(B.id),)),
        ],
    ],
)
def test_indexes_that_cannot_exist(records: list[IndexedRecord]) -> None:
    with pytest.raises(Corrupt):
        decode_pack_index(encode_pack_index(records, SALT), 500)


def test_no_record_is_longer_than_one_can_be() -> None:
    most = least_record_size(1) + MAX_BLOCK
    for size in (most, most + 1):
        data = encode_pack_index([IndexedRecord(24, size, (ObjectId(A.id),))], SALT)
        if size == most:
            decode_pack_index(data, MAX_PACK)
        else:
            with pytest.raises(Corrupt):
                decode_pack_index(data, MAX_PACK)


def test_an_index_of_a_later_version_says_what_to_do() -> None:
    body = bytearray(encode_pack_index([IndexedRecord(24, 200, (ObjectId(A.id),))], SALT)[:-8])
    body[8] += 1
    with pytest.raises(StoreError, match="newer imagefs"):
        decode_pack_index(bytes(body) + encode_checksum(bytes(body)), 500)


def encode_checksum(body: bytes) -> bytes:
    return xxh3_64_intdigest(body).to_bytes(8, "little")


# -- the marker -------------------------------------------------------------------------


def test_a_marker_says_what_the_place_is() -> None:
    check_marker(encode_marker())
    for other in (b"", b"\n", b"hello\nversion 1\n", b"imagefs region\n", b"\xff" * 9):
        with pytest.raises(StoreError, match="not a region"):
            check_marker(other)
    later = encode_marker().replace(b"%d" % MARKER_VERSION, b"%d" % (MARKER_VERSION + 1))
    with pytest.raises(StoreError, match="newer imagefs"):
        check_marker(later)


# -- the document -----------------------------------------------------------------------


def example(name: str) -> bytes:
    found = re.search(rf"```{name}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found is not None
    return bytes.fromhex("".join(line.split("  ")[0] for line in found[1].splitlines()))


def test_the_examples_are_what_is_written() -> None:
    hello = IndexedRecord(24, 109, (object_id(b"hello, "), object_id(b"world\n")))
    index = encode_pack_index([hello], SALT)
    assert example("pack-index-example") == index
    pack = example("pack-example") + index
    name = PackName(object_id(pack), len(index))
    descriptor = Descriptor(object_id(b"tree"), 2, 13, 10**9, "web/node-001", (name,))
    assert example("descriptor-example") == encode_descriptor(descriptor)
    assert decode_pack_index(index, len(example("pack-example"))) == [hello]


def test_the_document_states_the_limits() -> None:
    for limit in (MAX_PACKS, MAX_DESCRIPTOR, MAX_PACK, MAX_PACK_INDEX, MAX_PARENT, MAX_OBJECTS):
        assert f"{limit:,}" in DOCUMENT
    for phrase in (
        f'["{DESCRIPTOR_MAGIC}", {DESCRIPTOR_VERSION}, descriptor]',
        f"| version, {PACK_INDEX_VERSION} |",
        f"`imagefs region` and `version {MARKER_VERSION}`",
    ):
        assert phrase in DOCUMENT


def test_the_fields_are_named_in_their_order() -> None:
    rows = DOCUMENT.split("| descriptor |")[1].split("\n\n")[0].splitlines()[2:]
    named = ", ".join(row.split("|")[1].strip() for row in rows).split(", ")
    assert named == list(Descriptor.__struct_fields__)
