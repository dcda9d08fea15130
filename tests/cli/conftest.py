"""The command as programs start it, with a home and a store of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.mounts import detach_below

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 20.0
Result = subprocess.CompletedProcess[str]


class Shell:
    """Runs imagefs as whoever runs the tests."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = home / ".local/share/imagefs"
        self.mountpoint = home / "cloud"
        self.environment = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error",
        }

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "imagefs", *map(str, arguments)]

    def run(self, *arguments: str | Path, **environment: str) -> Result:
        return subprocess.run(
            self.command(*arguments),
            env={**self.environment, **environment},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def __call__(self, *arguments: str | Path) -> str:
        """Standard output of a command that must succeed, and say nothing else."""
        result = self.run(*arguments)
        assert (result.returncode, result.stderr) == (0, ""), result
        return result.stdout

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self(*arguments, "--json"))

    def refused(self, *arguments: str | Path, code: int = 4) -> str:
        """The one line in which a command says why it failed."""
        result = self.run(*arguments)
        assert (result.returncode, result.stdout) == (code, ""), result
        assert result.stderr.startswith("imagefs: ")
        assert result.stderr.count("\n") == 1
        return result.stderr.removeprefix("imagefs: ").rstrip("\n")

    def mount(self, *options: str | Path) -> None:
        assert self("mount", self.mountpoint, *options) == ""
        assert self.mountpoint.is_mount()

    def unmount(self) -> None:
        assert self("umount", self.mountpoint) == ""
        assert not self.mountpoint.is_mount()

    @property
    def pid(self) -> int:
        return int(os.getxattr(self.mountpoint, "user.imagefs.process"))

    def kill(self, number: signal.Signals) -> None:
        """Send the daemon a signal that ends it, and wait for its end."""
        process = os.pidfd_open(self.pid)
        signal.pidfd_send_signal(process, number)
        wait_for_end(process)

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted((self.store / "log").glob("*.log")))


def wait_for_end(process: int) -> None:
    """Waits until the process of a descriptor is gone."""
    ended, _, _ = select.select([process], [], [], PATIENCE)
    assert ended, "the daemon did not end"
    os.close(process)


@pytest.fixture
def shell(own_home: Path) -> Iterator[Shell]:
    own_home.mkdir(parents=True)
    shell = Shell(own_home)
    yield shell
    detach_below(own_home)
    for alarm in ("Traceback", "ERROR", "WARNING"):
        assert alarm not in shell.log()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small tree to import."""
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    (source / "folder/file").write_text("content\n")
    (source / "link").symlink_to("folder/file")
    return source
