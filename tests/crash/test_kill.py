"""kill -9 of the daemon in the middle of work: nothing that returned is lost."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.acceptance import samples
from tests.acceptance.manifest import assert_equal
from tests.acceptance.person import Person, wait_until
from tests.crash.journal import Journal

pytestmark = [
    pytest.mark.mount,
    pytest.mark.root,
    # What a killed writer had stored already is taken into the index.
    pytest.mark.expected_log("bytes from offset [0-9]+ on are indexed"),
]

ROUNDS = 20
LONGEST = 0.6
CHECKOUT = Path(__file__).resolve().parent.parent.parent
GONE = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO}


class Copier:
    """The copying program, as a process with its journal in a file."""

    def __init__(self, folder: Path, seed: int, journal: Path) -> None:
        self.journal = journal
        command = [sys.executable, "-m", "tests.crash.copier", str(folder), str(seed)]
        with open(journal, "wb") as output:
            self.process = subprocess.Popen(command, stdout=output, cwd=CHECKOUT)

    def wait_until_at_work(self) -> None:
        wait_until(lambda: self.journal.stat().st_size > 2000, "the copier to get going")

    def result(self) -> Journal:
        assert self.process.wait(timeout=60) == 0
        return Journal.read(self.journal.read_text().splitlines())


def seeds() -> Sequence[int]:
    first = int(os.environ.get("IMAGEFS_TEST_SEED", str(random.randrange(10**6))))
    print(f"IMAGEFS_TEST_SEED={first}")
    return range(first, first + ROUNDS)


def test_nothing_that_returned_is_lost(root: Person, tmp_path: Path) -> None:
    """Twenty times, at random moments, while a draft and an instance are written to at once."""
    source = tmp_path / "source"
    samples.build(source, privileged=True)
    root.mount("--seal-after", "0")
    root.imagefs("import", source, "base")
    (root.instances / "base/untouched").mkdir()
    (root.instances / "base/node").mkdir()
    (root.images / "draft").mkdir()
    untouched = root.manifest(root.instances / "base/untouched")
    digest = root.digest("base")
    caught_at_work = 0
    for seed in seeds():
        copiers = [
            Copier(root.images / "draft", seed, tmp_path / f"draft-{seed}"),
            Copier(root.instances / "base/node", seed, tmp_path / f"node-{seed}"),
        ]
        for copier in copiers:
            copier.wait_until_at_work()
        time.sleep(random.Random(seed).uniform(0, LONGEST))
        root.kill_daemon()
        journals = [copier.result() for copier in copiers]
        root.mount("--seal-after", "0")

        for journal in journals:
            assert journal.ended in GONE
            assert journal.problems() == []
            caught_at_work += bool(journal.unsure or journal.moving)
        assert root.information(root.images / "draft", "state") == "draft"
        assert root.digest("base") == digest
    assert_equal(untouched, root.manifest(root.instances / "base/untouched"))
    print(f"{caught_at_work} of {2 * ROUNDS} copiers were caught within an operation")
    assert caught_at_work > ROUNDS // 2, "hardly anything was in flight: this proved nothing"


def test_a_killed_commit_is_there_or_not(root: Person, tmp_path: Path) -> None:
    """After kill -9 during commit the image is complete or absent, and the instance is as it was."""
    source = tmp_path / "source"
    samples.build(source, privileged=True)
    root.mount()
    root.imagefs("import", source, "base")
    instance = root.instances / "base/node"
    instance.mkdir()
    rng = random.Random(3)
    for number in range(400):
        (instance / f"file-{number}").write_bytes(rng.randbytes(40_000))
    expected = root.manifest(instance)
    start = time.perf_counter()
    root.imagefs("commit", "base/node", "measured")
    window = time.perf_counter() - start
    digest = root.digest("measured")

    outcomes = []
    for number in range(8):
        (instance / "names/sp ace").write_bytes(rng.randbytes(10))
        (instance / "file-7").write_bytes(rng.randbytes(10**6))
        expected = root.manifest(instance)
        command = [str(root.checkout / "tools/imagefs"), "commit", "base/node", f"image-{number}"]
        commit = subprocess.Popen(command, env=dict(root.environment), stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.2, 1.0) * window)
        for pid in root.daemons():
            os.kill(pid, signal.SIGKILL)
        finished = commit.wait(timeout=60) == 0
        wait_until(lambda: not root.daemons(), "the daemon to be gone")
        root.mount()
        there = (root.images / f"image-{number}").is_dir()
        assert there or not finished, "a commit that returned is not there"
        outcomes.append(there)
        assert_equal(expected, root.manifest(instance))
        if there:
            clone = root.instances / f"image-{number}" / "check"
            clone.mkdir()
            assert_equal(expected, root.manifest(clone))
    print(f"outcomes: {outcomes}")
    assert root.digest("measured") == digest
