"""Windows of packs on the local disk, so that nothing is fetched twice.

A window is a file, `PACKHEX/OFFSET`: some whole records in a row. It is written under another
name and renamed, without a sync: a file that a crash tore, that somebody damaged or removed is
noticed by who reads a record from it, and fetched anew. What was used longest ago goes first.
Several processes share the directory; every method may be called from any thread.
"""

from __future__ import annotations

import heapq
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from imagefs.disk import Disk
from imagefs.errors import ImagefsError, IOFailure, NoSpace

log = logging.getLogger(__name__)

_SMALLEST: Final = 1024 * 1024 * 1024
_PART_OF_DISK: Final = 10
_KEPT: Final = 7 / 8
"""What part of the bound is kept when it was exceeded."""
_BETWEEN_SWEEPS: Final = 1 / 16
"""What part of the bound one process writes before it looks at what all have written."""
_AT_ONCE: Final = 65536
"""Files that a sweep holds in memory."""
_MOST_SWEEPS: Final = 100
_LEFTOVER: Final = 3600 * 10**9
"""Age in ns at which a file that was not renamed is nobody's any more."""


class WindowKey(NamedTuple):
    """A window: the id of its pack, and where in it the window begins."""

    pack: bytes
    offset: int


class CacheStatistics(msgspec.Struct, frozen=True):
    """What this process read, wrote and removed, in windows; `bytes` it wrote."""

    hits: int
    misses: int
    puts: int
    bytes: int
    evictions: int


class _Found(NamedTuple):
    """A file of the cache; the oldest sorts first."""

    modified: int
    path: str
    size: int


