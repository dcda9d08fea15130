"""Several processes with one store open, all of them writing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from imagefs.format.record import object_id
from imagefs.store import Store

ROOT = Path(__file__).parents[2]
PROCESSES = 3
ROUNDS = 6

# Objects whose number divides by three are the same in every process.
WRITER = """
import random, sys
from pathlib import Path
from imagefs.store import Store

own = int(sys.argv[2])
sys.stdin.readline()
with Store.open(Path(sys.argv[1])) as store:
    for turn in range(6):
        with store.writer() as writer:
            for number in range(turn * 30, turn * 30 + 30):
                seed = number if number % 3 == 0 else number + 1000 * own
                oid = writer.put(random.Random(seed).randbytes(number * 400))
                print(seed, number * 400, oid.hex())
            writer.finish()
        store.get(oid)
"""


def start(path: Path, script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(path), *arguments],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("index_is_lost", [False, True])
def test_processes_that_write_at_once_lose_nothing(path: Path, index_is_lost: bool) -> None:
    Store.create(path).close()
    if index_is_lost:  # then they meet while it is made anew
        (path / "index.db").unlink()
    processes = [start(path, WRITER, str(number)) for number in range(1, PROCESSES + 1)]
    lines: set[str] = set()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        lines |= set(output.splitlines())
    assert len(lines) == 60 + 120 * PROCESSES
    with Store.open(path) as store:
        for line in lines:
            oid = bytes.fromhex(line.split()[2])
            assert object_id(store.get(oid)) == oid  # type: ignore[arg-type]
        assert 1 <= store.statistics().packs <= PROCESSES
        before = store.statistics().objects
    (path / "index.db").unlink()
    with Store.open(path) as store:
        assert store.statistics().objects == before


OPENER = """
import sys
from pathlib import Path
from imagefs.store import Store

sys.stdin.readline()
with Store.open(Path(sys.argv[1])) as store:
    print(all(bytes.fromhex(oid) in store for oid in sys.argv[2:]))
"""


def test_who_opens_during_a_rebuild_waits_for_it(path: Path) -> None:
    with Store.create(path) as store, store.writer() as writer:
        ids = [writer.put(b"object %d" % number) for number in range(5000)]
        writer.finish()
    (path / "index.db").unlink()
    some = [oid.hex() for oid in ids[::500]]
    processes = [start(path, OPENER, *some) for _ in range(PROCESSES)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[0] for process in processes] == ["True\n"] * PROCESSES


@pytest.mark.parametrize("attempt", range(3))
def test_two_processes_make_one_store(path: Path, attempt: int) -> None:
    script = """
import sys
from pathlib import Path
from imagefs.errors import Exists
from imagefs.store import Store

sys.stdin.readline()
try:
    store = Store.create(Path(sys.argv[1]))
except Exists:
    store = Store.open(Path(sys.argv[1]))
with store, store.writer() as writer:
    print(writer.put(sys.argv[2].encode()).hex())
    writer.finish()
"""
    processes = [start(path, script, word) for word in ("one", "two")]
    ids = [process.communicate("go\n", timeout=60)[0].strip() for process in processes]
    with Store.open(path) as store:
        assert [store.get(bytes.fromhex(oid)) for oid in ids] == [b"one", b"two"]  # type: ignore[arg-type]
