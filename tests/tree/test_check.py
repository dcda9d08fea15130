"""A check of stored trees finds nothing in whole ones, names what is wrong, reads nothing twice."""

from __future__ import annotations

import random
import re
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from imagefs.format.content import encode_node
from imagefs.format.directory import Entry, Leaf, PageRef, encode_index, encode_leaf
from imagefs.format.manifest import (
    LinkGroup,
    Manifest,
    encode_link_index,
    encode_link_page,
    encode_manifest,
)
from imagefs.format.record import object_id
from imagefs.model import CHUNK_SIZE, ObjectId
from imagefs.store import Store
from imagefs.store.check import ObjectCheck
from imagefs.tree import build
from imagefs.tree.check import TreeCheck, TreeProblem
from tests.tree import samples
from tests.tree.samples import Memory

Put = Callable[[bytes], ObjectId]
LOST = object_id(b"never stored")
CHUNK = b"c" * CHUNK_SIZE


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store") as opened:
        yield opened


def keep(store: Store, memory: Memory) -> None:
    with store.writer() as writer:
        for data in memory.objects.values():
            writer.put(data)
        writer.finish()


def found(store: Store, *manifests: ObjectId) -> list[TreeProblem]:
    with ObjectCheck(store) as objects:
        trees = TreeCheck(objects, lambda entries, size: None)
        return [problem for manifest in manifests for problem in trees.check(manifest)]


# -- trees that are whole ---------------------------------------------------------------------


def test_whole_trees_have_no_problems(store: Store) -> None:
    memory = Memory()
    rng = random.Random(7)
    roots = [samples.grown(rng, names) for names in (0, 1, 60, 900)]
    many = {b"name-%d" % n: samples.regular(b"%d" % n) for n in range(700)}
    roots.append(samples.directory({b"many": samples.directory(many)}))
    manifests = [samples.store(memory, root) for root in roots]
    keep(store, memory)
    assert found(store, *manifests) == []


def test_what_trees_share_is_read_once(store: Store) -> None:
    memory = Memory()
    tree = samples.grown(random.Random(3), 500)
    first = samples.store(memory, tree)
    tree.children[b"new"] = samples.regular(b"new")
    second = samples.store(memory, tree)
    keep(store, memory)
    with ObjectCheck(store) as objects:
        trees = TreeCheck(objects, lambda entries, size: None)
        assert list(trees.check(first)) == []
        entries = trees.entries
        assert list(trees.check(second)) == []
        assert trees.entries - entries == len(tree.children), "only the root was looked at again"
        assert list(trees.check(first)) == []
        assert trees.entries - entries == len(tree.children)
        assert objects.objects == len(memory.objects)


def test_a_damaged_chunk_is_named_wherever_it_is(store: Store) -> None:
    memory = Memory()
    chunks = [bytes([n]) * CHUNK_SIZE for n in range(1, 4)]
    deep = samples.directory({b"dir": samples.directory({b"large": samples.regular(*chunks)})})
    first = samples.store(memory, deep)
    flat = samples.directory({b"one": samples.regular(chunks[1]), b"two": samples.regular(b"two")})
    second = samples.store(memory, flat)
    bad = object_id(chunks[1])
    del memory.objects[bad]
    keep(store, memory)
    problems = found(store, first, second, first)
    assert [problem.path for problem in problems] == [b"dir/large", b"one", b"dir/large"]
    assert {problem.oid for problem in problems} == {bad}
    assert problems[0].message.startswith("Bytes 131072 to 262143: ")
    assert "is missing from store" in problems[0].message


# -- trees that nobody should have written ----------------------------------------------------


def file(name: bytes, put: Put, data: bytes = b"data", **changed: object) -> Entry:
    entry = Entry(
        name, stat.S_IFREG | 0o644, 0, 0, 0, len(data), len(data), put(data), 0, None
    )  # fmt: skip
    return replace(entry, **changed)


def folder(name: bytes, put: Put, *entries: Entry, **changed: object) -> Entry:
    claim = Leaf(list(entries), 0).claim
    ref = put(encode_leaf(list(entries)))
    entry = Entry(
        name, stat.S_IFDIR | 0o755, 0, 0, 0, claim.size, claim.total, ref, claim.links, None
    )  # fmt: skip
    return replace(entry, **changed)


def tree(put: Put, *entries: Entry, links: bytes | None = None, **changed: object) -> ObjectId:
    return put(encode_manifest(Manifest(folder(b"", put, *entries, **changed), links)))


def table(put: Put, *groups: LinkGroup) -> ObjectId:
    return put(encode_link_index([put(encode_link_page(groups))]))


def wrong_entry_count(put: Put) -> ObjectId:
    return tree(put, folder(b"dir", put, file(b"a", put), count=2))


def wrong_size(put: Put) -> ObjectId:
    return tree(put, folder(b"dir", put, file(b"a", put), size=99))


def wrong_directory_count(put: Put) -> ObjectId:
    return tree(put, folder(b"dir", put, folder(b"sub", put), links=0))


def wrong_root(put: Put) -> ObjectId:
    return tree(put, file(b"a", put), count=7)


def lost_directory(put: Put) -> ObjectId:
    return tree(put, folder(b"dir", put, file(b"a", put), ref=LOST))


def names_out_of_order(put: Put) -> ObjectId:
    return tree(put, folder(b"dir", put, file(b"b", put), file(b"a", put)))