class WindowCache:
    """The cache directory of one store. Reading never fails: what cannot be read is not there."""

    def __init__(self, directory: Path, disk: Disk, limit: int | None = None) -> None:
        """`limit` is about how many bytes all processes keep together; by default a tenth of the
        disk, at least 1 GiB. The directory is made when it is not there."""
        self.directory = directory
        self._disk = disk
        with suppress(FileExistsError):
            disk.mkdir(directory)
        if limit is None:
            space = disk.space(directory)
            limit = max(space.blocks * space.block_size // _PART_OF_DISK, _SMALLEST)
        self.limit = limit
        self._unseen = limit  # so that the first put looks
        self._lock = threading.Lock()
        self._sweeping = threading.Lock()
        self._hits = self._misses = self._puts = self._bytes = self._evictions = 0

    def __repr__(self) -> str:
        return f"<WindowCache {self.directory}: {self.statistics()}>"

    def statistics(self) -> CacheStatistics:
        return CacheStatistics(self._hits, self._misses, self._puts, self._bytes, self._evictions)

    # -- reading ------------------------------------------------------------------------

    def holds(self, key: WindowKey) -> bool:
        """Whether there is a file, good or not; takes some microseconds."""
        try:
            return self._disk.size_of(self._path(key)) is not None
        except IOFailure:
            return False

    def read(self, key: WindowKey, start: int, size: int) -> bytes | None:
        """Bytes of a window, counted from where it begins; None when they are not there."""
        data = self._read(key, lambda fd: self._disk.pread(fd, size, start))
        found = data is not None and len(data) == size
        with self._lock:
            self._hits += found
            self._misses += not found
        return data if found else None

    def read_nowait(self, key: WindowKey, start: int, size: int) -> bytes | None:
        """The same, or None, without waiting for the disk."""
        data = self._read(key, lambda fd: self._disk.pread_nowait(fd, size, start))
        return data if data is not None and len(data) == size else None

    def _read(self, key: WindowKey, read: Callable[[int], bytes | None]) -> bytes | None:
        try:
            fd = self._disk.open(self._path(key), os.O_RDONLY)
        except (FileNotFoundError, IOFailure):
            return None
        try:
            self._disk.touch(fd)
            return read(fd)
        except IOFailure as error:
            log.warning("A window of a region cannot be read and is fetched anew: %s", error)
            return None
        finally:
            self._disk.close(fd)

    # -- changing -----------------------------------------------------------------------

    def put(self, key: WindowKey, data: bytes) -> None:
        """Keeps a window if the disk has room for it."""
        try:
            self._write(key, data)
        except ImagefsError as error:
            log.warning("What was fetched from a region is not kept: %s", error)
            if isinstance(error, NoSpace):
                self._sweep(self.limit // 2)
            return
        except FileNotFoundError:
            return  # the directory went when another process made room
        with self._lock:
            self._puts += 1
            self._bytes += len(data)
            self._unseen += len(data)
            due = self._unseen >= max(self.limit * _BETWEEN_SWEEPS, len(data))
            if due:
                self._unseen = 0
        if due:
            self._sweep(self.limit)

    def _write(self, key: WindowKey, data: bytes) -> None:
        path = self._path(key)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            fd = self._disk.open(temporary, flags)
        except FileNotFoundError:
            with suppress(FileExistsError):
                self._disk.mkdir(path.parent)
            fd = self._disk.open(temporary, flags)
        try:
            try:
                self._disk.pwrite(fd, data, 0)
            finally:
                self._disk.close(fd)
            self._disk.rename(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                self._disk.unlink(temporary)
            raise

    def offsets(self, pack: bytes) -> list[int]:
        """The windows of a pack that are there, by where they begin."""
        try:
            files = self._disk.entries(self.directory / pack.hex())
        except (FileNotFoundError, IOFailure):
            return []
        return [int(file.name) for file in files if file.name.isdecimal()]

    def drop(self, key: WindowKey) -> None:
        """Removes a window that turned out to be bad."""
        self._remove(self._path(key))

    def clear(self) -> None:
        """Removes everything."""
        self._sweep(-1)

    def _remove(self, path: str | Path) -> None:
        try:
            self._disk.unlink(path)
        except FileNotFoundError:
            pass  # another process was faster
        except IOFailure as error:
            log.warning("A window of a region cannot be removed: %s", error)

    def _path(self, key: WindowKey) -> Path:
        return self.directory / key.pack.hex() / str(key.offset)

    # -- making room --------------------------------------------------------------------

    def _sweep(self, limit: int) -> None:
        """Removes what was used longest ago if all together exceeds `limit` bytes."""
        if not self._sweeping.acquire(blocking=False):
            return
        try:
            for _ in range(_MOST_SWEEPS):
                if not self._sweep_once(limit):
                    break
        except ImagefsError as error:
            log.warning("The cache of regions cannot be looked through: %s", error)
        finally:
            self._sweeping.release()

    def _sweep_once(self, limit: int) -> bool:
        """Looks through everything; True when there is still too much."""
        total = 0

        def counted() -> Iterator[_Found]:
            nonlocal total
            for found in self._files():
                total += found.size
                yield found

        oldest = heapq.nsmallest(_AT_ONCE, counted())
        if total <= limit or not oldest:
            return False
        for found in oldest:
            if total <= limit * _KEPT:
                break
            self._remove(found.path)
            total -= found.size
            with self._lock:
                self._evictions += 1
        for path in {os.path.dirname(found.path) for found in oldest}:
            with suppress(FileNotFoundError, IOFailure):  # most are not empty
                self._disk.rmdir(path)
        return total > max(limit, 0)

    def _files(self) -> Iterator[_Found]:
        now = time.time_ns()
        for name in self._disk.listdir(self.directory):
            path = f"{self.directory}/{name}"
            try:
                files = self._disk.entries(path)
            except (FileNotFoundError, IOFailure):
                continue  # another process was faster, or it is no directory
            for file in files:
                if file.name.isdecimal():
                    yield _Found(file.modified, f"{path}/{file.name}", file.size)
                elif now - file.modified > _LEFTOVER:
                    self._remove(f"{path}/{file.name}")
