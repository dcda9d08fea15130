"""Replacing entries by path gives the tree that building it anew gives."""

from __future__ import annotations

import random
import stat

import msgspec
import pytest

from imagefs.errors import NotFound
from imagefs.format.directory import Entry
from imagefs.model import ROOT_INO
from imagefs.tree import Tree, build
from imagefs.tree.edit import replace_entries
from tests.tree import samples
from tests.tree.samples import Memory, directory, regular


@pytest.mark.parametrize("seed", range(10))
def test_the_result_is_that_of_building_anew(seed: int) -> None:
    rng = random.Random(seed)
    memory = Memory()
    root = samples.grown(rng, 400)
    tree = Tree(memory.fetch, samples.store(memory, root))
    files = [
        (path, node)
        for path, node in samples.places(root)
        if not stat.S_ISDIR(node.mode) and len(samples.link_groups(root).get(id(node), [])) < 2
    ]
    changes: dict[bytes, Entry | None] = {}
    for path, node in rng.sample(files, min(20, len(files))):
        found = tree.resolve(path)
        assert found is not None
        if rng.random() < 0.5:
            changes[path] = None
            above, _, name = path.rpartition(b"/")
            del dict(samples.places(root))[above].children[name]
        else:
            changes[path] = msgspec.structs.replace(found[1], uid=7)
            node.uid = 7
    changed = replace_entries(memory.fetch, memory.put, tree.entry(ROOT_INO), changes)
    groups = samples.link_groups(root).values()
    assert build.write_manifest(memory.put, changed, groups) == samples.store(memory, root)


def test_only_directories_above_a_change_are_written() -> None:
    memory = Memory()
    root = directory({b"%d" % i: directory({b"f": regular(b"%d" % i)}) for i in range(100)})
    tree = Tree(memory.fetch, samples.store(memory, root))
    entry = tree.entry(ROOT_INO)
    memory.writes = 0
    assert replace_entries(memory.fetch, memory.put, entry, {b"7/f": None}) != entry
    assert memory.writes == 2
    assert replace_entries(memory.fetch, memory.put, entry, {}) == entry


@pytest.mark.parametrize("path", [b"none/f", b"7/f/g"])
def test_directories_that_do_not_exist(path: bytes) -> None:
    memory = Memory()
    root = directory({b"7": directory({b"f": regular()})})
    entry = Tree(memory.fetch, samples.store(memory, root)).entry(ROOT_INO)
    with pytest.raises(NotFound):
        replace_entries(memory.fetch, memory.put, entry, {path: None})
