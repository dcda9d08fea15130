"""What a row is given: places to work in, the trees to work on, imagefs and the mounts of peers."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench_rows.machine import drop_caches, is_installed, run
from bench_rows.measure import Attempt, Figure, Report, Skipped, take_turns

CHECKOUT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 30.0


@dataclass
class Bench:
    """One run: `rootfs` is the tree to import, `scratch` a folder on a real disk, `entries` the
    number of entries of the very large tree."""

    scratch: Path
    rootfs: Path
    repeats: int
    entries: int
    report: Report = field(default_factory=Report)
    _count: int = 0

    def folder(self, name: str) -> Path:
        """A new, empty folder."""
        self._count += 1
        folder = self.scratch / f"{name}-{self._count}"
        folder.mkdir(parents=True)
        return folder

    def compare(
        self,
        figures: tuple[Figure, ...],
        contenders: Mapping[str, Attempt],
        needs: Mapping[str, str] | None = None,
    ) -> None:
        """Measures figures. `needs` names the program without which a contender is skipped."""
        present = {}
        for name, attempt in contenders.items():
            program = (needs or {}).get(name)
            if program is None or is_installed(program):
                present[name] = partial(rested, attempt)
            else:
                reason = f"{program} is not installed"
                self.report.skipped.append(Skipped(figures[0].row, name, reason))
        measured = take_turns(figures, present, self.repeats)
        self.report.outcomes += measured.outcomes
        self.report.skipped += measured.skipped


@dataclass
class Imagefs:
    """A store of its own with a mount, driven through the command like any user's, who has set
    these variables of the environment."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def mountpoint(self) -> Path:
        return self.folder / "mnt"

    @property
    def images(self) -> Path:
        return self.mountpoint / "images"

    @property
    def instances(self) -> Path:
        return self.mountpoint / "instances"

    def command(self, *arguments: str | Path) -> str:
        environment = {
            "IMAGEFS_STORE": str(self.store),
            "HOME": str(self.folder),
            **self.variables,
        }
        return run([CHECKOUT / "tools/imagefs", *arguments], environment)

    def mount(self) -> None:
        self.command("mount", self.mountpoint, "--seal-after", "0")

    def unmount(self) -> None:
        self.command("umount", self.mountpoint)

    def remount_cold(self) -> None:
        """A daemon that knows nothing, above a disk that has to be read."""
        self.unmount()
        drop_caches()
        self.mount()

    def daemon(self) -> int:
        """The process that serves the mount."""
        wanted = os.fsencode(self.mountpoint)
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                if wanted in command and b"imagefs.daemon" in command:
                    return int(folder.name)
        raise RuntimeError(f"No daemon serves {self.mountpoint}")


@contextlib.contextmanager
def imagefs(bench: Bench, variables: Mapping[str, str] | None = None) -> Iterator[Imagefs]:
    """A mounted imagefs with an empty store, removed afterwards."""
    side = Imagefs(bench.folder("imagefs"), variables or {})
    side.mount()
    try:
        yield side
    finally:
        side.unmount()
        remove(side.folder)


def rested(attempt: Attempt) -> Mapping[str, float]:
    """An attempt that does not pay for what others left to be written."""
    os.sync()
    return attempt()


def detach(mountpoint: Path) -> None:
    """Ends a peer's mount and waits until it is gone, so that caches can be dropped."""
    run(["umount" if os.geteuid() == 0 else "fusermount3", *unmount_options(), mountpoint])
    wait_until_mounted(mountpoint, wanted=False)


def unmount_options() -> list[str]:
    return [] if os.geteuid() == 0 else ["-u"]


def wait_until_mounted(mountpoint: Path, *, wanted: bool = True) -> None:
    deadline = time.monotonic() + PATIENCE
    while os.path.ismount(mountpoint) is not wanted:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{mountpoint} was to be {'' if wanted else 'un'}mounted")
        time.sleep(0.002)


def remove(folder: Path) -> None:
    """Removes a tree, whatever modes are in it."""
    subprocess.run(["chmod", "-R", "u+rwx", str(folder)], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)
