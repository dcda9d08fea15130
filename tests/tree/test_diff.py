"""Differences: everything that differs is listed, in order, and nothing that is equal is read."""

from __future__ import annotations

import copy
import random
import stat

import pytest

from imagefs.format.manifest import path_order
from imagefs.model import CHUNK_SIZE, ObjectId
from imagefs.tree import Tree
from imagefs.tree.diff import Change, ChangeKind, diff
from tests.tree import samples
from tests.tree.samples import Memory, Node, directory, regular, symlink

ADDED, REMOVED, CHANGED = ChangeKind.ADDED, ChangeKind.REMOVED, ChangeKind.CHANGED

Row = tuple[ChangeKind, bytes, tuple[str, ...]]


def rows(a: Node, b: Node) -> list[Row]:
    memory = Memory()
    trees = [Tree(memory.fetch, samples.store(memory, root)) for root in (a, b)]
    return [(change.kind, change.path, change.details) for change in diff(*trees)]


def naive(a: Node, b: Node) -> list[Row]:
    """The differences found by comparing every node."""
    old, new = dict(samples.places(a)), dict(samples.places(b))
    old_groups, new_groups = (
        {path: paths for paths in samples.link_groups(root).values() for path in paths}
        for root in (a, b)
    )
    found: list[Row] = []
    for path in sorted({*old, *new}, key=path_order):
        if path not in old:
            found.append((ADDED, path, ()))
        elif path not in new:
            found.append((REMOVED, path, ()))
        else:
            details = naive_details(old[path], new[path])
            if old_groups.get(path, []) != new_groups.get(path, []):
                details.append("links")
            if details:
                found.append((CHANGED, path, tuple(details)))
    return found


def naive_details(old: Node, new: Node) -> list[str]:
    words = []
    same_type = stat.S_IFMT(old.mode) == stat.S_IFMT(new.mode)
    if not same_type:
        words.append("type")
    if stat.S_IMODE(old.mode) != stat.S_IMODE(new.mode):
        words.append("mode")
    if (old.uid, old.gid) != (new.uid, new.gid):
        words.append("owner")
    if old.mtime != new.mtime:
        words.append("mtime")
    if old.xattrs != new.xattrs:
        words.append("xattrs")
    if same_type:
        words += ["content"] * (old.chunks != new.chunks)
        words += ["target"] * (old.target != new.target)
        words += ["device"] * (old.rdev != new.rdev)
    return words


def edited(rng: random.Random, root: Node, edits: int) -> Node:
    """A copy of the tree after random edits."""
    root = copy.deepcopy(root)
    for _ in range(edits):
        nodes = [node for _, node in samples.places(root)]
        parent = rng.choice([node for node in nodes if stat.S_ISDIR(node.mode)])
        name = rng.choice([*parent.children, b"new%d" % rng.randrange(9)])
        action = rng.randrange(5)
        if action == 0:
            parent.children.pop(name, None)
        elif action == 1:
            parent.children[name] = samples.grown_node(rng)
        elif action == 2:
            files = [node for node in nodes if not stat.S_ISDIR(node.mode)]
            parent.children[name] = rng.choice(files) if files else regular()
        elif name in parent.children:
            node = parent.children[name]
            node.mtime ^= 1
            node.uid = rng.randrange(3)
    return root


@pytest.mark.parametrize("seed", range(40))
def test_what_comparing_every_node_finds(seed: int) -> None:
    rng = random.Random(seed)
    a = samples.grown(rng, rng.choice([3, 30, 300]))
    b = edited(rng, a, rng.choice([0, 1, 5, 40]))
    assert rows(a, b) == naive(a, b)
    assert rows(b, a) == naive(b, a)
    assert rows(a, a) == []


def test_each_kind_of_change_by_its_name() -> None:
    a = directory(
        {b"d": directory({b"f": regular(b"1")}), b"l": symlink(b"x"), b"n": regular(b"n")}
    )
    b = copy.deepcopy(a)
    b.children[b"d"].children[b"f"].chunks = [b"2"]
    b.children[b"l"].target = b"y"
    b.children[b"n"].mode ^= 0o111
    b.children[b"n"].xattrs = ((b"user.a", b""),)
    assert rows(a, b) == [
        (CHANGED, b"d/f", ("content",)),
        (CHANGED, b"l", ("target",)),
        (CHANGED, b"n", ("mode", "xattrs")),
    ]


def test_a_file_that_becomes_a_directory() -> None:
    a = directory({b"x": regular(), b"x-": regular()})
    b = directory({b"x": directory({b"y": regular()}), b"x-": regular(b"1")})
    b.children[b"x"].mode = stat.S_IFDIR | 0o644
    assert rows(a, b) == [
        (CHANGED, b"x", ("type",)),
        (ADDED, b"x/y", ()),
        (CHANGED, b"x-", ("content",)),
    ]
    assert rows(b, a)[1] == (REMOVED, b"x/y", ())


def test_a_hole_and_zeros_that_were_not_seen_as_such_differ_in_content() -> None:
    a = directory({b"f": regular(None, b"1")})
    b = directory({b"f": regular(b"\0" * CHUNK_SIZE, b"1")})
    assert rows(a, b) == [(CHANGED, b"f", ("content",))]


def test_names_that_share_an_inode_with_others_than_before() -> None:
    """The entries are equal, only the table of links is not."""
    same = [regular(b"same") for _ in range(2)]
    one, two = same
    a = directory({b"d": directory({b"1": one, b"2": two}), b"x": one, b"y": two})
    b = directory({b"d": directory({b"1": one, b"2": two}), b"x": two, b"y": one})
    paths = [b"d/1", b"d/2", b"x", b"y"]
    assert rows(a, b) == [(CHANGED, path, ("links",)) for path in paths]


def test_equal_parts_are_not_read() -> None:
    memory = Memory()
    big = {b"%03d" % i: directory() for i in range(9)}
    for name in (b"000", b"001"):
        big[name].children = {b"%06d" % i: regular() for i in range(20_000)}
    a = directory({b"big": directory(big)})
    manifest = samples.store(memory, a)
    del big[b"000"].children[b"010000"]
    other = samples.store(memory, a)
    trees = [Tree(memory.fetch, oid) for oid in (manifest, other)]
    memory.reads = 0
    changes = list(diff(*trees))
    assert [change.path for change in changes] == [b"big/000/010000"]
    assert memory.reads < 25


def test_a_change_carries_both_entries() -> None:
    memory = Memory()
    stored: list[ObjectId] = [
        samples.store(memory, directory({b"f": regular(content)})) for content in (b"1", b"23")
    ]
    (change,) = diff(*(Tree(memory.fetch, oid) for oid in stored))
    assert isinstance(change, Change)
    assert change.old is not None
    assert change.new is not None
    assert (change.old.size, change.new.size) == (1, 2)


def test_the_root_itself() -> None:
    a, b = directory(), directory(mode=0o700)
    b.mtime = 5
    assert rows(a, b) == [(CHANGED, b"", ("mode", "mtime"))]
