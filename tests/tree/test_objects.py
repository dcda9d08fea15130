"""Listing the objects of a tree: all of them once, and what a base has at the same place not."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from imagefs.errors import Corrupt
from imagefs.format.content import FANOUT
from imagefs.format.directory import Entry, encode_leaf
from imagefs.format.manifest import Manifest, encode_manifest
from imagefs.format.record import object_id
from imagefs.model import CHUNK_SIZE, ObjectId
from imagefs.tree.objects import tree_objects
from imagefs.tree.tree import Tree
from imagefs.tree.walk import walk
from tests.seed import SEED
from tests.tree.samples import Memory, Node, directory, grown, regular, store, symlink

BIG = b"b" * CHUNK_SIZE


def listed(memory: Memory, manifest: ObjectId, base: ObjectId | None = None) -> list[ObjectId]:
    """The ids, after seeing that none comes twice."""
    found = [oid for oid, _ in tree_objects(memory.fetch, manifest, base=base)]
    assert len(set(found)) == len(found)
    return found


def alone(root: Node) -> tuple[Memory, ObjectId]:
    """A tree in a store that holds nothing else."""
    memory = Memory()
    return memory, store(memory, root)


def names(memory: Memory, oids: list[ObjectId]) -> set[bytes]:
    return {memory.objects[oid] for oid in oids}


@pytest.mark.parametrize("size", [0, 1, 30, 300, 3000])
def test_every_object_is_listed_once(size: int) -> None:
    memory, manifest = alone(grown(random.Random(SEED + size), size))
    assert set(listed(memory, manifest)) == set(memory.objects)


def test_chunks_are_told_from_everything_else_and_come_in_the_order_of_the_walk() -> None:
    root = grown(random.Random(SEED), 500)
    root.children[b"large"] = regular(BIG, None, b"x" * CHUNK_SIZE, b"end")
    memory, manifest = alone(root)
    tree = Tree(memory.fetch, manifest)
    chunks: dict[ObjectId, None] = {}
    for _, _, entry in walk(tree):
        if entry.is_regular:
            chunks.update(dict.fromkeys(oid for oid in tree.chunk_ids(entry, 0, 99) if oid))
    found = list(tree_objects(memory.fetch, manifest))
    assert [oid for oid, metadata in found if not metadata] == list(chunks)
    assert found[0] == (manifest, True)


def test_an_object_is_fetched_once_at_most_and_chunks_never() -> None:
    memory, manifest = alone(directory({b"%d" % n: regular(b"%d" % n) for n in range(500)}))
    memory.reads = 0
    listed(memory, manifest)
    assert memory.reads == len(memory.objects) - 500


def test_equal_bytes_as_a_chunk_do_not_hide_what_a_page_leads_to() -> None:
    hidden = directory({b"deep": regular(b"content")})
    memory, _ = alone(hidden)
    page = next(data for data in memory.objects.values() if b"deep" in data)
    node = next(
        data for data in alone(directory({b"f": regular(BIG, b"end")}))[0].objects.values()
        if len(data) == 64
    )  # fmt: skip
    root = directory({
        b"a": regular(page), b"b": hidden, b"c": regular(node), b"d": regular(BIG, b"end"),
    })  # fmt: skip
    memory, manifest = alone(root)
    assert set(listed(memory, manifest)) == set(memory.objects)


def test_what_is_shared_within_a_tree_is_gone_through_once() -> None:
    memory = Memory()
    entry = Entry(b"a", 0o40755, 0, 0, 0, 0, 0, memory.put(encode_leaf([])), 0, None)
    for level in range(20):  # two entries for one page on each: a million places
        children = [replace(entry, name=b"a"), replace(entry, name=b"b")]
        page = memory.put(encode_leaf(children))
        total = 2 * (entry.count + 1)
        entry = replace(entry, ref=page, count=total, links=2, mtime=level)
    manifest = memory.put(encode_manifest(Manifest(replace(entry, name=b""), None)))
    memory.reads = 0
    assert len(listed(memory, manifest)) == 22
    assert memory.reads == 22


# -- with a base ------------------------------------------------------------------------


def changed(root: Node, rng: random.Random) -> None:
    """Change a few things in place."""
    for _ in range(3):
        directories = [root]
        for node in directories:
            directories += [child for child in node.children.values() if child.mode >> 12 == 4]
        where = rng.choice(directories)
        if where.children and rng.random() < 0.5:
            where.children.pop(rng.choice(list(where.children)))
        where.children[b"new%d" % rng.randrange(99)] = rng.choice([
            regular(rng.randbytes(9)), symlink(b"x"), directory({b"y": regular(rng.randbytes(9))}),
        ])  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_with_the_base_there_everything_is(seed: int) -> None:
    rng = random.Random(SEED + seed)
    root = grown(rng, 200)
    root.children[b"large"] = regular(*[BIG, None, b"x" * CHUNK_SIZE] * 3, b"end")
    memory = Memory()
    base = store(memory, root)
    before = set(memory.objects)
    assert set(listed(memory, base)) == before
    changed(root, rng)
    whole, _ = alone(root)
    after = store(memory, root)
    found = set(listed(memory, after, base))
    assert found | before >= set(whole.objects)
    assert found <= set(whole.objects)


def test_a_tree_needs_nothing_beside_itself() -> None:
    memory, manifest = alone(grown(random.Random(SEED), 50))
    memory.reads = 0
    assert listed(memory, manifest, manifest) == []
    assert memory.reads == 0


def test_a_change_lists_what_lies_on_its_path_and_reads_little_more() -> None:
    memory = Memory()
    root = directory({
        b"%d" % n: directory({b"%d" % m: regular(b"%d %d" % (n, m)) for m in range(100)})
        for n in range(100)
    })  # fmt: skip
    base = store(memory, root)
    root.children[b"50"].children[b"50"] = regular(b"changed")
    manifest = store(memory, root)
    memory.reads = 0
    found = listed(memory, manifest, base)
    assert len(found) == 4
    assert b"changed" in names(memory, found)
    assert memory.reads <= 6


def test_one_name_more_in_a_large_directory_lists_one_page_a_level() -> None:
    memory = Memory()
    root = directory({b"%05d" % n: regular(b"%d" % n) for n in range(20_000)})
    base = store(memory, root)
    root.children[b"00500x"] = regular(b"changed")
    manifest = store(memory, root)
    memory.reads = 0
    found = listed(memory, manifest, base)
    assert len(found) <= 8
    assert memory.reads <= 40


def test_a_changed_chunk_of_a_large_file_lists_one_node_a_level() -> None:
    memory = Memory()
    chunks: list[bytes | None] = [b"%08d" % n * (CHUNK_SIZE // 8) for n in range(1500)]
    base = store(memory, directory({b"f": regular(*chunks)}))
    chunks[1200] = BIG
    manifest = store(memory, directory({b"f": regular(*chunks)}))
    # Manifest, directory, two levels of map nodes, the chunk.
    assert len(listed(memory, manifest, base)) == 5


@pytest.mark.parametrize(("before", "after"), [(2, FANOUT + 5), (FANOUT + 5, 2), (1, 3), (3, 1)])
def test_a_file_that_grows_or_shrinks_keeps_its_first_chunks(before: int, after: int) -> None:
    memory = Memory()
    chunks: list[bytes | None] = [b"%08d" % n * (CHUNK_SIZE // 8) for n in range(FANOUT + 5)]
    base = store(memory, directory({b"f": regular(*chunks[:before])}))
    manifest = store(memory, directory({b"f": regular(*chunks[:after])}))
    found = names(memory, listed(memory, manifest, base))
    assert not found & set(chunks[: min(before, after)])
    assert found >= {chunk for chunk in chunks[before:after] if chunk}


def test_what_changes_its_type_is_listed_whole() -> None:
    memory = Memory()
    base = store(memory, directory({b"a": regular(b"1"), b"b": directory({b"x": regular(b"2")})}))
    root = directory({b"a": directory({b"x": regular(b"1")}), b"b": regular(b"3")})
    whole, manifest = alone(root)
    store(memory, root)
    assert set(listed(memory, manifest, base)) == set(whole.objects)


def lost(memory: Memory, rng: random.Random, keep: set[ObjectId]) -> Iterator[ObjectId]:
    oids = sorted(set(memory.objects) - keep)
    yield from rng.sample(oids, min(20, len(oids)))


def test_a_base_that_is_damaged_saves_less_and_harms_nothing() -> None:
    rng = random.Random(SEED)
    root = grown(rng, 200)
    old, base = alone(root)
    changed(root, rng)
    whole, manifest = alone(root)
    for oid in [base, *lost(old, rng, set(whole.objects))]:
        memory = Memory()
        memory.objects = {**old.objects, **whole.objects}
        del memory.objects[oid]
        found = set(listed(memory, manifest, base))
        assert found | set(old.objects) >= set(whole.objects)


def test_what_is_missing_in_the_tree_itself_is_an_error() -> None:
    memory, manifest = alone(directory({b"d": directory({b"e": regular(BIG, b"end")})}))
    chunks = {object_id(BIG), object_id(b"end")}
    for oid in set(memory.objects) - chunks:
        data = memory.objects.pop(oid)
        with pytest.raises(Corrupt, match=oid.hex()):
            listed(memory, manifest)
        memory.objects[oid] = data
