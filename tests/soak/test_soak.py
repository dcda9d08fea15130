"""Many processes at work in one instance and in many, for as long as one likes.

Afterwards what the kernel shows, what the daemon shows to a kernel that forgot everything, and
what a new mount shows are one and the same, and the daemon holds nothing any more. Every second of
the run the daemon's memory is taken; the curve is printed.
"""

import faulthandler
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.manifest import Manifest
from tests.acceptance.person import Person, wait_until
from tests.crash.test_kill import CHECKOUT

pytestmark = [pytest.mark.mount, pytest.mark.root]

SECONDS = float(os.environ.get("IMAGEFS_TEST_SOAK_SECONDS", "120"))
TOGETHER = 3
ALONE = 3
SAMPLES_SHOWN = 40
PAGE = os.sysconf("SC_PAGE_SIZE")
CREEP = 16 * 1024 * 1024
"""Between the second and the last quarter the daemon may grow by this much: what it caches comes
and goes, and the allocator keeps some. A leak of 30 bytes an operation is more in ten minutes."""


class Worker:
    """One process; `end` returns what it did."""

    def __init__(self, module: str, *arguments: str | int | Path) -> None:
        command = [sys.executable, "-m", f"tests.soak.{module}", *map(str, arguments)]
        self.process: subprocess.Popen[str] = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> dict[str, Any]:
        output, complaint = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, complaint
        result: dict[str, Any] = json.loads(output)
        return result


class Memory:
    """The resident memory of a process over time, in bytes."""

    def __init__(self, pid: int) -> None:
        self._source = Path(f"/proc/{pid}/statm")
        self.samples: list[int] = []

    def take(self) -> None:
        self.samples.append(int(self._source.read_text().split()[1]) * PAGE)

    def curve(self) -> str:
        step = max(1, len(self.samples) // SAMPLES_SHOWN)
        return " ".join(f"{sample / 2**20:.1f}" for sample in self.samples[::step])

    def growth(self) -> float:
        """The median of the last quarter less that of the second."""
        quarter = len(self.samples) // 4
        second, last = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        return statistics.median(last) - statistics.median(second)


def start(root: Person) -> list[Worker]:
    together = root.instances / "base/together"
    together.mkdir()
    workers = [Worker("hammer", together, seed) for seed in range(TOGETHER)]
    for number in range(ALONE):
        alone = root.instances / f"base/alone-{number}"
        alone.mkdir()
        workers.append(Worker("hammer", alone, 100 + number, "alone"))
    return [*workers, Worker("life", root.cloud, "base", 7)]


def watch(memory: Memory, workers: list[Worker]) -> None:
    """Takes the memory every second, and lets a worker that failed end the run."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and all(worker.process.poll() is None for worker in workers):
        memory.take()
        time.sleep(1)


def held(root: Person) -> dict[str, int]:
    status = json.loads(root.imagefs("--debug", "status", "--json").stdout)
    return {name: status[name] for name in ("open_files", "open_directories", "lookups", "orphans")}


def trees(root: Person) -> dict[Path, Manifest]:
    """Every instance; the directories above change their times with any of them."""
    return {path: root.manifest(path) for path in sorted((root.instances / "base").iterdir())}


def forget(root: Person) -> None:
    """Makes the kernel forget every name; it keeps what is in use."""
    Path("/proc/sys/vm/drop_caches").write_text("2")
    wait_until(lambda: not any(held(root).values()), f"the kernel to forget: {held(root)}")


def test_hammered_for_long(root: Person, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for folder in range(3):
        (source / f"d{folder}/e{folder}").mkdir(parents=True)
        for number in range(20):
            content = os.urandom(200_000 * (number % 3) + number)
            (source / f"d{folder}/e{folder}/n{number}").write_bytes(content)
    # In place of pytest's own limit for a test, which is shorter than a long run.
    faulthandler.dump_traceback_later(SECONDS + 600, exit=True)
    root.imagefs("import", source, "base")
    root.mount()
    (daemon,) = root.daemons()
    memory = Memory(daemon)
    workers = start(root)
    try:
        watch(memory, workers)
        done = [worker.end() for worker in workers]
    finally:
        for worker in workers:
            worker.process.send_signal(signal.SIGKILL)
            worker.process.communicate()
    operations = sum(sum(result["done"].values()) for result in done)
    print(f"{operations} operations by {len(workers)} processes in {SECONDS:.0f} s")
    print(json.dumps(done))
    print(f"Memory of the daemon in MiB, {len(memory.samples)} samples: {memory.curve()}")
    assert all(sum(result["done"].values()) > 0 for result in done)

    seen_by_the_kernel = trees(root)
    forget(root)
    assert trees(root) == seen_by_the_kernel
    root.remount()
    assert trees(root) == seen_by_the_kernel
    assert memory.growth() < CREEP, f"The daemon grew by {memory.growth()} bytes"
