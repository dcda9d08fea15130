"""Whatever stored objects hold, reading a tree ends, with the right answer or Corrupt."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from imagefs.errors import Corrupt
from imagefs.format.directory import Entry
from imagefs.format.record import object_id
from imagefs.model import ROOT_INO, ObjectId
from imagefs.tree import Tree, build
from imagefs.tree.diff import diff
from imagefs.tree.dump import dump
from imagefs.tree.walk import walk
from tests.tree import samples
from tests.tree.samples import Memory, directory, regular

Mutation = Callable[[random.Random, bytes, list[ObjectId]], bytes]


def flip(rng: random.Random, data: bytes, ids: list[ObjectId]) -> bytes:
    changed = bytearray(data)
    if changed:
        changed[rng.randrange(len(changed))] ^= rng.randrange(1, 256)
    return bytes(changed)


def cut(rng: random.Random, data: bytes, ids: list[ObjectId]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def retold(rng: random.Random, data: bytes, ids: list[ObjectId]) -> bytes:
    """The same structure, well formed, with one value replaced."""
    try:
        value = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return flip(rng, data, ids)
    return msgspec.msgpack.encode(replaced(rng, value, ids))


def replaced(rng: random.Random, value: Any, ids: list[ObjectId]) -> Any:
    if isinstance(value, list) and value and rng.random() < 0.97:
        place = rng.randrange(len(value))
        action = rng.random()
        if action < 0.9:
            return [*value[:place], replaced(rng, value[place], ids), *value[place + 1 :]]
        if action < 0.95:
            return [*value[:place], *value[place + 1 :]]
        return [*value[:place], value[place], *value[place:]]
    choices: list[Any] = [
        0,
        1,
        -1,
        2**31,
        2**63 - 1,
        2**64 - 1,
        None,
        b"",
        b"/",
        b"..",
        b"a" * 300,
        [],
    ]
    if isinstance(value, int) and rng.random() < 0.5:
        return max(min(value + rng.choice([-1, 1]), 2**64 - 1), -(2**63))
    if isinstance(value, bytes) and len(value) == len(ids[0]):
        return rng.choice(ids)
    return rng.choice(choices)


def read_everything(tree: Tree, other: Tree) -> None:
    for _, ino, entry in walk(tree):
        tree.attributes(ino, entry)
        if entry.is_directory:
            tree.lookup(ino, b"a")
        if entry.is_regular:
            tree.chunk_ids(entry, 0, 20)
    for _ in dump(tree):
        pass
    for _ in diff(tree, other):
        pass
    for _ in diff(other, tree):
        pass


@pytest.mark.parametrize("mutation", [flip, cut, retold])
@pytest.mark.parametrize("seed", range(4))
def test_objects_that_are_not_what_was_stored(mutation: Mutation, seed: int) -> None:
    """The reader does not depend on the store to verify: here it does not."""
    rng = random.Random(seed)
    memory = Memory()
    root = samples.grown(rng, 60)
    root.children[b"many"] = directory({b"%d" % i: regular() for i in range(400)})
    manifest = samples.store(memory, root)
    other = samples.store(memory, samples.grown(rng, 60))
    good = dict(memory.objects)
    ids = list(good)
    for _ in range(100):
        memory.objects = dict(good)
        for oid in rng.sample(ids, rng.choice([1, 1, 5, len(ids) // 3])):
            memory.objects[oid] = mutation(rng, good[oid], ids)
        with contextlib.suppress(Corrupt):
            read_everything(Tree(memory.fetch, manifest), Tree(memory.fetch, other))


@pytest.mark.parametrize("seed", range(6))
def test_trees_put_together_from_parts_of_others(seed: int) -> None:
    """Every object is intact and named rightly; only what they say of each other may lie."""
    rng = random.Random(seed)
    memory = Memory()
    for _ in range(3):
        samples.store(memory, samples.grown(rng, 100))
    parts = list(memory.objects.items())
    for _ in range(300):
        oid, data = rng.choice(parts)
        lie = retold(rng, data, [oid for oid, _ in parts])
        parts.append((memory.put(lie), lie))
    for oid, _ in parts:
        tree = Tree(memory.fetch, oid)
        with contextlib.suppress(Corrupt):
            read_everything(tree, tree)


def test_a_directory_that_holds_itself() -> None:
    """No hash allows it; a store that does not check might."""
    memory = Memory()
    loop = ObjectId(object_id(b"loop"))
    inner = Entry(b"d", 0o040755, 0, 0, 0, 0, 1, loop, 1, None)
    summary = build.write_directory(memory.put, [inner])
    memory.objects[loop] = memory.objects[summary.ref]
    root = Entry(b"", 0o040755, 0, 0, 0, 0, 2, loop, 1, None)
    tree = Tree(memory.fetch, build.write_manifest(memory.put, root, []))
    with pytest.raises(Corrupt):
        list(walk(tree))
    with pytest.raises(Corrupt):
        tree.resolve(b"d/d/d/d")
    assert tree.lookup(ROOT_INO, b"d") is not None