def directory_that_is_content(put: Put) -> ObjectId:
    return tree(put, folder(b"dir", put, file(b"a", put), ref=put(b"no page")))


def wrong_index(put: Put) -> ObjectId:
    names = [b"%03d" % n for n in range(300)]
    summary = build.write_directory(put, [file(name, put) for name in names])
    leaf = put(encode_leaf([file(b"x", put)]))
    page = PageRef(b"000", leaf, summary.count - 1, summary.count - 1, 4, 0)
    rest = PageRef(b"200", leaf, 1, 1, summary.size - 4, 0)
    ref = put(encode_index(1, [page, rest]))
    return tree(put, folder(b"dir", put, ref=ref, count=300, size=summary.size))


def lost_chunk(put: Put) -> ObjectId:
    return tree(put, file(b"dir", put, ref=LOST))


def short_chunk(put: Put) -> ObjectId:
    return tree(put, file(b"dir", put, size=9, count=9))


def wrong_allocation(put: Put) -> ObjectId:
    node = put(encode_node([put(CHUNK), None, put(b"end")]))
    return tree(put, file(b"dir", put, ref=node, size=2 * CHUNK_SIZE + 3, count=CHUNK_SIZE))


def hole_at_the_end_of_a_map(put: Put) -> ObjectId:
    node = put(put(CHUNK) + bytes(32))
    return tree(put, file(b"dir", put, ref=node, size=2 * CHUNK_SIZE, count=CHUNK_SIZE))


def map_too_long(put: Put) -> ObjectId:
    node = put(put(CHUNK) * 3)
    return tree(put, file(b"dir", put, ref=node, size=2 * CHUNK_SIZE, count=2 * CHUNK_SIZE))


def lost_map(put: Put) -> ObjectId:
    return tree(put, file(b"dir", put, ref=LOST, size=2 * CHUNK_SIZE, count=CHUNK_SIZE))


def linked_without_a_table(put: Put) -> ObjectId:
    return tree(put, file(b"a", put, links=1), file(b"b", put, links=1))


def linked_and_left_out(put: Put) -> ObjectId:
    entries = [file(name, put, links=1) for name in (b"a", b"b", b"c")]
    return tree(put, *entries, links=table(put, (b"a", b"b")))


def in_the_table_and_not_linked(put: Put) -> ObjectId:
    entries = [file(b"a", put, links=1), file(b"b", put)]
    return tree(put, *entries, links=table(put, (b"a", b"b")))


def in_the_table_and_gone(put: Put) -> ObjectId:
    return tree(put, file(b"a", put, links=1), links=table(put, (b"a", b"dir/b")))


def linked_and_different(put: Put) -> ObjectId:
    entries = [file(b"a", put, links=1), file(b"b", put, b"other", links=1)]
    return tree(put, *entries, links=table(put, (b"a", b"b")))


def lost_table(put: Put) -> ObjectId:
    return tree(put, links=LOST)


def lost_table_beside_damage(put: Put) -> ObjectId:
    return tree(put, folder(b"dir", put, ref=LOST), links=LOST)


def no_manifest(put: Put) -> ObjectId:
    return put(b"no manifest")


PLANTED: dict[Callable[[Put], ObjectId], tuple[bytes, str]] = {
    wrong_entry_count: (b"dir", "Directory b'dir' does not hold what its entry says"),
    wrong_size: (b"dir", "does not hold what its entry says"),
    wrong_directory_count: (b"dir", "does not hold what its entry says"),
    wrong_root: (b"", "does not hold what its entry says"),
    lost_directory: (b"dir", "is missing from store"),
    names_out_of_order: (b"dir", "not in canonical order"),
    directory_that_is_content: (b"dir", "cannot be decoded"),
    wrong_index: (b"dir", "is not"),
    lost_chunk: (b"dir", "Bytes 0 to 3: Object .* is missing from store"),
    short_chunk: (b"dir", "has 4 bytes where 9 belong"),
    wrong_allocation: (b"dir", "chunks have 131075 bytes, the entry says 131072"),
    hole_at_the_end_of_a_map: (b"dir", "ends with a hole"),
    map_too_long: (b"dir", "cannot hold up to 2 references"),
    lost_map: (b"dir", "Bytes 0 to 262143: .* is missing"),
    linked_without_a_table: (b"", "2 entries are marked as linked, the link table has 0"),
    linked_and_left_out: (b"", "3 entries are marked as linked, the link table has 2"),
    in_the_table_and_not_linked: (b"", "holds b'b', which is not a linked entry"),
    in_the_table_and_gone: (b"", "holds b'dir/b', which is not a linked entry"),
    linked_and_different: (b"", "b'b' is linked with b'a' but differs from it"),
    lost_table: (b"", "Hard links: .* is missing"),
    lost_table_beside_damage: (b"", "Hard links: .* is missing"),
    no_manifest: (b"", "Manifest: .* cannot be decoded"),
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_what_is_wrong_is_named(store: Store, plant: Callable[[Put], ObjectId]) -> None:
    with store.writer() as writer:
        manifest = plant(partial(writer.put, metadata=True))
        writer.finish()
    path, message = PLANTED[plant]
    with ObjectCheck(store) as objects:
        trees = TreeCheck(objects, lambda entries, size: None)
        problems = list(trees.check(manifest))
        last = problems[-1]
        assert last.path == path
        assert re.search(message, last.message), last.message
        assert list(trees.check(manifest)) == problems, "told again to whoever shares it"
