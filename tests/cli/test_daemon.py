"""The daemon's parts that need no mount: locks, the log, what it does on its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagefs.cli import text
from imagefs.daemon.lock import AccountLock
from imagefs.errors import Busy
from tests.acceptance.person import wait_until
from tests.cli.conftest import ROOT, Shell


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    with AccountLock(tmp_path, "me") as lock:
        lock.take("/mnt/cloud", "/run/socket")
        with AccountLock(tmp_path, "me") as other:
            assert not other.try_take()
            with pytest.raises(Busy, match=f"/mnt/cloud.*{os.getpid()}"):
                other.take()
        with AccountLock(tmp_path, "you") as another:
            another.take()
    with AccountLock(tmp_path, "me") as lock:
        lock.take()
        with (
            AccountLock(tmp_path, "me") as other,
            pytest.raises(Busy, match="another command"),
        ):
            other.take()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    script = (
        "import sys, os, pathlib\n"
        "from imagefs.daemon.lock import AccountLock\n"
        "AccountLock(pathlib.Path(sys.argv[1]), 'me').take('/mnt', None)\n"
        "os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, check=False)
    with AccountLock(tmp_path, "me") as lock:
        assert lock.holder() is not None
        lock.take()


def test_the_log_is_limited_and_takes_standard_error_along(tmp_path: Path) -> None:
    script = (
        "import sys, os, logging, pathlib\n"
        "from imagefs.daemon import log\n"
        "log.to_file(pathlib.Path(sys.argv[1]))\n"
        "for number in range(40_000):\n"
        "    logging.info('%s %s', number, 'x' * 100)\n"
        "os.write(2, b'last words')\n"
    )
    path = tmp_path / "log/me.log"
    command = [sys.executable, "-c", script, str(path)]
    subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, check=True)
    assert len(list(path.parent.iterdir())) == 3
    assert sum(file.stat().st_size for file in path.parent.iterdir()) < 3 * 1024 * 1024 + 1000
    assert path.read_text().endswith("last words")


@pytest.mark.mount
def test_time_seals_a_draft_that_nobody_writes_to(shell: Shell) -> None:
    shell.mount("--seal-after", "0.1")
    path = shell.mountpoint / "images/draft"
    path.mkdir()
    (path / "file").write_text("x")
    wait_until(lambda: os.getxattr(path, "user.imagefs.state") == b"sealed", "the seal")


def test_sizes_for_people() -> None:
    assert [text.size(n) for n in (None, 0, 1023, 1024, 10240, 206 << 20, 5 << 60)] == [
        "-", "0 B", "1023 B", "1.0 KiB", "10 KiB", "206 MiB", "5.0 EiB",
    ]  # fmt: skip


def test_columns_are_aligned() -> None:
    lines = text.columns(["NAME", "SIZE"], [["a", "10 B"], ["longer", "9 B"]], right="SIZE")
    assert lines == ["NAME    SIZE", "a       10 B", "longer   9 B"]
    lines = text.columns(["NAME", "SIZE"], [["日本", "1 B"], ["e\u0301", "2 B"], ["long", "3 B"]])
    assert lines == ["NAME  SIZE", "日本  1 B", "e\u0301     2 B", "long  3 B"]
