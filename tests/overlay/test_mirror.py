"""An overlay does what a directory of the host does, whatever happens to both."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagefs.model import ObjectId
from imagefs.store import Store
from imagefs.transfer.import_directory import import_directory
from imagefs.tree import Tree
from tests.overlay.mirror import Mirror
from tests.overlay.workbench import Bench, facts, facts_of_host, set_host_times

STEPS = 60
ROUNDS = 3


def imported(store: Store, directory: bytes) -> ObjectId:
    with store.writer() as writer:
        return import_directory(directory, writer, store.get)


def compare(mirror: Mirror) -> None:
    expected = facts_of_host(mirror.directory)
    found = facts(mirror.bench)
    assert found.keys() == expected.keys(), mirror.log
    bench = mirror.bench
    assert bench.overlay.check(bench.store.get) == [], mirror.log
    for path, fact in expected.items():
        assert found[path] == fact, (path, mirror.log)


# An ordinary user is kept by the host from what the overlay, which checks no rights, does.
@pytest.mark.root
@pytest.mark.parametrize("seed", range(8))
def test_random_operations_over_an_imported_tree(seed: int, tmp_path: Path, store: Store) -> None:
    directory = os.fsencode(tmp_path / "host")
    os.mkdir(directory)
    os.chmod(directory, 0o755)
    manifest = imported(store, directory)
    for round_ in range(ROUNDS):
        bench = Bench(tmp_path / f"overlay-{round_}", store, manifest)
        mirror = Mirror(bench, directory, seed * 100 + round_)
        for part in range(2):
            for _ in range(STEPS):
                mirror.step()
            compare(mirror)
            set_host_times(bench, directory)
            manifest = bench.commit()
            expected = imported(store, directory)
            assert manifest == expected, (part, mirror.log)
            root = Tree(store.get, manifest).manifest.root
            assert (bench.overlay.entries, bench.overlay.bytes) == (root.count, root.size)
            compare(mirror)
        bench.overlay.close()
