"""stress-ng's file system stressors do their work in an instance, and find what they check as it should be."""

import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance.person import Person
from tests.suites.ground import FULL, HOURS, Ground

pytestmark = [pytest.mark.mount, pytest.mark.root]

# Rounds ("bogus operations") for CI and, where it takes more than the stressor's own, options. A round may
# be one call or thousands: those that are slow make thousands of files or attributes in each.
# What ends them is the number of rounds. Where time does, stress-ng's own stand-in for fallocate stops in its
# middle and reports success, and fsize takes that for a fault.
QUICK = """
    access 100; aio 500; aiol 50; chattr 5; chmod 10; chown 50; copy-file 20 bytes=128m;
    dentry 500; dir 200; dirdeep 300; dirmany 300; dnotify 10; dup 50; fanotify 50;
    fcntl 200; fiemap 50 bytes=1m; file-ioctl 200; filename 10; flock 1000; fsize 20;
    fstat 500; getdent 2000; handle 1000; inotify 4; io 50; iomix 200 bytes=1m;
    lease 50; locka 1000; lockf 1000; lockofd 1000; mknod 50; msync 50 bytes=1m; msyncmany 5;
    open 1000; readahead 200 bytes=4m; rename 100; revio 500 bytes=4m; rmap 1;
    seek 500 size=4m; sendfile 500; splice 1000; sync-file 1 bytes=1m; touch 100; utime 50;
    verity 1
"""
SLOW = """
    chdir 1; fallocate 5 bytes=4m; fpunch 5; link 1; symlink 1; xattr 1
"""
DISK_OPTIONS = """
    sync; dsync; direct; noatime; fsync; fdatasync; syncfs; iovec; utimes; wr-seq,rd-seq; wr-rnd,rd-rnd;
    fadv-normal; fadv-seq; fadv-rnd; fadv-noreuse; fadv-willneed; fadv-dontneed
"""
TOGETHER = 2
TIMES = 10 if FULL else 1

# The kernel asks no FUSE file system where the pieces of a file lie.
IMPOSSIBLE = {"fiemap"}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each stressor under a name of its own, with its arguments."""
    for name, rounds, extra in listed(QUICK):
        yield name, [*arguments(name, int(rounds) * TIMES), *extra]
    for name, rounds, extra in listed(SLOW if FULL else ""):
        yield name, [*arguments(name, int(rounds)), *extra]
    yield "mmap-file", [*arguments("mmap", TIMES), "--mmap-file", "--mmap-bytes", "1m"]
    for option in DISK_OPTIONS.replace("\n", " ").split(";"):
        option = option.strip()
        disk = ["--hdd-bytes", "4m", "--hdd-opts", option]
        yield f"hdd-{option}", [*arguments("hdd", 100 * TIMES), *disk]


def arguments(stressor: str, rounds: int) -> list[str]:
    return [f"--{stressor}", "1", f"--{stressor}-ops", str(rounds)]


def listed(text: str) -> Iterator[tuple[str, str, list[str]]]:
    for item in filter(None, text.replace("\n", " ").split(";")):
        name, rounds, *extra = item.split()
        pairs = [option.partition("=") for option in extra]
        options = [word for key, _, value in pairs for word in (f"--{name}-{key}", value)]
        yield name, rounds, options


class Outcome:
    """What stress-ng said of one stressor."""

    def __init__(self, person: Person, folder: Path, name: str, options: list[str]) -> None:
        place = folder / name
        person.run("mkdir", place)
        metrics = person.home / f"{name}-{folder.parent.name}.yaml"
        command = ["stress-ng", "--temp-path", str(place), "--verify", "--timeout", "1800"]
        command += ["--metrics", "--yaml", str(metrics), *options]
        ended = person.run(*command, check=False, timeout=HOURS)
        self.text = ended.stdout + ended.stderr
        told = metrics.read_text() if metrics.exists() else ""
        self.rounds = sum(int(number) for number in re.findall(r"bogo-ops: (\d+)", told))
        left = subprocess.run(["find", place, "-mindepth", "1"], capture_output=True, check=True)
        self.left = left.stdout.decode()
        self.good = ended.returncode == 0 and self.rounds > 0 and " fail:" not in self.text

    def __str__(self) -> str:
        return f"{self.rounds} rounds; left: {self.left}\n{self.text}"


def test_stressors_find_no_fault(ground: Ground) -> None:
    def run(named: tuple[str, list[str]]) -> Outcome:
        return Outcome(ground.person, ground.work, *named)

    everything = dict(commands())
    with ThreadPoolExecutor(TOGETHER) as pool:
        outcomes = dict(zip(everything, pool.map(run, everything.items()), strict=True))
    (ground.twin / "work").mkdir()
    failed = {name: outcome for name, outcome in outcomes.items() if not outcome.good}
    failed_alike = {
        name
        for name in failed
        if not Outcome(ground.person, ground.twin / "work", name, everything[name]).good
    }
    good = [outcome for outcome in outcomes.values() if outcome.good]
    rounds = sum(outcome.rounds for outcome in good)
    print(f"stress-ng: {len(outcomes)} stressors, {len(good)} good, {rounds} rounds;")
    print(f"failed as on the host: {failed_alike}; failed in the instance: {failed.keys()}")
    shown = [f"{name}: {outcome}" for name, outcome in failed.items()]
    assert failed.keys() - failed_alike == IMPOSSIBLE, "\n".join(shown)
    assert not [name for name, outcome in outcomes.items() if outcome.left]
