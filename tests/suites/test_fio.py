"""fio reads back what it wrote, by every engine, at once and after a restart of the daemon."""

import json
from dataclasses import dataclass
from itertools import cycle, product
from typing import Any

import pytest

from tests.acceptance.person import Person
from tests.suites.ground import FULL, HOURS, Ground

pytestmark = [pytest.mark.mount, pytest.mark.root]

ENGINES = (
    "sync",
    "psync",
    "pvsync",
    "pvsync2",
    "libaio",
    "posixaio",
    "mmap",
    "splice",
    "io_uring",
)
PATTERNS = ("write", "randwrite", "randrw")
BYTES = (16 if FULL else 1) * 1024 * 1024
BLOCKS = ("4k", "16k", "112k") if FULL else ("16k",)
CHECKS = ("crc32c", "sha256")
HABITS = ((), ("--fsync=16",), ("--verify_backlog=32",), ("--fdatasync=8",), ())


@dataclass(frozen=True)
class Job:
    """One run of fio: two processes, each with a file of its own."""

    name: str
    options: tuple[str, ...]
    habits: tuple[str, ...]

    def write(self, person: Person, ground: Ground, *, verify: bool = True) -> list[dict[str, Any]]:
        return self.run(person, ground, f"--do_verify={verify:d}", *self.habits)

    def verify(self, person: Person, ground: Ground) -> list[dict[str, Any]]:
        """Reads what was written, without the habits: told to look now and then, fio never does."""
        return self.run(person, ground, "--verify_only")

    def run(self, person: Person, ground: Ground, *more: str) -> list[dict[str, Any]]:
        command = ["fio", f"--name={self.name}", f"--directory={ground.work}", *self.options, *more]
        ended = person.run(*command, "--output-format=json", timeout=HOURS)
        jobs: list[dict[str, Any]] = json.loads(ended.stdout[ended.stdout.index("{") :])["jobs"]
        assert [job["error"] for job in jobs] == [0, 0], ended.stdout + ended.stderr
        return jobs


def jobs() -> list[Job]:
    """Every engine, through the page cache and past it, in every pattern that CI can afford."""
    every = list(product(ENGINES, (0, 1), BLOCKS, PATTERNS))
    # Three patterns and an even number of ways: each engine meets each pattern after all.
    chosen = every if FULL else [every[i + i // 6 % 3] for i in range(0, len(every), 3)]
    return [
        Job(
            f"{engine}-{direct}-{block}-{pattern}",
            (
                f"--ioengine={engine}",
                f"--direct={direct}",
                f"--bs={block}",
                f"--rw={pattern}",
                f"--size={BYTES}",
                f"--verify={check}",
                "--numjobs=2",
                "--iodepth=8",
                "--verify_fatal=1",
                "--fallocate=none",
            ),
            habits,
        )
        for (engine, direct, block, pattern), check, habits in zip(
            chosen, cycle(CHECKS), cycle(HABITS), strict=False
        )
    ]


def moved(done: list[dict[str, Any]], way: str) -> int:
    return sum(int(job[way]["io_bytes"]) for job in done)


def usable(person: Person, ground: Ground, engine: str) -> bool:
    """Whether this machine lets the engine work at all; asked on the host's disk."""
    command = ["fio", "--name=try", f"--directory={ground.twin}", f"--ioengine={engine}"]
    return person.run(*command, "--rw=write", "--size=64k", check=False).returncode == 0


def test_what_was_written_is_read_back(ground: Ground) -> None:
    person = ground.person
    refused = [engine for engine in ENGINES if not usable(person, ground, engine)]
    assert set(refused) <= {"io_uring"}
    run = [job for job in jobs() if job.name.split("-")[0] not in refused]
    written = read = 0
    for job in run:
        done = job.write(person, ground)
        written += moved(done, "write")
        read += moved(done, "read")
    ground.remount()
    again = [job for job in run if not job.name.endswith("randrw")]
    later = sum(moved(job.verify(person, ground), "read") for job in again)
    print(f"fio: {len(run)} runs, engines the machine refuses: {refused}; {written} bytes written,")
    print(f"{read} verified; after a remount {later} of {len(again)} runs")
    assert written > 0
    assert read >= written
    assert later == len(again) * 2 * BYTES


def test_damage_is_noticed(ground: Ground) -> None:
    job = next(job for job in jobs() if job.name.endswith("-write"))
    job.write(ground.person, ground, verify=False)
    file = next(ground.work.iterdir())
    with file.open("r+b") as opened:
        opened.seek(70_000)
        opened.write(b"damage")
    with pytest.raises(AssertionError, match="verify"):
        job.verify(ground.person, ground)
