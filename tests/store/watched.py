"""A disk that records its calls and fails on demand."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from imagefs.disk import Disk
from imagefs.errors import IOFailure


class WatchedDisk(Disk):
    """A real disk that notes every call as (method, file name) and can fail the N-th change.

    `in_memory` False makes `pread_nowait` say that nothing is in the page cache.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.in_memory = True
        self.fail_at: int | None = None
        self.error: Callable[[str], Exception] = IOFailure
        self.before_pread: Callable[[], None] = lambda: None
        self._changes = 0
        self._guard = threading.Lock()

    @property
    def changes(self) -> int:
        return self._changes

    def names(self, method: str) -> list[str]:
        return [name for call, name in self.calls if call == method]

    def _note(self, method: str, where: int | str | Path) -> None:
        path = os.readlink(f"/proc/self/fd/{where}") if isinstance(where, int) else str(where)
        with self._guard:
            self.calls.append((method, Path(path).name))

    def _change(self, method: str, where: int | str | Path) -> None:
        self._note(method, where)
        with self._guard:
            self._changes += 1
            if self._changes == self.fail_at:
                raise self.error(f"Change {self._changes}, {method}, fails")

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        self._note("pread", fd)
        self.before_pread()
        return super().pread(fd, size, offset)

    def pread_nowait(self, fd: int, size: int, offset: int) -> bytes | None:
        self._note("pread_nowait", fd)
        return super().pread_nowait(fd, size, offset) if self.in_memory else None

    def pwrite(self, fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
        self._change("pwrite", fd)
        super().pwrite(fd, data, offset)

    def pwritev(self, fd: int, parts: Sequence[bytes], offset: int) -> None:
        self._change("pwritev", fd)
        super().pwritev(fd, parts, offset)

    def truncate(self, fd: int, size: int) -> None:
        self._change("truncate", fd)
        super().truncate(fd, size)

    def fdatasync(self, fd: int) -> None:
        self._change("fdatasync", fd)
        super().fdatasync(fd)

    def fsync_dir(self, path: str | Path) -> None:
        self._change("fsync_dir", path)
        super().fsync_dir(path)

    def mkdir(self, path: str | Path, mode: int = 0o700) -> None:
        self._change("mkdir", path)
        super().mkdir(path, mode)

    def rename(self, old: str | Path, new: str | Path) -> None:
        self._change("rename", new)
        super().rename(old, new)

    def rename_new(self, old: str | Path, new: str | Path) -> None:
        self._change("rename_new", new)
        super().rename_new(old, new)

    def unlink(self, path: str | Path) -> None:
        self._change("unlink", path)
        super().unlink(path)
