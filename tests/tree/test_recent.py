"""What is remembered is bounded, and what is used stays."""

from __future__ import annotations

from imagefs.model import ROOT_INO
from imagefs.tree import Tree
from imagefs.tree.pages import CACHE_BYTES, Pages
from imagefs.tree.recent import Recent
from imagefs.tree.tree import KNOWN_INODES
from imagefs.tree.walk import walk
from tests.tree import samples
from tests.tree.samples import Memory, directory, regular


def test_no_more_than_the_limit_is_kept() -> None:
    recent: Recent[int, int] = Recent(100)
    for i in range(1000):
        recent.put(i, i)
        assert len(recent) <= 100
    assert recent.get(999) == 999
    assert recent.get(0) is None


def test_what_is_used_now_and_then_stays() -> None:
    recent: Recent[int, int] = Recent(100)
    recent.put(-1, 5)
    for i in range(1000):
        recent.put(i, i)
        if i % 30 == 0:
            assert recent.get(-1) == 5


def test_weights_count() -> None:
    recent: Recent[int, bytes] = Recent(1000, len)
    for i in range(100):
        recent.put(i, bytes(100))
        assert len(recent) <= 11


def test_a_walk_leaves_little_behind() -> None:
    memory = Memory()
    root = directory({b"%03d" % i: directory() for i in range(300)})
    for parent in root.children.values():
        parent.children = {b"%03d" % i: regular() for i in range(200)}
    tree = Tree(memory.fetch, samples.store(memory, root), Pages(memory.fetch, CACHE_BYTES // 8))
    for _, ino, entry in walk(tree):
        if entry.is_directory:
            tree.lookup(ino, b"007")
    per_entry = 256
    assert len(tree.pages) * 50 * per_entry < CACHE_BYTES // 8
    assert len(tree._known) <= KNOWN_INODES


def test_trees_share_pages() -> None:
    memory = Memory()
    root = directory({b"%d" % i: directory({b"f": regular(b"%d" % i)}) for i in range(9)})
    first = samples.store(memory, root)
    root.children[b"7"].mtime = 1
    second = samples.store(memory, root)
    pages = Pages(memory.fetch)
    for manifest in (first, second):
        tree = Tree(memory.fetch, manifest, pages)
        memory.reads = 0
        assert tree.list(ROOT_INO) == Tree(memory.fetch, manifest).list(ROOT_INO)
        for _ in walk(tree):
            pass
    # The manifest and the root page twice, everything below from the pages of the first.
    assert memory.reads == 4
