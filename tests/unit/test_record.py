"""The record format: what is encoded comes back, what is damaged is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagefs.errors import Corrupt
from imagefs.format.record import (
    DATA,
    MAX_BLOCK,
    MAX_OBJECTS,
    METADATA,
    PACK_HEADER_SIZE,
    PACK_VERSION,
    RECORD_MAGIC,
    SMALLEST_RECORD,
    check_pack_header,
    decode_record,
    encode_pack_header,
    encode_record,
    object_id,
    plain_length,
    record_size,
    scan,
)
from imagefs.model import ObjectId

DOCUMENT = Path(__file__).parents[2] / "docs" / "format.md"

# Some shrink, some do not, some are empty.
contents = st.one_of(
    st.binary(max_size=200), st.builds(bytes.__mul__, st.binary(max_size=9), st.integers(0, 99))
)


def record_of(*datas: bytes, kind: int = DATA) -> bytes:
    return b"".join(encode_record([(object_id(data), data) for data in datas], kind))


def found_in(pack: bytes, start: int = 0) -> list[tuple[int, list[bytes]]]:
    """Offset and contents of the records that a scan finds."""

    def read(size: int, offset: int) -> bytes:
        return pack[offset : offset + size]

    return [
        (found.offset, [data for _, data in found.record.objects()])
        for found in scan(read, start, len(pack))
    ]


def flip(data: bytes, at: int, bits: int = 0x40) -> bytes:
    return data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]


# -- records ----------------------------------------------------------------------------


@given(st.lists(contents, min_size=1, max_size=20), st.sampled_from([DATA, METADATA]))
def test_what_is_encoded_comes_back(datas: list[bytes], kind: int) -> None:
    data = record_of(*datas, kind=kind)
    record = decode_record(data)
    assert [content for _, content in record.objects()] == datas
    assert [oid for oid, _ in record.objects()] == [object_id(content) for content in datas]
    for ordinal, content in enumerate(datas):
        assert record.object(ordinal, object_id(content)) == content
    assert record.kind == kind
    assert record.ids_match()
    assert record_size(data) == len(data)
    assert plain_length(data) == sum(map(len, datas))


@given(st.lists(contents, min_size=1, max_size=5), st.data())
def test_a_changed_byte_anywhere_is_refused(datas: list[bytes], data: st.DataObject) -> None:
    encoded = record_of(*datas)
    at = data.draw(st.integers(0, len(encoded) - 1))
    bits = data.draw(st.integers(1, 255))
    with pytest.raises(Corrupt):
        decode_record(flip(encoded, at, bits))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_record(data: bytes) -> None:
    with pytest.raises(Corrupt):
        decode_record(data)
    with pytest.raises(Corrupt):
        decode_record(RECORD_MAGIC + data)


def test_every_flipped_byte_of_one_record_is_refused() -> None:
    encoded = record_of(b"a" * 300, b"b", b"")
    for at in range(len(encoded)):
        with pytest.raises(Corrupt):
            decode_record(flip(encoded, at))


def test_a_record_cut_short_or_with_a_tail_is_refused() -> None:
    encoded = record_of(b"some text that is not short")
    for size in range(len(encoded)):
        with pytest.raises(Corrupt):
            decode_record(encoded[:size])
    with pytest.raises(Corrupt):
        decode_record(encoded + b"\0")


def test_an_object_is_only_given_under_its_own_id() -> None:
    record = decode_record(record_of(b"one", b"two"))
    assert record.object(0, object_id(b"two")) is None
    assert record.object(2, object_id(b"two")) is None
    assert record.object(1, object_id(b"two")) == b"two"


def test_a_block_that_does_not_shrink_is_stored_raw() -> None:
    assert len(record_of(b"abcdefgh")) == SMALLEST_RECORD + 8
    assert len(record_of(b"a" * 10_000)) < 200


def test_wrong_ids_are_noticed_on_demand() -> None:
    forged = b"".join(encode_record([(object_id(b"mine"), b"yours")], DATA))
    assert not decode_record(forged).ids_match()


# -- packs ------------------------------------------------------------------------------


def test_a_pack_header_is_checked_byte_by_byte() -> None:
    header = encode_pack_header()
    assert len(header) == PACK_HEADER_SIZE
    check_pack_header(header)
    for at in range(PACK_HEADER_SIZE):
        with pytest.raises(Corrupt):
            check_pack_header(flip(header, at))
        with pytest.raises(Corrupt):
            check_pack_header(header[:at])


def test_a_scan_finds_all_records() -> None:
    first, second = record_of(b"1" * 500), record_of(b"2", b"3")
    assert found_in(b"header" + first + second, 6) == [
        (6, [b"1" * 500]),
        (6 + len(first), [b"2", b"3"]),
    ]


@given(st.integers(0, SMALLEST_RECORD + 255))
def test_a_scan_ignores_a_torn_record_at_the_end(kept: int) -> None:
    first, torn = record_of(b"whole"), record_of(bytes(range(256)))
    assert found_in(first + torn[:kept]) == [(0, [b"whole"])]


def test_a_scan_goes_on_behind_a_damaged_record() -> None:
    records = [record_of(b"%d" % n * 40) for n in range(3)]
    for at in range(len(records[1])):
        pack = records[0] + flip(records[1], at) + records[2]
        assert [datas for _, datas in found_in(pack)] == [[b"0" * 40], [b"2" * 40]]


def test_a_scan_goes_on_behind_a_long_gap() -> None:
    gap = bytes(3 * 1024 * 1024 - 2)
    pack = record_of(b"before") + gap + record_of(b"after")
    assert [datas for _, datas in found_in(pack)] == [[b"before"], [b"after"]]


def test_a_scan_does_not_believe_a_record_inside_an_object() -> None:
    # Whoever may store objects could hide a record in one, and hope for damage before it.
    forged = b"".join(encode_record([(object_id(b"passwd of root"), b"passwd of guest")], DATA))
    carrier = record_of(bytes(range(256)) + forged)
    assert forged in carrier
    assert found_in(flip(carrier, 3)) == []


def test_a_header_that_claims_too_much_is_no_record() -> None:
    encoded = bytearray(record_of(b"x"))
    encoded[8:12] = encoded[12:16] = (MAX_BLOCK + 1).to_bytes(4, "little")
    assert record_size(bytes(encoded)) is None


# -- the document -----------------------------------------------------------------------


def test_the_worked_example_of_the_document_is_what_is_written() -> None:
    block = re.search(r"```pack-example\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert block is not None
    example = bytes.fromhex("".join(line.split("  ")[0] for line in block[1].splitlines()))
    assert example == encode_pack_header() + record_of(b"hello, ", b"world\n")
    assert found_in(example, PACK_HEADER_SIZE) == [(PACK_HEADER_SIZE, [b"hello, ", b"world\n"])]


def test_the_document_states_the_limits() -> None:
    text = DOCUMENT.read_text()
    for limit in (MAX_OBJECTS, MAX_BLOCK, PACK_VERSION, PACK_HEADER_SIZE):
        assert f"{limit:,}" in text


def test_object_ids_are_blake3() -> None:
    assert object_id(b"") == ObjectId(
        bytes.fromhex("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")
    )
