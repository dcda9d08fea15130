"""Dumps: a tree built again from its dump has the same digest."""

from __future__ import annotations

import os
import random
import re
import stat
from collections.abc import Iterable

import pytest

from imagefs.format.directory import Entry
from imagefs.format.record import object_id
from imagefs.model import ObjectId
from imagefs.tree import Tree, build
from imagefs.tree.dump import HEADER, TYPES, dump, escape, format_time
from imagefs.tree.walk import walk
from tests.tree import samples
from tests.tree.samples import Memory, directory, regular

KINDS = {letter: kind for kind, letter in TYPES.items()}


def unescape(text: str) -> bytes:
    return re.sub(
        rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), text.encode()
    )


def parse_time(text: str) -> int:
    seconds, _, rest = text.lstrip("-").partition(".")
    time = int(seconds) * 10**9 + int(rest)
    return -time if text.startswith("-") else time


def parse_line(line: str) -> tuple[bytes, Entry, bytes | None]:
    """Path, entry (directories: without their totals) and first path of the inode."""
    path, letter, mode, uid, gid, mtime, *words = line.split(" ")
    pairs = [word.split("=", 1) for word in words]
    values = dict(pair for pair in pairs if not pair[0].startswith("xattr:"))
    xattrs = tuple(
        (unescape(key.removeprefix("xattr:")), unescape(value))
        for key, value in pairs
        if key.startswith("xattr:")
    )
    size, count = int(values.get("size", 0)), int(values.get("data", 0))
    ref = bytes.fromhex(values["content"]) if "content" in values else None
    if letter == "l":
        ref = unescape(values["target"])
        size = len(ref)
    if "device" in values:
        count = os.makedev(*map(int, values["device"].split(":")))
    link = unescape(values["link"])[1:] if "link" in values else None
    entry = Entry(
        unescape(path).rpartition(b"/")[2], KINDS[letter] | int(mode, 8), int(uid), int(gid),
        parse_time(mtime), size, count, ref, int(link is not None), xattrs or None,
    )  # fmt: skip
    return unescape(path)[1:], entry, link


def build_again(memory: Memory, lines: Iterable[str]) -> ObjectId:
    """The tree of a dump, from its chunks and content maps alone."""
    groups: dict[bytes, list[bytes]] = {}
    below: dict[bytes, list[Entry]] = {}
    rows = [parse_line(line) for line in lines]
    for path, entry, link in reversed(rows):
        if link is not None:
            groups.setdefault(link, []).append(path)
        if entry.is_directory:
            summary = build.write_directory(memory.put, below.pop(path, []))
            entry = Entry(
                entry.name, entry.mode, entry.uid, entry.gid, entry.mtime,
                summary.size, summary.count, summary.ref, summary.links, entry.xattrs,
            )  # fmt: skip
            if not path:
                return build.write_manifest(memory.put, entry, groups.values())
        below.setdefault(path.rpartition(b"/")[0], []).append(entry)
    raise AssertionError("no root")


@pytest.mark.parametrize("seed", range(15))
def test_a_dump_can_be_built_again(seed: int) -> None:
    memory = Memory()
    rng = random.Random(seed)
    manifest = samples.store(memory, samples.grown(rng, rng.choice([0, 5, 50, 500])))
    header, *lines = dump(Tree(memory.fetch, manifest))
    assert header == HEADER
    assert build_again(memory, lines) == manifest


def test_what_a_line_looks_like() -> None:
    memory = Memory()
    node = regular(b"hello", mode=0o4755, mtime=-1_500_000_000)
    node.xattrs = ((b"user.a=b", b"c d\n"),)
    root = directory({b"a b": node, b"c": node, b"\xc3\xa9\\": samples.symlink(b"x=y")})
    lines = list(dump(Tree(memory.fetch, samples.store(memory, root))))
    content = object_id(b"hello").hex()
    assert lines[2] == (
        f"/a\\x20b f 4755 0 0 -1.500000000 size=5 data=5 content={content} link=/a\\x20b"
        " xattr:user.a\\x3db=c\\x20d\\x0a"
    )
    assert lines[4] == "/\\xc3\\xa9\\x5c l 0777 0 0 0.000000000 target=x\\x3dy"


@pytest.mark.parametrize("time", [0, 1, -1, 10**9, -(10**9), -(2**63), 2**63 - 1])
def test_times_are_exact(time: int) -> None:
    assert parse_time(format_time(time)) == time


def test_every_byte_is_written_so_that_it_can_be_read() -> None:
    every = bytes(range(256))
    assert unescape(escape(every)) == every
    assert re.fullmatch(r"[!-<>-~]+", escape(every))


def test_a_walk_is_in_canonical_order_with_the_numbers_of_first_names() -> None:
    memory = Memory()
    root = samples.grown(random.Random(9), 700)
    numbers = samples.numbers(root)
    found = list(walk(Tree(memory.fetch, samples.store(memory, root))))
    assert [path for path, _, _ in found] == [path for path, _ in samples.places(root)]
    assert all(numbers[path] == ino for path, ino, _ in found)
    assert all(stat.S_IFMT(entry.mode) in TYPES for _, _, entry in found)
