"""docs/format.md says of the objects of a tree what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from imagefs.format.content import FANOUT
from imagefs.format.directory import (
    MAX_INODES,
    MAX_LEVEL,
    PAGE_LIMIT,
    RANK_BITS,
    RESERVED_XATTR,
    Entry,
    PageRef,
    encode_leaf,
)
from imagefs.format.manifest import MAGIC, VERSION, Manifest, encode_manifest, format_digest
from imagefs.format.record import object_id
from imagefs.model import CHUNK_SIZE, MAX_NAME, MAX_SYMLINK, MAX_XATTR_VALUE

DOCUMENT = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")

CONTENT = b"hello, world\n"
LEAF = encode_leaf([Entry(b"hello", 0o100644, 0, 0, 10**9, 13, 13, object_id(CONTENT), 0, None)])
ROOT = Entry(b"", 0o040755, 0, 0, 2 * 10**9, 13, 1, object_id(LEAF), 0, None)
MANIFEST = encode_manifest(Manifest(ROOT, None))


def block(name: str) -> str:
    found = re.search(rf"```{name}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found is not None
    return found[1]


def example(name: str) -> bytes:
    return bytes.fromhex("".join(line.split("  ")[0] for line in block(name).splitlines()))


def test_the_examples_are_what_is_written() -> None:
    assert example("leaf-example") == LEAF
    assert example("manifest-example") == MANIFEST
    assert block("digest-example").strip() == format_digest(object_id(MANIFEST))


def test_the_limits_are_those_of_the_code() -> None:
    for limit in (CHUNK_SIZE, FANOUT, MAX_SYMLINK, MAX_XATTR_VALUE, MAX_INODES):
        assert f"{limit:,}" in DOCUMENT
    for phrase in (
        f"up to {PAGE_LIMIT} names",
        f"divided by {RANK_BITS} and rounded down ({MAX_LEVEL} when",
        f"one name in {2**RANK_BITS} on average",
        f'["{MAGIC}", {VERSION}, [root, links]]',
        f"1 to {MAX_NAME} bytes",
        f"`{RESERVED_XATTR.decode()}`",
    ):
        assert phrase in DOCUMENT


def test_the_fields_are_named_in_their_order() -> None:
    for struct, table in ((Entry, "| entry |"), (PageRef, "| page |")):
        rows = DOCUMENT.split(table)[1].split("\n\n")[0].splitlines()[2:]
        named = ", ".join(row.split("|")[1].strip() for row in rows).split(", ")
        assert named == list(struct.__struct_fields__)
