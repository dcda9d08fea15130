"""The manifest of an image, and the table of its hard links.

The manifest is the one object that names a whole tree: the root directory's entry and the
link table. Its object id is the image's digest, so it holds nothing that does not belong to
the tree. The format version is part of it: another format gives other digests.

The link table lists, for every inode with several names, their paths: relative to the root,
in canonical order (that of a walk, which compares component by component). Groups are
ordered by their first path and cut into pages before each group whose first path is a
boundary (format.directory), so that a change rewrites one page and the list of pages.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from imagefs.errors import Corrupt
from imagefs.format.directory import UNDECODABLE, Entry, boundary_rank, check_entry
from imagefs.model import MAX_NAME, OBJECT_ID_SIZE, ObjectId

MAGIC: Final = "imagefs tree"
VERSION: Final = 1
DIGEST_PREFIX: Final = "blake3:"

LinkGroup = tuple[bytes, ...]
"""Paths of one inode, at least two, in canonical order."""


class Manifest(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """`root` is the entry of the root directory, its name empty; `links` the object that
    lists the pages of the link table, None when no inode has two names."""

    root: Entry
    links: bytes | None


class _ManifestObject(
    msgspec.Struct, array_like=True, frozen=True, tag=MAGIC, forbid_unknown_fields=True
):
    version: int
    manifest: Manifest


_encoder = msgspec.msgpack.Encoder()
_manifest_decoder = msgspec.msgpack.Decoder(_ManifestObject)
_ids_decoder = msgspec.msgpack.Decoder(list[bytes])
_groups_decoder = msgspec.msgpack.Decoder(list[LinkGroup])


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes whose object id is the image's digest.

    The root is stored with write permission for its owner, whatever it has: taking that
    away from an image's root is how users seal it, so it says nothing about the tree.
    """
    root = manifest.root
    if not root.mode & stat.S_IWUSR:
        root = replace(root, mode=root.mode | stat.S_IWUSR)
    return _encoder.encode(_ManifestObject(VERSION, Manifest(root, manifest.links)))


def decode_manifest(data: bytes) -> Manifest:
    """The manifest that these bytes are; raises Corrupt for anything else."""
    try:
        outer = _manifest_decoder.decode(data)
    except UNDECODABLE as error:
        raise Corrupt(f"Manifest cannot be decoded: {error}") from error
    if outer.version != VERSION:
        raise Corrupt(f"Manifest has format version {outer.version}, known is {VERSION}")
    manifest = outer.manifest
    root = manifest.root
    check_entry(root)
    if root.name != b"" or not stat.S_ISDIR(root.mode):
        raise Corrupt(f"Manifest's root is not a directory without a name: {root.name[:64]!r}")
    if manifest.links is not None and len(manifest.links) != OBJECT_ID_SIZE:
        raise Corrupt("Manifest's link table is not an object id")
    if encode_manifest(manifest) != data:
        raise Corrupt("Manifest is not in canonical form")
    return manifest


def format_digest(manifest_id: ObjectId) -> str:
    """The digest as users see it."""
    return DIGEST_PREFIX + manifest_id.hex()


def parse_digest(text: str) -> ObjectId | None:
    """The manifest id that a digest names, None when the text is not a digest."""
    digits = text.removeprefix(DIGEST_PREFIX)
    if digits == text or len(digits) != 2 * OBJECT_ID_SIZE or not digits.isascii():
        return None
    try:
        return ObjectId(bytes.fromhex(digits)) if digits == digits.lower().strip() else None
    except ValueError:
        return None


def path_order(path: bytes) -> bytes:
    """Sort key of canonical order: NUL, which no name holds, sorts before every other byte,
    so a path with it in place of the slash compares component by component."""
    return path.replace(b"/", b"\0")


def split_groups(groups: Sequence[LinkGroup]) -> Iterator[list[LinkGroup]]:
    """Cut ordered groups into the pages of the link table."""
    page: list[LinkGroup] = []
    for group in groups:
        if page and boundary_rank(group[0]):
            yield page
            page = []
        page.append(group)
    if page:
        yield page


def encode_link_page(groups: Sequence[LinkGroup]) -> bytes:
    """One page of the link table; groups and their paths are in canonical order."""
    return _encoder.encode(groups)


def encode_link_index(pages: Sequence[ObjectId]) -> bytes:
    """The object that lists the pages of the link table."""
    return _encoder.encode(pages)


def decode_link_index(data: bytes) -> list[ObjectId]:
    """The page ids of a link table; raises Corrupt."""
    try:
        pages = _ids_decoder.decode(data)
    except UNDECODABLE as error:
        raise Corrupt(f"Link table cannot be decoded: {error}") from error
    if not pages or any(len(page) != OBJECT_ID_SIZE for page in pages):
        raise Corrupt("Link table does not list its pages")
    if _encoder.encode(pages) != data:
        raise Corrupt("Link table is not in canonical form")
    return [ObjectId(page) for page in pages]


def decode_link_page(data: bytes, before: bytes | None) -> list[LinkGroup]:
    """The groups of one page; `before` is the first path of the last group on the page
    before, None for the first page. Raises Corrupt, also where pages do not fit."""
    try:
        groups = _groups_decoder.decode(data)
    except UNDECODABLE as error:
        raise Corrupt(f"Page of the link table cannot be decoded: {error}") from error
    if not groups or _encoder.encode(groups) != data:
        raise Corrupt("Page of the link table is not in canonical form")
    for group in groups:
        _check_group(group)
    firsts = [path_order(group[0]) for group in groups]
    if before is not None:
        firsts.insert(0, path_order(before))
    if any(a >= b for a, b in itertools.pairwise(firsts)):
        raise Corrupt("Link table is not in canonical order")
    if before is not None and not boundary_rank(groups[0][0]):
        raise Corrupt("Link table is not split where it should be")
    if any(boundary_rank(group[0]) for group in groups[1:]):
        raise Corrupt("Link table is not split where it should be")
    return groups


def _check_group(group: LinkGroup) -> None:
    if len(group) < 2:
        raise Corrupt(f"Link table has a group of {len(group)} paths")
    keys = [path_order(path) for path in group]
    if any(a >= b for a, b in itertools.pairwise(keys)):
        raise Corrupt(f"Paths linked with {group[0]!r} are not in canonical order")
    for path in group:
        if not _valid_path(path):
            raise Corrupt(f"Link table holds the path {path[:64]!r}, which cannot exist")


def _valid_path(path: bytes) -> bool:
    """Whether every component is a valid name; quick, because tables can be long."""
    framed = b"/%b/" % path
    if b"//" in framed or b"/./" in framed or b"/../" in framed or b"\0" in path:
        return False
    return len(path) <= MAX_NAME or max(map(len, path.split(b"/"))) <= MAX_NAME
