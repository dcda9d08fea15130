"""Import: a directory of the host becomes a tree in the store.

One thread walks the source depth first and in canonical order, so a directory is stored
when its last entry is, and memory holds one page a level, the names of the directories that
are open, and the files that have several names. The store's own threads compress and write
meanwhile.

The source may change while it is read: what disappears is left out, what is replaced is
taken in one of its states, and the tree is consistent in itself.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator
from typing import Final

import msgspec

from imagefs.errors import Busy
from imagefs.format.directory import Entry
from imagefs.model import ObjectId
from imagefs.store import StoreWriter
from imagefs.transfer import host
from imagefs.transfer.file_reader import store_content
from imagefs.tree.build import DirectoryBuilder, DirectorySummary, write_manifest
from imagefs.tree.edit import replace_entries
from imagefs.tree.pages import Fetch

Progress = Callable[[int, int], None]
"""Called with the entries and bytes imported so far."""

_PROGRESS_ENTRIES: Final = 128
_OPEN_LEVELS: Final = 64
"""Directories kept open at once; in deeper trees outer ones are reopened through `..`."""

_ATTEMPTS: Final = 3


def import_directory(
    source: str | bytes | os.PathLike[str],
    writer: StoreWriter,
    fetch: Fetch,
    progress: Progress | None = None,
    *,
    leave_out: Collection[tuple[int, int]] = (),
) -> ObjectId:
    """Store the tree of a directory of the host; returns its manifest id, durable.

    Blocks; for a worker thread or offline use. `fetch` gets stored objects and blocks.
    Directories whose (st_dev, st_ino) is in `leave_out` are imported empty. Raises an error
    that names the file when one cannot be read.
    """
    importer = _Importer(os.fsencode(source), writer, progress, leave_out)
    root = importer.run()
    single = importer.single_names()
    if single:
        writer.finish()
        root = replace_entries(fetch, importer.put, root, single)
    manifest = write_manifest(importer.put, root, importer.link_groups())
    writer.finish()
    return manifest


class _Level:
    """A directory being imported. `descriptor` is None while it is closed for a time."""

    __slots__ = ("builder", "descriptor", "identity", "name", "names", "status", "xattrs")

    def __init__(
        self,
        name: bytes,
        descriptor: int,
        status: os.stat_result,
        names: Iterator[bytes],
        builder: DirectoryBuilder,
    ) -> None:
        self.name = name
        self.descriptor: int | None = descriptor
        self.status = status
        self.identity = host.identity(status)
        self.names = names
        self.builder = builder
        self.xattrs = host.xattrs_of_open(descriptor)

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def entry(self, summary: DirectorySummary) -> Entry:
        status = self.status
        return Entry(
            self.name,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            host.mtime(status),
            summary.size,
            summary.count,
            summary.ref,
            summary.links,
            self.xattrs,
        )


class _Importer:
    """One import. `run` may be called once."""

    def __init__(
        self,
        source: bytes,
        writer: StoreWriter,
        progress: Progress | None,
        leave_out: Collection[tuple[int, int]],
    ) -> None:
        self._source = source
        self._writer = writer
        self._progress = progress
        self._leave_out = leave_out
        self._opener = host.FileOpener()
        self._stack: list[_Level] = []
        self._linked: dict[tuple[int, int], tuple[Entry, list[bytes]]] = {}
        """Inodes with several names, with the paths met so far."""
        self._entries = 0
        self._bytes = 0

    def put(self, data: bytes) -> ObjectId:
        return self._writer.put(data, metadata=True)

    def run(self) -> Entry:
        """Import everything; returns the root's entry."""
        try:
            self._push(b"", host.open_root(self._source))
        except OSError as error:
            raise host.failure(error, self._source) from error
        try:
            while True:
                level = self._stack[-1]
                if any(self._import(level, name) for name in level.names):
                    continue  # with the directory that was entered
                entry = self._pop()
                if not self._stack:
                    self._report()
                    return entry
                self._add(self._stack[-1], entry)
        finally:
            for level in self._stack:
                level.close()

    def single_names(self) -> dict[bytes, Entry]:
        """Entries that are marked as linked although their other names lie elsewhere."""
        return {
            paths[0]: msgspec.structs.replace(entry, links=0)
            for entry, paths in self._linked.values()
            if len(paths) == 1
        }

    def link_groups(self) -> list[list[bytes]]:
        """The paths of every inode with several names in the tree."""
        return [paths for _, paths in self._linked.values() if len(paths) > 1]

    # -- the walk -----------------------------------------------------------------------

    def _push(self, name: bytes, descriptor: int) -> None:
        """Enter the directory, which belongs to the stack from here on."""
        try:
            status = os.fstat(descriptor)
            left_out = host.identity(status) in self._leave_out
            names = [] if left_out else host.names(descriptor)
            level = _Level(name, descriptor, status, iter(names), DirectoryBuilder(self.put))
        except BaseException:
            os.close(descriptor)
            raise
        self._stack.append(level)
        if len(self._stack) > _OPEN_LEVELS:
            self._stack[-_OPEN_LEVELS - 1].close()

    def _pop(self) -> Entry:
        """Leave the innermost directory; returns its entry."""
        level = self._stack[-1]
        if len(self._stack) > 1:
            self._reopen(self._stack[-2], level)
        self._stack.pop()
        level.close()
        return level.entry(level.builder.finish())

    def _reopen(self, level: _Level, inner: _Level) -> None:
        if level.descriptor is not None:
            return
        assert inner.descriptor is not None
        try:
            level.descriptor = host.open_parent(inner.descriptor)
            same = host.identity(os.fstat(level.descriptor)) == level.identity
        except OSError as error:
            raise host.failure(error, self._path()) from error
        if not same:
            raise Busy(f"{os.fsdecode(self._path())} was moved while it was imported; try again")

    def _import(self, level: _Level, name: bytes) -> bool:
        """Add what has that name to the directory; True when it is a directory, entered
        instead."""
        attempt = 1
        while True:
            try:
                return self._try_import(level, name)
            except FileNotFoundError:
                return False  # disappeared since the directory was listed
            except OSError as error:
                if attempt == _ATTEMPTS or not host.is_replaced(error):
                    raise host.failure(error, self._path(name)) from error
            attempt += 1

    def _try_import(self, level: _Level, name: bytes) -> bool:
        descriptor = level.descriptor
        assert descriptor is not None
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            self._push(name, host.open_directory(descriptor, name))
            return True
        if status.st_nlink == 1:
            entry = self._read(descriptor, name, status)
        else:
            entry = self._read_linked(descriptor, name, status)
        self._add(level, entry)
        return False

    def _add(self, level: _Level, entry: Entry) -> None:
        level.builder.add(entry)
        self._entries += 1
        if self._entries % _PROGRESS_ENTRIES == 0:
            self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._entries, self._bytes)

    def _path(self, name: bytes | None = None) -> bytes:
        """The host's path of the innermost directory, or of a name in it."""
        names = [self._source, *(level.name for level in self._stack[1:])]
        return b"/".join(names if name is None else [*names, name])

    # -- entries ------------------------------------------------------------------------

    def _read(self, parent: int, name: bytes, status: os.stat_result) -> Entry:
        """The entry of anything but a directory, its content stored."""
        mode = status.st_mode
        if stat.S_ISREG(mode):
            return self._read_file(parent, name)
        xattrs = host.xattrs_of_name(parent, name)
        size = count = 0
        ref = None
        if stat.S_ISLNK(mode):
            ref = os.readlink(name, dir_fd=parent)
            size = len(ref)
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            count = status.st_rdev
        return Entry(
            name, mode, status.st_uid, status.st_gid, host.mtime(status),
            size, count, ref, 0, xattrs,
        )  # fmt: skip

    def _read_file(self, parent: int, name: bytes) -> Entry:
        descriptor = self._opener.open(parent, name)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise host.replaced(name)
            size, count, ref = store_content(self._writer, descriptor, status)
            xattrs = host.xattrs_of_open(descriptor)
        finally:
            os.close(descriptor)
        self._bytes += size
        return Entry(
            name, status.st_mode, status.st_uid, status.st_gid, host.mtime(status),
            size, count, ref, 0, xattrs,
        )  # fmt: skip

    def _read_linked(self, parent: int, name: bytes, status: os.stat_result) -> Entry:
        """As `_read` for an inode that has other names; every name gets the same entry.

        It is marked as linked before the others are seen: nearly always they are in the
        source as well, and where they are not `single_names` says so.
        """
        key = host.identity(status)
        path = b"/".join([*(level.name for level in self._stack[1:]), name])
        known = self._linked.get(key)
        if known is not None:
            known[1].append(path)
            return msgspec.structs.replace(known[0], name=name)
        entry = msgspec.structs.replace(self._read(parent, name, status), links=1)
        self._linked[key] = (entry, [path])
        return entry
