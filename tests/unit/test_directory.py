"""Directory pages: what is encoded comes back, and nothing else is accepted."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagefs.errors import Corrupt
from imagefs.format.directory import (
    MAX_INODES,
    MAX_LEVEL,
    PAGE_LIMIT,
    RANK_BITS,
    Entry,
    Index,
    Leaf,
    PageRef,
    boundary_rank,
    decode_page,
    encode_index,
    encode_leaf,
    valid_name,
)
from imagefs.model import MAX_FILE_SIZE, OBJECT_ID_SIZE

ID = bytes(range(OBJECT_ID_SIZE))

names = st.binary(min_size=1, max_size=255).filter(valid_name)
xattrs = st.none() | st.dictionaries(
    st.sampled_from([b"user.a", b"trusted.\xff", b"system.posix_acl_access"]),
    st.binary(),
    min_size=1,
).map(lambda found: tuple(sorted(found.items())))


def entry(name: bytes = b"name", **fields: Any) -> Entry:
    defaults: dict[str, Any] = {
        "mode": 0o100644, "uid": 0, "gid": 0, "mtime": 0, "size": 0, "count": 0, "ref": None,
        "links": 0, "xattrs": None,
    }  # fmt: skip
    return Entry(name, **{**defaults, **fields})


@st.composite
def entries(draw: st.DrawFn, name: bytes) -> Entry:
    kind = draw(st.sampled_from([0o10, 0o04, 0o12, 0o02, 0o06, 0o01, 0o14]))
    size = count = 0
    ref = None
    links = draw(st.integers(0, 1))
    if kind == 0o10:
        size = draw(st.integers(0, MAX_FILE_SIZE))
        count = draw(st.integers(0, size))
        ref = ID if count else None
    elif kind == 0o04:
        size, count, ref = draw(st.integers(0, MAX_FILE_SIZE)), draw(st.integers(1, 99)), ID
    elif kind == 0o12:
        ref = draw(st.binary(min_size=1, max_size=4095).filter(lambda target: b"\0" not in target))
        size = len(ref)
    elif kind in {0o02, 0o06}:
        count = draw(st.integers(0, 2**40))
    return entry(
        name,
        mode=kind << 12 | draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, 2**32 - 1)),
        mtime=draw(st.integers(-(2**63), 2**63 - 1)),
        size=size, count=count, ref=ref, links=links, xattrs=draw(xattrs),
    )  # fmt: skip


@st.composite
def leaves(draw: st.DrawFn) -> list[Entry]:
    chosen = draw(st.lists(names, max_size=20, unique=True))
    return [draw(entries(name)) for name in sorted(chosen)]


def leaf_of(*items: Entry) -> Leaf:
    page = decode_page(encode_leaf(list(items)))
    assert isinstance(page, Leaf)
    return page


@given(leaves())
def test_a_leaf_comes_back_as_it_was(items: list[Entry]) -> None:
    page = leaf_of(*items)
    assert page.entries == items
    assert page.names == [item.name for item in items]


@given(leaves(), st.data())
def test_changed_bytes_are_refused_or_mean_something_else(
    items: list[Entry], data: st.DataObject
) -> None:
    """No two strings of bytes mean the same page."""
    encoded = encode_leaf(items)
    at = data.draw(st.integers(0, len(encoded) - 1))
    changed = bytearray(encoded)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        page = decode_page(bytes(changed))
    except Corrupt:
        return
    assert not isinstance(page, Leaf) or page.entries != items


@given(st.binary(max_size=300))
def test_noise_is_refused_with_one_kind_of_error(noise: bytes) -> None:
    try:
        page = decode_page(noise)
    except Corrupt:
        return
    assert isinstance(page, Leaf)
    assert encode_leaf(page.entries) == noise


def test_positions_and_totals() -> None:
    a = entry(b"a", mode=0o040755, ref=ID, count=5, size=100, links=2)
    b = entry(b"b", size=7, count=7, ref=ID)
    c = entry(b"c", mode=0o040755, ref=ID, count=0)
    d = entry(b"d", mode=0o120777, ref=b"target", size=6)
    page = leaf_of(a, b, c, d)
    assert list(page.starts)[:4] == [0, 6, 7, 8]
    assert (page.claim.names, page.claim.total) == (4, 9)
    assert (page.claim.size, page.claim.links) == (107, 2)
    assert not page.linked
    assert leaf_of(b, msgspec.structs.replace(d, links=1)).linked


def test_sizes_end_at_the_largest_file() -> None:
    big = [entry(name, size=MAX_FILE_SIZE) for name in (b"a", b"b")]
    assert leaf_of(*big).claim.size == MAX_FILE_SIZE


BAD_NAMES = [b"", b".", b"..", b"a/b", b"a\0", b"/", b"x" * 256]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_cannot_exist(name: bytes) -> None:
    assert not valid_name(name)
    with pytest.raises(Corrupt, match="cannot exist"):
        leaf_of(entry(name))
    with pytest.raises(Corrupt, match="cannot exist"):
        leaf_of(*sorted([entry(name), entry(b"-"), entry(b"~")], key=lambda item: item.name))


@pytest.mark.parametrize("pair", [(b"b", b"a"), (b"a", b"a")])
def test_names_out_of_order(pair: tuple[bytes, bytes]) -> None:
    with pytest.raises(Corrupt, match="order"):
        leaf_of(*map(entry, pair))


BAD_FIELDS: list[dict[str, Any]] = [
    {"mode": 0o644},
    {"mode": 0o030644},
    {"mode": 0o1100644},
    {"mode": -1},
    {"uid": 2**32},
    {"gid": -1},
    {"mtime": 2**63},
    {"size": 2**63},
    {"size": -1},
    {"size": 5, "ref": ID},
    {"size": 5, "count": 6, "ref": ID},
    {"size": 5, "count": 5},
    {"size": 5, "count": 5, "ref": ID[1:]},
    {"links": 2},
    {"mode": 0o040755},
    {"mode": 0o040755, "ref": ID, "count": 1, "links": 2},
    {"mode": 0o040755, "ref": ID, "count": MAX_INODES},
    {"mode": 0o040755, "ref": b""},
    {"mode": 0o120777},
    {"mode": 0o120777, "ref": b"", "size": 0},
    {"mode": 0o120777, "ref": b"abc", "size": 2},
    {"mode": 0o120777, "ref": b"a\0c", "size": 3},
    {"mode": 0o120777, "ref": b"a" * 4096, "size": 4096},
    {"mode": 0o120777, "ref": b"abc", "size": 3, "links": 2},
    {"mode": 0o020600, "ref": ID},
    {"mode": 0o020600, "size": 1},
    {"mode": 0o010600, "count": 1},
    {"mode": 0o140600, "size": 1},
    {"xattrs": ()},
    {"xattrs": ((b"user.b", b""), (b"user.a", b""))},
    {"xattrs": ((b"user.a", b""), (b"user.a", b""))},
    {"xattrs": ((b"", b""),)},
    {"xattrs": ((b"user.a\0", b""),)},
    {"xattrs": ((b"user." + b"a" * 251, b""),)},
    {"xattrs": ((b"user.a", b"x" * 65537),)},
    {"xattrs": ((b"user.imagefs.kind", b"image"),)},
]


@pytest.mark.parametrize("fields", BAD_FIELDS, ids=str)
def test_entries_that_contradict_themselves(fields: dict[str, Any]) -> None:
    with pytest.raises(Corrupt):
        leaf_of(entry(**fields))


def test_other_spellings_of_the_same_page_are_refused() -> None:
    encoded = encode_leaf([entry(b"a", uid=5)])
    name = b"\xc4\x01a"
    assert name in encoded
    for other in (encoded.replace(name, b"\xc5\x00\x01a"), encoded + b"\0", encoded[:-1], b""):
        with pytest.raises(Corrupt):
            decode_page(other)


# -- splitting --------------------------------------------------------------------------


def ranked(rank: int, count: int = 1) -> list[bytes]:
    """Names of exactly that rank, in order."""
    found = (b"%08d" % i for i in range(10**8))
    return [
        name
        for name, _ in zip(
            filter(lambda n: boundary_rank(n) == rank, found), range(count), strict=False
        )
    ]


def test_rank_counts_the_low_zero_bits() -> None:
    shares = [boundary_rank(b"%d" % i) for i in range(1 << (2 * RANK_BITS + 2))]
    assert 0.8 < sum(rank >= 1 for rank in shares) / len(shares) * 2**RANK_BITS < 1.2
    assert any(rank >= 2 for rank in shares)
    assert max(shares) < MAX_LEVEL


def test_ranks_never_change() -> None:
    """They decide digests."""
    ranks = bytes(boundary_rank(b"name-%d" % i) for i in range(10_000))
    assert hashlib.sha256(ranks).hexdigest() == (
        "025e5b20b4e21af0ec50f0cd1f8c14db6b1a4ae905d30a2d4392b9307e88bd0b"
    )


def row(first: bytes, **fields: Any) -> PageRef:
    values = {"ref": ID, "names": 100, "total": 100, "size": 0, "links": 0, **fields}
    return PageRef(first, **values)


def test_an_index_page_comes_back_as_it_was() -> None:
    rows = [row(b"!", total=150, links=3), *map(row, ranked(2, 3))]
    page = decode_page(encode_index(2, rows))
    assert isinstance(page, Index)
    assert (page.level, page.pages) == (2, rows)
    assert page.starts == [0, 150, 250, 350, 450]
    assert (page.claim.names, page.claim.total, page.claim.links) == (400, 450, 3)


def test_index_pages_that_cannot_exist() -> None:
    good = [row(b"!"), *map(row, ranked(1, 2))]
    decode_page(encode_index(1, good))
    bad: list[tuple[int, list[PageRef]]] = [
        (1, []),
        (0, good),
        (2, good),
        (MAX_LEVEL + 1, good),
        (1, good[::-1]),
        (1, [good[0], good[1], good[1]]),
        (1, [good[0], row(ranked(0, 1)[0])]),
        (1, [good[0], row(ranked(2, 1)[0])]),
        (1, [row(b"!", names=0), *good[1:]]),
        (1, [row(b"!", total=99), *good[1:]]),
        (1, [row(b"!", links=101), *good[1:]]),
        (1, [row(b"!", ref=b"short"), *good[1:]]),
        (1, [row(b"!", total=MAX_INODES), *good[1:]]),
        (1, [row(b"."), *good[1:]]),
    ]
    for level, rows in bad:
        with pytest.raises(Corrupt):
            decode_page(encode_index(level, rows))


def test_a_leaf_that_should_have_been_split() -> None:
    plain = ranked(0, PAGE_LIMIT + 2)
    leaf_of(*map(entry, plain))
    boundary = ranked(1, 1)
    leaf_of(*map(entry, sorted(plain[: PAGE_LIMIT - 1] + boundary)))
    with pytest.raises(Corrupt, match="split"):
        leaf_of(*map(entry, sorted([b"!", *plain[:PAGE_LIMIT], *boundary])))
