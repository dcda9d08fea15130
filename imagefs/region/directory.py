"""Objects in a directory of this machine: a disk, a stick, or what is mounted from elsewhere.

Not obstore's local store: that one syncs nothing to the disk and follows symlinks to anywhere. Here what
was written is on the disk when the call returns, appears whole or not at all, and nothing outside of the
directory is read, listed or written, whatever lies in it.

An object is a file with its key as path. Files are made in `.unfinished` and renamed; names that begin
with a dot are no objects. Whoever fails in between leaves a file there, which goes after a day.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from imagefs.disk import Disk
from imagefs.errors import (
    AccessDenied,
    Corrupt,
    Exists,
    IOFailure,
    NameTooLong,
    NotADirectory,
    NotFound,
    PlaceGone,
)
from imagefs.region.listed import Listed

_UNFINISHED = ".unfinished"
_DAY_NS = 86_400 * 10**9
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK

Listing = list[Listed]


class Directory:
    """Thread-safe; methods block. `label` is how messages call the region."""

    retries = 0

    def __init__(self, root: str, label: str, disk: Disk) -> None:
        self._root = root
        self._label = label
        self._disk = disk
        self._tidied = False

    def prepare(self) -> None:
        """Makes the directory where its parent is there."""
        with self._translated(self._root):
            if self._disk.is_directory(self._root):
                return
            parent = os.path.dirname(self._root)
            if not self._disk.is_directory(parent):
                raise NotFound(f"{self._label} cannot be made: {parent} is no directory")
            try:
                self._make_directory(self._root)
            except FileExistsError:
                raise NotADirectory(f"{self._label} is no directory: {self._root}") from None

    def close(self) -> None:
        """Nothing stays open between calls."""

    # -- reading ------------------------------------------------------------------------

    def list(self, prefix: str) -> Listing:
        root = self._real_root()
        start = f"{root}/{prefix}".rstrip("/")
        found: Listing = []
        if not prefix or self._stays_inside(start, root):
            self._walk(start, prefix if not prefix or prefix.endswith("/") else f"{prefix}/", found)
        return sorted(found, key=lambda listed: listed.key)

    def _walk(self, path: str, prefix: str, found: Listing) -> None:
        waiting = [(path, prefix)]
        while waiting:
            path, prefix = waiting.pop()
            try:
                with self._translated(path):
                    entries = self._disk.entries(path)
            except NotFound:
                continue
            for entry in entries:
                if entry.name.startswith(".") or not _is_text(entry.name):
                    continue
                if entry.kind == stat.S_IFDIR:
                    waiting.append((f"{path}/{entry.name}", f"{prefix}{entry.name}/"))
                elif entry.kind == stat.S_IFREG:
                    found.append(Listed(f"{prefix}{entry.name}", entry.size, entry.modified))

    def get(self, key: str, limit: int) -> bytes:
        with self._opened(key) as (fd, size):
            if size > limit:
                raise Corrupt(f"{key} in {self._label} is larger than {limit} bytes")
            return self._disk.pread(fd, size, 0)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        with self._opened(key) as (fd, _):
            return self._disk.pread(fd, length, start)

    def head(self, key: str) -> Listed | None:
        try:
            with self._opened(key) as (fd, size):
                return Listed(key, size, self._disk.entry(fd).modified)
        except NotFound:
            self._real_root()
            return None

    # -- writing ------------------------------------------------------------------------

    def put(self, key: str, data: bytes) -> None:
        with self._written(key, data) as (temporary, path):
            self._disk.rename(temporary, path)

    def create(self, key: str, data: bytes) -> None:
        with self._written(key, data) as (temporary, path):
            try:
                self._disk.rename_new(temporary, path)
            except FileExistsError:
                raise Exists(f"{key} is in {self._label} already") from None

    def delete(self, key: str) -> None:
        path = self._path(key, self._real_root())
        if path is None:
            return
        with self._translated(key):
            try:
                self._disk.unlink(path)
            except FileNotFoundError:
                return
            self._disk.fsync_dir(os.path.dirname(path))

    @contextmanager
    def _written(self, key: str, data: bytes) -> Iterator[tuple[str, str]]:
        """The paths of a file that holds `data` durably, and of what it is to be."""
        root = self._real_root()
        path = f"{root}/{key}"
        with self._translated(key):
            self._make_parents(key, root)
            self._make_directory(f"{root}/{_UNFINISHED}")
            temporary = f"{root}/{_UNFINISHED}/{secrets.token_hex(16)}"
            fd = self._disk.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                try:
                    self._disk.pwrite(fd, data, 0)
                    self._disk.fdatasync(fd)
                    now = self._disk.entry(fd).modified
                finally:
                    self._disk.close(fd)
                yield temporary, path
            except BaseException:
                self._forget(temporary)
                raise
            self._disk.fsync_dir(os.path.dirname(path))
            self._tidy(f"{root}/{_UNFINISHED}", now)

    def _forget(self, temporary: str) -> None:
        try:
            self._disk.unlink(temporary)
        except FileNotFoundError:
            return

    def _make_parents(self, key: str, root: str) -> None:
        path = root
        for name in key.split("/")[:-1]:
            path = f"{path}/{name}"
            self._make_directory(path)
        if not self._stays_inside(path, root):
            raise Corrupt(f"{key} in {self._label} is behind a symlink")

    def _make_directory(self, path: str) -> None:
        if self._disk.is_directory(path):
            return
        try:
            self._disk.mkdir(path, 0o777)
        except FileExistsError:
            if not self._disk.is_directory(path):
                raise
            return
        self._disk.fsync_dir(os.path.dirname(path))

    def _tidy(self, unfinished: str, now: int) -> None:
        """Removes what was left behind a day before `now`, a time by the file system's clock."""
        if self._tidied:
            return
        self._tidied = True
        for entry in self._disk.entries(unfinished):
            if entry.modified < now - _DAY_NS:
                self._forget(f"{unfinished}/{entry.name}")

    # -- paths --------------------------------------------------------------------------

    def _real_root(self) -> str:
        """The directory, which must be there: a stick that is not mounted is no empty region."""
        with self._translated(self._root):
            if not self._disk.is_directory(self._root):
                raise PlaceGone(f"{self._label} is not there: {self._root} is no directory")
            return self._disk.real_path(self._root)

    def _stays_inside(self, path: str, root: str) -> bool:
        """Whether a path below the root has no symlink in it."""
        return self._disk.real_path(path) == path and (path == root or path.startswith(f"{root}/"))

    def _path(self, key: str, root: str) -> str | None:
        """Where an object is, if it is; None where a symlink stands in the way."""
        path = f"{root}/{key}"
        return path if self._stays_inside(os.path.dirname(path), root) else None

    @contextmanager
    def _opened(self, key: str) -> Iterator[tuple[int, int]]:
        """Descriptor and size of an object."""
        path = self._path(key, self._real_root())
        if path is None:
            raise NotFound(f"{self._label} has no {key}")
        with self._translated(key):
            fd = self._disk.open(path, _READ)
            try:
                entry = self._disk.entry(fd)
                if entry.kind != stat.S_IFREG:
                    raise NotFound(f"{self._label} has no {key}")
                yield fd, entry.size
            finally:
                self._disk.close(fd)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        """Errors of the disk as those of a region."""
        try:
            yield
        except FileNotFoundError:
            raise NotFound(f"{self._label} has no {key}") from None
        except FileExistsError:
            raise NotADirectory(f"{key} in {self._label} is below what is no directory") from None
        except IOFailure as error:
            cause = error.__cause__
            if isinstance(cause, OSError):
                self._raise_known(cause, key)
            raise
        except OSError as error:
            self._raise_known(error, key)
            raise IOFailure(f"{self._label} failed at {key}: {error.strerror}") from error

    def _raise_known(self, error: OSError, key: str) -> None:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            message = f"{self._label} cannot be used as wanted: {key}: {error.strerror}"
            raise AccessDenied(message) from error
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NotFound(f"{self._label} has no {key}") from error
        if error.errno == errno.ENAMETOOLONG:
            raise NameTooLong(f"{key} is too long a name for {self._label}") from error


def _is_text(name: str) -> bool:
    """Whether a file's name can be part of a key."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
