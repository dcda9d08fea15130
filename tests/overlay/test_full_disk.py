"""A disk that is really full: nothing is lost, and there is a way out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.errors import NoSpace
from imagefs.model import ROOT_INO
from imagefs.store import Store
from tests.overlay.workbench import Bench, empty_tree

pytestmark = pytest.mark.root

RESERVE = 256 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(bench: Bench, size: int) -> dict[bytes, bytes]:
    """Write files until the disk is full; returns what was written."""
    written: dict[bytes, bytes] = {}
    for number in range(10000):
        name = b"file %d" % number
        content = os.urandom(size)
        try:
            ino = bench.make(name)
            written[name] = b""
            bench.run(bench.overlay.write, ino, 0, content)
        except NoSpace:
            return written
        written[name] = content
    raise AssertionError("the disk does not get full")


def remove(bench: Bench, name: bytes) -> None:
    bench.overlay.discard(bench.run(bench.overlay.unlink, ROOT_INO, name))


@pytest.mark.parametrize("size", [0, 100, 5000, 300_000])
@pytest.mark.parametrize("restart", [False, True])
def test_a_full_disk_can_be_emptied(
    small_disk: Path, store: Store, size: int, restart: bool
) -> None:
    reserve = small_disk / "reserve"
    reserve.write_bytes(bytes(RESERVE))
    bench = Bench(small_disk / "overlay", store, empty_tree(store))
    written = fill(bench, size)
    assert len(written) > 3
    for name, content in written.items():
        assert bench.read(name) == content
    assert bench.overlay.check(store.get) == []
    if restart:
        bench.overlay.close()
        reserve.unlink()
        bench.open()
    else:
        reserve.unlink()
    for name, content in written.items():
        assert bench.read(name) == content
    for name in list(written)[::2]:
        remove(bench, name)
        del written[name]
    bench.overlay.sync()
    bench.make(b"again", content=b"x" * size)
    for name, content in written.items():
        assert bench.read(name) == content
    bench.reopen()
    assert bench.overlay.check(store.get) == []
    assert bench.read(b"again") == b"x" * size
    bench.overlay.close()
