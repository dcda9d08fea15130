"""A disk that notes every change of a directory in one log, SQLite's included, and can fail.

The log is the truth of `power_loss`; a `Fault` makes the N-th call of its kind fail. What is
counted and noted is what reaches the host: one call of `Disk`, or one call of SQLite's VFS.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from imagefs.disk import Disk, failure
from tests.durability import sqlite_files
from tests.durability.sqlite_files import Refused

T = TypeVar("T")


class Create(NamedTuple):
    """A new empty file."""

    path: str
    node: int


class Write(NamedTuple):
    node: int
    offset: int
    data: bytes


class Resize(NamedTuple):
    node: int
    size: int


class Punch(NamedTuple):
    node: int
    offset: int
    length: int


class Sync(NamedTuple):
    node: int


class WriteDurably(NamedTuple):
    """A write that waits until its bytes are on the disk."""

    node: int
    offset: int
    data: bytes


class MakeDirectory(NamedTuple):
    path: str


class RemoveDirectory(NamedTuple):
    path: str


class Remove(NamedTuple):
    path: str


class Rename(NamedTuple):
    old: str
    new: str


class SyncDirectory(NamedTuple):
    path: str


class SyncEverything(NamedTuple):
    """sync(2), or a syncfs(2) of the file system that the store lies on."""


Operation = (
    Create | Write | WriteDurably | Resize | Punch | Sync | MakeDirectory | RemoveDirectory | Remove | Rename
    | SyncDirectory | SyncEverything
)  # fmt: skip

READ, WRITE, SPACE, OTHER = "read", "write", "space", "other"
"""Kinds of calls: WRITE and SPACE may find no room, only WRITE can be done by half."""


class Fault:
    """The N-th call that can fail in this way does; with `forever`, all behind it, too.

    `short` lets a write do half of its work first. `hit` counts the calls that failed.
    """

    def __init__(self, at: int, code: int, *, short: bool = False, forever: bool = False) -> None:
        self.at = at
        self.code = code
        self.short = short
        self.forever = forever
        self.seen = 0
        self.hit = 0
        self.where = ""

    def __repr__(self) -> str:
        kind = "short write, " if self.short else ""
        more = " and all behind it" if self.forever else ""
        return f"<{kind}{errno.errorcode[self.code]} at call {self.at}{more}: {self.where}>"

    def strikes(self, kind: str, what: str) -> bool:
        """Whether this call fails."""
        if self.short and kind != WRITE:
            return False
        if self.code == errno.ENOSPC and kind not in (WRITE, SPACE):
            return False
        self.seen += 1
        if self.seen == self.at or (self.forever and self.seen > self.at):
            self.hit += 1
            self.where = self.where or what
            return True
        return False


class RecordingDisk(Disk):
    """The disk below one directory. Calls are made one at a time, so the log has their order."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.log: list[Operation] = []
        self.fault: Fault | None = None
        self.recording = True
        self._guard = threading.RLock()
        self._nodes: dict[str, int] = {}
        self._open: dict[int, int] = {}
        self._next = 0
        for directory, _, names in os.walk(root):
            for name in names:
                self._node(os.path.join(directory, name))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Notes what SQLite does, too."""
        sqlite_files.watch(Path(self.root), self)
        try:
            yield
        finally:
            sqlite_files.unwatch(Path(self.root))

    def sync_everything(self) -> None:
        """Somebody calls sync(2)."""
        with self._guard:
            self._note(SyncEverything())

    def nodes(self) -> dict[str, int]:
        """The files there are, by path."""
        return dict(self._nodes)

    def _node(self, path: str) -> int:
        if path not in self._nodes:
            self._next += 1
            self._nodes[path] = self._next
        return self._nodes[path]

    def _note(self, operation: Operation) -> None:
        if self.recording:
            self.log.append(operation)

    def _strikes(self, kind: str, what: str) -> bool:
        return self.fault is not None and self.fault.strikes(kind, what)

    def _call(self, kind: str, method: str, where: int | str | Path, make: Callable[[], T]) -> T:
        """Make a call unless it is to fail."""
        with self._guard:
            name = os.path.basename(str(where)) if not isinstance(where, int) else str(where)
            if self._strikes(kind, f"{method} {name}"):
                assert self.fault is not None
                error = OSError(self.fault.code, os.strerror(self.fault.code))
                raise failure(error, where) from error
            return make()

    # -- open files ---------------------------------------------------------------------

    def open(self, path: str | Path, flags: int, mode: int = 0o600) -> int:
        name = str(path)
        kind = SPACE if flags & os.O_CREAT and name not in self._nodes else OTHER

        def make() -> int:
            fd = Disk.open(self, path, flags, mode)
            if not flags & os.O_DIRECTORY:
                self._opened(name, creates=bool(flags & os.O_CREAT))
                self._open[fd] = self._nodes[name]
                if flags & os.O_TRUNC:
                    self._note(Resize(self._nodes[name], 0))
            return fd

        return self._call(kind, "open", path, make)

    def _opened(self, path: str, *, creates: bool) -> int:
        known = path in self._nodes
        node = self._node(path)
        if creates and not known:
            self._note(Create(path, node))
        return node

    def close(self, fd: int) -> None:
        with self._guard:
            self._open.pop(fd, None)
            super().close(fd)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return self._call(READ, "pread", fd, lambda: Disk.pread(self, fd, size, offset))

    def pread_nowait(self, fd: int, size: int, offset: int) -> bytes | None:
        return self._call(READ, "pread", fd, lambda: Disk.pread_nowait(self, fd, size, offset))

    def pwrite(self, fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
        with self._guard:
            plain = bytes(data)
            if self._strikes(WRITE, f"pwrite {fd}"):
                assert self.fault is not None
                if self.fault.short:
                    self._write(fd, plain[: len(plain) // 2], offset)
                error = OSError(self.fault.code, os.strerror(self.fault.code))
                raise failure(error, fd) from error
            self._write(fd, plain, offset)

    def _write(self, fd: int, data: bytes, offset: int) -> None:
        Disk.pwrite(self, fd, data, offset)
        self._note(Write(self._open[fd], offset, data))

    def pwrite_durably(self, fd: int, data: bytes, offset: int) -> None:
        with self._guard:
            self.pwrite(fd, data, offset)
            if self.recording:
                self.log[-1] = WriteDurably(self._open[fd], offset, data)

    def pwritev(self, fd: int, parts: Sequence[bytes], offset: int) -> None:
        self.pwrite(fd, b"".join(parts), offset)

    def truncate(self, fd: int, size: int) -> None:
        def make() -> None:
            Disk.truncate(self, fd, size)
            self._note(Resize(self._open[fd], size))

        self._call(OTHER, "truncate", fd, make)

    def allocate(self, fd: int, size: int) -> None:
        def make() -> None:
            Disk.truncate(self, fd, size)
            self._note(Resize(self._open[fd], size))

        self._call(SPACE, "allocate", fd, make)

    def punch_hole(self, fd: int, offset: int, length: int) -> None:
        def make() -> None:
            Disk.punch_hole(self, fd, offset, length)
            self._note(Punch(self._open[fd], offset, length))

        self._call(OTHER, "punch_hole", fd, make)

    def fdatasync(self, fd: int) -> None:
        def make() -> None:
            Disk.fdatasync(self, fd)
            self._note(Sync(self._open[fd]))

        self._call(SPACE, "fdatasync", fd, make)

    def fsync_dir(self, path: str | Path) -> None:
        def make() -> None:
            Disk.fsync_dir(self, path)
            self._note(SyncDirectory(str(path)))

        self._call(SPACE, "fsync_dir", path, make)

    # -- names --------------------------------------------------------------------------

    def mkdir(self, path: str | Path, mode: int = 0o700) -> None:
        def make() -> None:
            Disk.mkdir(self, path, mode)
            self._note(MakeDirectory(str(path)))

        self._call(SPACE, "mkdir", path, make)

    def rmdir(self, path: str | Path) -> None:
        def make() -> None:
            Disk.rmdir(self, path)
            self._note(RemoveDirectory(str(path)))

        self._call(OTHER, "rmdir", path, make)

    def unlink(self, path: str | Path) -> None:
        def make() -> None:
            Disk.unlink(self, path)
            self._note(Remove(str(path)))
            self._nodes.pop(str(path), None)

        self._call(OTHER, "unlink", path, make)

    def rename(self, old: str | Path, new: str | Path) -> None:
        def make() -> None:
            Disk.rename(self, old, new)
            self._note(Rename(str(old), str(new)))
            self._nodes[str(new)] = self._nodes.pop(str(old))

        self._call(SPACE, "rename", new, make)

    def listdir(self, path: str | Path) -> list[str]:
        return self._call(READ, "listdir", path, lambda: Disk.listdir(self, path))

    def _status(self, path: str | Path) -> os.stat_result | None:
        return self._call(READ, "stat", path, lambda: Disk._status(self, path))

    # -- SQLite -------------------------------------------------------------------------

    def _sqlite(
        self, kind: str, what: str, codes: dict[int, int], make: Callable[[], None]
    ) -> None:
        with self._guard:
            if self._strikes(kind, what):
                assert self.fault is not None
                raise Refused(codes[self.fault.code])
            make()

    def sqlite_open(self, path: str, creates: bool, make: Callable[[], None]) -> int:
        kind = SPACE if creates and path not in self._nodes else OTHER
        codes = dict.fromkeys((errno.EIO, errno.ENOSPC), sqlite_files.CANTOPEN)
        with self._guard:
            self._sqlite(kind, f"open {os.path.basename(path)}", codes, make)
            return self._opened(path, creates=creates)

    def sqlite_read(self, node: int, make: Callable[[], None]) -> None:
        codes = {errno.EIO: sqlite_files.IOERR_READ}
        self._sqlite(READ, f"read {self._name(node)}", codes, make)

    def sqlite_write(
        self, node: int, offset: int, data: bytes, make: Callable[[int], None]
    ) -> None:
        codes = {errno.EIO: sqlite_files.IOERR_WRITE, errno.ENOSPC: sqlite_files.FULL}
        with self._guard:
            short = False
            if self._strikes(WRITE, f"write {self._name(node)}"):
                assert self.fault is not None
                if not self.fault.short:
                    raise Refused(codes[self.fault.code])
                short, data = True, data[: len(data) // 2]
            make(len(data))
            self._note(Write(node, offset, data))
            if short:
                assert self.fault is not None
                raise Refused(codes[self.fault.code])

    def sqlite_truncate(self, node: int, size: int, make: Callable[[], None]) -> None:
        def noted() -> None:
            make()
            self._note(Resize(node, size))

        codes = {errno.EIO: sqlite_files.IOERR_TRUNCATE}
        self._sqlite(OTHER, f"truncate {self._name(node)}", codes, noted)

    def sqlite_sync(self, node: int, directory: str | None, make: Callable[[], None]) -> None:
        def noted() -> None:
            make()
            self._note(Sync(node))
            if directory is not None:
                self._note(SyncDirectory(directory))

        codes = dict.fromkeys((errno.EIO, errno.ENOSPC), sqlite_files.IOERR_FSYNC)
        self._sqlite(SPACE, f"sync {self._name(node)}", codes, noted)

    def sqlite_delete(self, path: str, synced: bool, make: Callable[[], None]) -> None:
        def noted() -> None:
            make()
            self._note(Remove(path))
            self._nodes.pop(path, None)
            if synced:
                self._note(SyncDirectory(os.path.dirname(path)))

        codes = {errno.EIO: sqlite_files.IOERR_DELETE}
        self._sqlite(OTHER, f"delete {os.path.basename(path)}", codes, noted)

    def sqlite_map(self, make: Callable[[], None]) -> None:
        codes = {errno.EIO: sqlite_files.IOERR_SHMMAP, errno.ENOSPC: sqlite_files.IOERR_SHMSIZE}
        self._sqlite(SPACE, "map shared memory", codes, make)

    def _name(self, node: int) -> str:
        for path, number in self._nodes.items():
            if number == node:
                return os.path.basename(path)
        return f"file {node}"
