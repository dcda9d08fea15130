"""Where other people's tests run: a folder in an instance, and its twin on the host's disk."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.manifest import assert_equal
from tests.acceptance.mounts import PREFIX
from tests.acceptance.person import Person

FULL = os.environ.get("IMAGEFS_TEST_SUITES", "") == "full"
"""Whether the suites run at their full length; else at one that CI can afford."""

HOURS = 4 * 3600.0
"""Long enough for any suite on a slow machine: what takes longer hangs."""


@dataclass(frozen=True)
class Ground:
    """An instance of an image that holds something already; `runner` runs suites in its folder `w`.

    Names are short, because the suites bind sockets far below, to paths of 107 bytes at most.
    """

    person: Person
    runner: Person
    twin: Path

    @property
    def image(self) -> Path:
        return self.person.images / "i"

    @property
    def instance(self) -> Path:
        return self.person.instances / "i/t"

    @property
    def work(self) -> Path:
        return self.instance / "w"

    def remount(self) -> None:
        """Ends the daemon and starts another; the tree must be the same for both, and good."""
        before = self.person.manifest(self.instance)
        self.person.remount()
        assert_equal(before, self.person.manifest(self.instance))

    def settle(self) -> None:
        """What every suite must leave: a tree that a new daemon shows the same, and nothing of the
        image changed in passing. (Whether the store is good is looked at after every test.)"""
        self.remount()
        content = self.person.manifest(self.image / "content")
        assert_equal(content, self.person.manifest(self.instance / "content"))


@contextmanager
def made(person: Person, runner: Person, *options: str) -> Iterator[Ground]:
    seed = person.home / "seed"
    person.run("mkdir", seed, seed / "w")
    person.run("cp", "-a", person.checkout / "imagefs", seed / "content")
    person.mount("--seal-after", "0", *options)
    person.imagefs("import", seed, "i")
    # /tmp may be in memory; what lies in /var/tmp is on the disk.
    twin = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/var/tmp"))
    try:
        ground = Ground(person, runner, twin)
        person.run("mkdir", ground.instance)
        if not runner.is_root and os.geteuid() == 0:
            shutil.chown(twin, runner.name)
            person.run("chown", runner.name, ground.work)
        yield ground
        ground.settle()
    finally:
        shutil.rmtree(twin)
