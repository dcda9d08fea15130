"""What asks for durability through a mount has it when it returns: the daemon's own calls are
traced, and the sync is in the trace before the program's call comes back.

What happens in between by itself (the daemon syncs within seconds) can only add calls.
"""

import ctypes
import mmap
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.person import Person, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.root]

CALL = re.compile(r"(fsync|fdatasync)\(\d+<([^>]*)>|pwritev2\(\d+<([^>]*)>.*RWF_DSYNC")


class Trace:
    """The syncs of a daemon: strace writes each down before the daemon goes on."""

    def __init__(self, pid: int, output: Path) -> None:
        self._output = output
        self._read = 0
        command = ["strace", "-f", "-y", "-s", "0", "-e", "trace=fsync,fdatasync,pwritev2"]
        self._process = subprocess.Popen(
            [*command, "-o", str(output), "-p", str(pid)], stderr=subprocess.DEVNULL
        )
        threads = Path(f"/proc/{pid}/task")

        def attached() -> bool:
            return all(
                "TracerPid:\t0\n" not in (thread / "status").read_text()
                for thread in threads.iterdir()
            )

        wait_until(attached, "strace to follow the daemon")

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()

    def new(self) -> list[str]:
        """Names of the files and directories synced since this was last asked, in order."""
        if not self._output.exists():
            return []
        with open(self._output, encoding="utf-8", errors="replace") as file:
            file.seek(self._read)
            lines = file.read()
            self._read = file.tell()
        found = [match for match in map(CALL.search, lines.splitlines()) if match]
        return [Path(match[2] or match[3]).name for match in found]


@pytest.fixture
def trace(root: Person, tmp_path: Path) -> Iterator[Trace]:
    """A traced daemon with an image `base` and an instance `base/node` in its mount."""
    root.mount("--seal-after", "0")
    (root.images / "base").mkdir()
    (root.images / "base/file").write_bytes(b"content " * 1000)
    root.imagefs("seal", "base")
    (root.instances / "base/node").mkdir()
    traced = Trace(root.daemons()[0], tmp_path / "trace")
    yield traced
    traced.end()


def synced(trace: Trace, do: Callable[[], object]) -> list[str]:
    """What was synced when this returned."""
    trace.new()
    do()
    return trace.new()


def test_fsync_of_files_and_directories(root: Person, trace: Trace) -> None:
    node = root.instances / "base/node"
    with open(node / "new", "wb", buffering=0) as file:
        file.write(b"x" * 5000)
        first = synced(trace, lambda: os.fsync(file.fileno()))
        # The instance's row, its content, its names, and the names of all that.
        assert {"catalog.db-wal", "heap", "meta.db-wal", "overlays"} <= set(first)
        assert first.index("catalog.db-wal") < first.index("heap") < first.index("meta.db-wal")
        file.write(b"y")
        assert "heap" in synced(trace, lambda: os.fdatasync(file.fileno()))

    def make_and_sync() -> None:
        (node / "directory").mkdir()
        sync_directory(node)

    assert "meta.db-wal" in synced(trace, make_and_sync)


def test_fsync_above_the_trees(root: Person, trace: Trace) -> None:
    def clone_and_sync() -> None:
        (root.instances / "base/other").mkdir()
        sync_directory(root.instances / "base")

    assert "catalog.db-wal" in synced(trace, clone_and_sync)


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC, os.O_SYNC | os.O_DIRECT])
def test_every_write_to_a_file_opened_for_it(root: Person, trace: Trace, flag: int) -> None:
    file = os.open(root.instances / "base/node/new", os.O_WRONLY | os.O_CREAT | flag, 0o600)
    page = mmap.mmap(-1, 4096)  # O_DIRECT takes aligned memory
    page.write(b"z" * 4096)
    for _ in range(3):
        found = synced(trace, lambda: os.writev(file, [page]))
        assert {"heap", "meta.db-wal"} <= set(found)
    os.close(file)


def test_msync_of_a_mapped_file(root: Person, trace: Trace) -> None:
    with open(root.instances / "base/node/file", "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
        mapped[100:104] = b"abcd"
        assert {"heap", "meta.db-wal"} <= set(synced(trace, mapped.flush))
        mapped.close()


def test_what_moves_in_the_heap_is_copied_durably(root: Person, trace: Trace) -> None:
    def append() -> None:
        with open(root.instances / "base/node/file", "ab", buffering=0) as file:
            file.write(b"more")

    assert "heap" in synced(trace, append)


def test_sealing_commit_moving_and_commands(root: Person, trace: Trace) -> None:
    (root.images / "draft").mkdir()
    (root.images / "draft/new").write_bytes(b"never stored before")
    found = synced(trace, lambda: (root.images / "draft").chmod(0o555))
    assert found.index("00000001.pack") < found.index("catalog.db-wal")
    (root.instances / "base/node/new").write_bytes(b"other content")
    found = synced(trace, lambda: root.imagefs("commit", "base/node", "committed"))
    assert found.index("00000001.pack") < found.index("catalog.db-wal")
    (root.instances / "base/node/new").write_bytes(b"yet other content")
    found = synced(trace, lambda: (root.instances / "base/node").rename(root.images / "moved"))
    assert found.index("00000001.pack") < found.index("catalog.db-wal")
    for command in (
        ["clone", "base", "a", "b"], ["reset", "base/a"], ["rm", "base/b"], ["undelete", "base/b"],
    ):  # fmt: skip
        assert "catalog.db-wal" in synced(trace, lambda: root.imagefs(*command)), command  # noqa: B023


def test_everything_else_within_seconds(root: Person, trace: Trace) -> None:
    """The kernel does not tell of syncfs(2): what it hands over is durable a little later."""
    (root.instances / "base/node/new").write_bytes(b"nobody syncs this")
    directory = os.open(root.instances, os.O_RDONLY)
    assert ctypes.CDLL(None, use_errno=True).syncfs(directory) == 0
    os.close(directory)
    found: list[str] = []

    def is_synced() -> bool:
        found.extend(trace.new())
        return {"catalog.db-wal", "heap", "meta.db-wal"} <= set(found)

    wait_until(is_synced, "the daemon to sync by itself", patience=60.0)


def sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.close(directory)
