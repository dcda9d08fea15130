"""A disk image of four GiB in an image: a clone that writes here and there costs what it touches."""

import os
import random
from pathlib import Path

import pytest

from imagefs.model import CHUNK_SIZE
from tests.acceptance.person import Person

pytestmark = [pytest.mark.mount]

SIZE = 4 << 30
BLOCK = 4096
WRITES = 1000
ALLOWANCE = 4 << 20


def make_disk(path: Path) -> None:
    """Mostly hole, with content at the front, in the middle and at the very end."""
    rng = random.Random(7)
    with open(path, "wb") as file:
        for offset in (0, SIZE // 2 - 1000, SIZE - 500_000):
            file.seek(offset)
            file.write(rng.randbytes(500_000))
        file.truncate(SIZE)


def offsets() -> list[int]:
    rng = random.Random(11)
    return [rng.randrange(SIZE // BLOCK) * BLOCK for _ in range(WRITES)]


def write_blocks(path: Path) -> None:
    rng = random.Random(13)
    file = os.open(path, os.O_WRONLY)
    for offset in offsets():
        os.pwrite(file, rng.randbytes(BLOCK), offset)
    os.fsync(file)
    os.close(file)


def allocated(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


@pytest.mark.root
def test_random_writes_cost_the_touched_chunks(root: Person) -> None:
    source = root.home / "source"
    source.mkdir()
    make_disk(source / "disk")
    root.mount()
    root.run("cp", "-a", source, root.images / "base")
    clone = root.instances / "base/node"
    clone.mkdir()
    digest = root.digest("base")
    before = allocated(root.store)

    write_blocks(clone / "disk")
    touched = {offset // CHUNK_SIZE for offset in offsets()}
    grown = allocated(root.store) - before
    print(f"{len(touched)} chunks touched, store grown by {grown >> 20} MiB")
    assert grown <= len(touched) * CHUNK_SIZE + ALLOWANCE

    write_blocks(source / "disk")
    root.run("cmp", source / "disk", clone / "disk")
    assert root.digest("base") == digest
    root.remount()
    root.run("cmp", source / "disk", clone / "disk")
    root.imagefs("commit", "base/node", "written")
    assert root.digest("base") == digest
    root.run("cmp", source / "disk", root.images / "written/disk")
    root.run("cmp", source / "disk", clone / "disk")
    assert (root.images / "written/disk").stat().st_blocks * 512 < SIZE // 8
