"""Somebody at a shell: root or an ordinary user, with a home, the command and a store of his own."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.acceptance.manifest import Accept, Manifest, manifest
from tests.acceptance.mounts import fuse_mounts, fuse_mounts_below

PATIENCE = 300.0
Result = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Person:
    """Runs commands as that user, in an environment that knows nothing of the host's user."""

    name: str
    home: Path
    checkout: Path
    prefix: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_root(self) -> bool:
        return self.name == "root"

    @property
    def cloud(self) -> Path:
        """The mountpoint that the documentation uses."""
        return self.home / "cloud"

    @property
    def images(self) -> Path:
        return self.cloud / "images"

    @property
    def instances(self) -> Path:
        return self.cloud / "instances"

    @property
    def store(self) -> Path:
        """The default store."""
        return self.home / ".local/share/imagefs"

    def run(self, *command: str | Path, check: bool = True, **options: Any) -> Result:
        """Runs a program; fails the test with its output when it fails, unless told not to."""
        options = {"timeout": PATIENCE, "cwd": self.home, "stdin": subprocess.DEVNULL, **options}
        if "input" in options:
            del options["stdin"]
        result = subprocess.run(
            [*self.prefix, *map(str, command)],
            env=dict(self.environment),
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            **options,
        )
        if check and result.returncode != 0:
            shown = " ".join(map(str, command))
            raise AssertionError(
                f"{shown} ended with {result.returncode}\n{result.stdout}\n{result.stderr}"
            )
        return result

    def shell(self, script: str, **options: Any) -> Result:
        return self.run("bash", "-euc", script, **options)

    def imagefs(self, *arguments: str | Path, check: bool = True, **options: Any) -> Result:
        """The command, the way a stranger starts it."""
        return self.run(self.checkout / "tools/imagefs", *arguments, check=check, **options)

    def imagefs_json(self, *arguments: str | Path) -> Any:
        return json.loads(self.imagefs(*arguments, "--json").stdout)

    def digest(self, image: str) -> str:
        """The digest as the tree shows it."""
        return self.information(self.images / image, "digest")

    def information(self, path: Path, name: str) -> str:
        command = ("getfattr", "--absolute-names", "--only-values", "-n", f"user.imagefs.{name}")
        return self.run(*command, path).stdout

    def mount(self, *options: str) -> None:
        self.imagefs("mount", self.cloud, *options)
        assert self.cloud in fuse_mounts(), "mount came back and nothing is mounted"

    def unmount(self) -> None:
        self.imagefs("umount", self.cloud)
        assert self.cloud not in fuse_mounts(), "umount came back and it is still mounted"

    def remount(self) -> None:
        self.unmount()
        self.mount()

    def daemons(self) -> list[int]:
        """The processes that serve this home's mounts."""
        wanted = os.fsencode(self.home)
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                if b"imagefs.daemon" in command and wanted in command:
                    found.append(int(folder.name))
        return sorted(found)

    def kill_daemon(self) -> None:
        """Ends the daemon the hard way and waits until it is gone."""
        pids = self.daemons()
        assert pids, "no daemon to kill"
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.daemons(), "the killed daemon to be gone")

    def verify(self) -> None:
        """Everything in the default store is present and good."""
        verified = self.imagefs("verify", "--json", check=False)
        assert (verified.returncode, verified.stdout) == (0, "[]\n"), verified

    def manifest(self, tree: Path, *, accept: Accept | None = None) -> Manifest:
        """The manifest of a tree as this person sees it."""
        if not self.prefix:
            return manifest(tree, accept=accept or (lambda _: True))
        assert accept is None, "a function cannot be sent to another process"
        read = self.run("python3", "-m", "tests.acceptance.manifest", tree, cwd=self.checkout)
        return Manifest.from_json(read.stdout)

    def logs(self) -> list[Path]:
        """The log files below this home, without walking into mounts."""
        return list(files_outside_mounts(self.home, ".log"))


def files_outside_mounts(folder: Path, suffix: str) -> Iterator[Path]:
    mounts = set(fuse_mounts_below(folder))
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if Path(top, name) not in mounts]
        yield from (Path(top, name) for name in names if name.endswith(suffix))


def wait_until(condition: Any, what: str, patience: float = 30.0) -> None:
    """Waits for something another process does; fails after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"Waited {patience} s in vain for {what}"
        time.sleep(0.005)
