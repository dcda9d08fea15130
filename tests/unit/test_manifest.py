"""Manifests and link tables: what is encoded comes back, and nothing else is accepted."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagefs.errors import Corrupt
from imagefs.format.directory import Entry, boundary_rank
from imagefs.format.manifest import (
    LinkGroup,
    Manifest,
    decode_link_index,
    decode_link_page,
    decode_manifest,
    encode_link_index,
    encode_link_page,
    encode_manifest,
    format_digest,
    parse_digest,
    path_order,
    split_groups,
)
from imagefs.model import OBJECT_ID_SIZE, ObjectId

ID = ObjectId(bytes(range(OBJECT_ID_SIZE)))
ROOT = Entry(b"", 0o040755, 1, 2, -3, 10, 4, ID, 1, ((b"user.a", b"b"),))


@pytest.mark.parametrize("links", [None, ID])
def test_a_manifest_comes_back_as_it_was(links: ObjectId | None) -> None:
    manifest = Manifest(ROOT, links)
    assert decode_manifest(encode_manifest(manifest)) == manifest


@pytest.mark.parametrize(
    "manifest",
    [
        Manifest(ROOT, b"short"),
        Manifest(msgspec.structs.replace(ROOT, name=b"x"), None),
        Manifest(msgspec.structs.replace(ROOT, ref=None), None),
        Manifest(Entry(b"", 0o100644, 0, 0, 0, 0, 0, None, 0, None), None),
    ],
)
def test_manifests_that_cannot_exist(manifest: Manifest) -> None:
    with pytest.raises(Corrupt):
        decode_manifest(encode_manifest(manifest))


def test_an_unknown_version_is_named() -> None:
    encoded = encode_manifest(Manifest(ROOT, None))
    at = encoded.index(b"tree") + 4
    with pytest.raises(Corrupt, match="version 7"):
        decode_manifest(encoded[:at] + b"\x07" + encoded[at + 1 :])


@given(st.integers(0, 60), st.integers(1, 255))
def test_changed_bytes_do_not_mean_the_same(at: int, bits: int) -> None:
    manifest = Manifest(ROOT, ID)
    encoded = bytearray(encode_manifest(manifest))
    encoded[at % len(encoded)] ^= bits
    with contextlib.suppress(Corrupt):
        assert decode_manifest(bytes(encoded)) != manifest


def test_digests_as_users_see_them() -> None:
    text = format_digest(ID)
    assert text == "blake3:" + ID.hex()
    assert parse_digest(text) == ID
    for bad in (ID.hex(), text[:-1], text + "0", text.upper(), text[:-2] + "zz", text[:-2] + " 0"):
        assert parse_digest(bad) is None


def test_paths_are_ordered_as_a_walk_meets_them() -> None:
    walked = [b"a", b"a/b", b"a/b/c", b"a/c", b"a b", b"a-b/x", b"a.b", b"b"]
    assert sorted(walked, key=path_order) == walked


def groups_of(count: int) -> list[LinkGroup]:
    return [(b"d/%04d" % i, b"e/%04d" % i) for i in range(count)]


def decode_all(pages: list[bytes]) -> list[LinkGroup]:
    found: list[LinkGroup] = []
    for page in pages:
        found += decode_link_page(page, found[-1][0] if found else None)
    return found


@pytest.mark.parametrize("count", [1, 2, 100, 1000])
def test_a_link_table_comes_back_as_it_was(count: int) -> None:
    groups = groups_of(count)
    pages = list(split_groups(groups))
    assert decode_all([encode_link_page(page) for page in pages]) == groups
    assert len(pages) == 1 + sum(boundary_rank(group[0]) > 0 for group in groups[1:])


def test_one_more_group_changes_one_page() -> None:
    groups = groups_of(1000)
    pages = {encode_link_page(page) for page in split_groups(groups)}
    more = sorted([*groups, (b"d/0500x", b"z")])
    assert len({encode_link_page(page) for page in split_groups(more)} - pages) <= 2


@pytest.mark.parametrize(
    "groups",
    [
        [],
        [(b"a",)],
        [(b"a", b"a")],
        [(b"b", b"a")],
        [(b"a-b", b"a/b")],
        [(b"b", b"c"), (b"a", b"d")],
        [(b"a", b"c"), (b"a", b"d")],
        [(b"a", b"b//c")],
        [(b"/a", b"b")],
        [(b"", b"b")],
        [(b"../a", b"b")],
        [(b"a/.", b"b")],
        [(b"a/..", b"b")],
        [(b"a/./c", b"b")],
        [(b"a/", b"b")],
        [(b"a", b"b/" + b"x" * 256)],
        [(b"a", b"b/\0")],
    ],
)
def test_link_pages_that_cannot_exist(groups: list[LinkGroup]) -> None:
    with pytest.raises(Corrupt):
        decode_link_page(encode_link_page(groups), None)


def test_link_pages_are_cut_where_they_should_be() -> None:
    pages = list(split_groups(groups_of(1000)))
    decode_link_page(encode_link_page(pages[1]), pages[0][-1][0])
    with pytest.raises(Corrupt, match="order"):
        decode_link_page(encode_link_page(pages[1]), pages[1][0][0])
    with pytest.raises(Corrupt, match="split"):
        decode_link_page(encode_link_page(pages[0] + pages[1]), None)
    with pytest.raises(Corrupt, match="split"):
        decode_link_page(encode_link_page(pages[0][1:]), pages[0][0][0])


@pytest.mark.parametrize("data", [b"", b"\x90", b"\x91\xc4\x01a", b"\xc0"])
def test_what_is_no_list_of_pages(data: bytes) -> None:
    with pytest.raises(Corrupt):
        decode_link_index(data)
    assert decode_link_index(encode_link_index([ID])) == [ID]


def test_the_root_is_stored_with_write_permission_for_its_owner() -> None:
    closed = entry_of_root(0o40555)
    assert encode_manifest(Manifest(closed, None)) == encode_manifest(
        Manifest(entry_of_root(0o40755), None)
    )
    assert decode_manifest(encode_manifest(Manifest(closed, None))).root.mode == 0o40755


def entry_of_root(mode: int) -> Entry:
    return Entry(b"", mode, 0, 0, 0, 0, 0, b"p" * 32, 0, None)
