"""SQLite's own file access, passed by somebody who may note it or make it fail.

A VFS of SQLite ("watched") is registered as the default one, in the very library that the
`sqlite3` module uses. It opens files with SQLite's own VFS and then gives those of watched
directories a copy of the method table in which the calls that change, sync or read go
through Python first; everything else (locks, shared memory, sizes) stays as it is. The
product needs no hook for this, and is not slower by it.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, Structure, byref, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any, Protocol

# Codes of sqlite3.h that the module does not name, or not in every version.
IOERR_READ, IOERR_WRITE, IOERR_FSYNC = 10 | 1 << 8, 10 | 3 << 8, 10 | 4 << 8
CANTOPEN, FULL = sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL
IOERR_TRUNCATE, IOERR_DELETE, IOERR_SHMSIZE = 10 | 6 << 8, 10 | 10 << 8, 10 | 19 << 8
IOERR_SHMMAP = 10 | 21 << 8
_OK = sqlite3.SQLITE_OK
_OPEN_CREATE = 0x4
_JOURNALS = 0x800 | 0x4000 | 0x80000
"""Rollback journal, super-journal, WAL: the first sync of one that may have been made syncs its
directory too."""


class Refused(Exception):
    """Raised by a watcher: the call is not made and SQLite gets this code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Watcher(Protocol):
    """Is asked to make each call; `make` makes it, or raises Refused itself. Any thread."""

    def sqlite_open(self, path: str, creates: bool, make: Callable[[], None]) -> int: ...
    def sqlite_read(self, node: int, make: Callable[[], None]) -> None: ...
    def sqlite_write(
        self, node: int, offset: int, data: bytes, make: Callable[[int], None]
    ) -> None: ...
    def sqlite_truncate(self, node: int, size: int, make: Callable[[], None]) -> None: ...
    def sqlite_sync(self, node: int, directory: str | None, make: Callable[[], None]) -> None: ...
    def sqlite_delete(self, path: str, synced: bool, make: Callable[[], None]) -> None: ...
    def sqlite_map(self, make: Callable[[], None]) -> None: ...


_METHODS = [
    "xClose",
    "xRead",
    "xWrite",
    "xTruncate",
    "xSync",
    "xFileSize",
    "xLock",
    "xUnlock",
    "xCheckReservedLock",
    "xFileControl",
    "xSectorSize",
    "xDeviceCharacteristics",
    "xShmMap",
    "xShmLock",
    "xShmBarrier",
    "xShmUnmap",
    "xFetch",
    "xUnfetch",
]
_VFS_METHODS = [
    "xOpen",
    "xDelete",
    "xAccess",
    "xFullPathname",
    "xDlOpen",
    "xDlError",
    "xDlSym",
    "xDlClose",
    "xRandomness",
    "xSleep",
    "xCurrentTime",
    "xGetLastError",
    "xCurrentTimeInt64",
    "xSetSystemCall",
    "xGetSystemCall",
    "xNextSystemCall",
]


class _Methods(Structure):
    _fields_ = [("iVersion", c_int), *((name, c_void_p) for name in _METHODS)]


class _File(Structure):
    _fields_ = [("pMethods", POINTER(_Methods))]


class _Vfs(Structure):
    _fields_ = [
        ("iVersion", c_int), ("szOsFile", c_int), ("mxPathname", c_int), ("pNext", c_void_p),
        ("zName", c_char_p), ("pAppData", c_void_p),
        *((name, c_void_p) for name in _VFS_METHODS),
    ]  # fmt: skip


_Close = CFUNCTYPE(c_int, c_void_p)
_Transfer = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)
_Map = CFUNCTYPE(c_int, c_void_p, c_int, c_int, c_int, c_void_p)
_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_Delete = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)


def _library() -> ctypes.CDLL:
    """The library that the `sqlite3` module is linked with."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split()[-1]
        if "libsqlite3" in path:
            return ctypes.CDLL(path)
    raise RuntimeError("This Python has SQLite built in, not as a shared library")


class _Open_:  # noqa: N801
    """One file of SQLite that is watched."""

    __slots__ = ("directory", "node", "original", "watcher")

    def __init__(self, watcher: Watcher, node: int, directory: str | None, original: Any) -> None:
        self.watcher = watcher
        self.node = node
        self.directory = directory
        self.original = original


class _Shim:
    """The registered VFS. Everything C keeps a pointer to is kept alive here."""

    def __init__(self) -> None:
        self.watched: dict[str, Watcher] = {}
        self._files: dict[int, _Open_] = {}
        self._tables: dict[int, tuple[_Methods, _Methods]] = {}
        self._sqlite = _library()
        self._sqlite.sqlite3_vfs_find.restype = POINTER(_Vfs)
        self._native = self._sqlite.sqlite3_vfs_find(None)
        vfs = self._native.contents
        self._native_open = _Open(vfs.xOpen)
        self._native_delete = _Delete(vfs.xDelete)
        self._callbacks: dict[str, Any] = {
            "xClose": _Close(self._close), "xRead": _Transfer(self._read),
            "xWrite": _Transfer(self._write), "xTruncate": _Truncate(self._truncate),
            "xSync": _Sync(self._sync), "xShmMap": _Map(self._map),
        }  # fmt: skip
        self._vfs = _Vfs()
        ctypes.memmove(byref(self._vfs), self._native, ctypes.sizeof(_Vfs))
        self._open_callback, self._delete_callback = _Open(self._open), _Delete(self._delete)
        self._vfs.zName = b"watched"
        self._vfs.xOpen = ctypes.cast(self._open_callback, c_void_p)
        self._vfs.xDelete = ctypes.cast(self._delete_callback, c_void_p)
        self._sqlite.sqlite3_vfs_register(byref(self._vfs), 1)

    def _watcher(self, path: str) -> Watcher | None:
        for root, watcher in self.watched.items():
            if path.startswith(root + "/"):
                return watcher
        return None

    # -- the VFS ------------------------------------------------------------------------

    def _open(self, _: Any, name: int, file: int, flags: int, out: int) -> int:
        path = os.fsdecode(ctypes.string_at(name)) if name else ""
        watcher = self._watcher(path)

        def make() -> None:
            _checked(
                self._native_open(ctypes.addressof(self._native.contents), name, file, flags, out)
            )

        if watcher is None:
            return _code(make)
        creates = bool(flags & _OPEN_CREATE)

        def opened() -> None:
            node = watcher.sqlite_open(path, creates, make)
            directory = os.path.dirname(path) if creates and flags & _JOURNALS else None
            handle = _File.from_address(file)
            original, patched = self._table(handle)
            self._files[file] = _Open_(watcher, node, directory, original)
            handle.pMethods = ctypes.pointer(patched)

        return _code(opened)

    def _table(self, file: _File) -> tuple[_Methods, _Methods]:
        """The method table of a file just opened, and the one it gets."""
        address = ctypes.addressof(file.pMethods.contents)
        if address not in self._tables:
            patched = _Methods()
            ctypes.memmove(byref(patched), file.pMethods, ctypes.sizeof(_Methods))
            for name, callback in self._callbacks.items():
                setattr(patched, name, ctypes.cast(callback, c_void_p))
            self._tables[address] = file.pMethods.contents, patched
        return self._tables[address]

    def _delete(self, _: Any, name: int, sync: int) -> int:
        path = os.fsdecode(ctypes.string_at(name))
        watcher = self._watcher(path)

        def make() -> None:
            _checked(self._native_delete(ctypes.addressof(self._native.contents), name, sync))

        if watcher is None:
            return _code(make)
        return _code(lambda: watcher.sqlite_delete(path, bool(sync), make))

    # -- files --------------------------------------------------------------------------

    def _close(self, file: int) -> int:
        opened = self._files.pop(file)
        return int(_Close(opened.original.xClose)(file))

    def _read(self, file: int, buffer: int, size: int, offset: int) -> int:
        opened = self._files[file]
        native = _Transfer(opened.original.xRead)
        return _code(
            lambda: opened.watcher.sqlite_read(
                opened.node, lambda: _checked(native(file, buffer, size, offset))
            )
        )

    def _write(self, file: int, buffer: int, size: int, offset: int) -> int:
        opened = self._files[file]
        native = _Transfer(opened.original.xWrite)
        data = ctypes.string_at(buffer, size)
        return _code(
            lambda: opened.watcher.sqlite_write(
                opened.node, offset, data, lambda size: _checked(native(file, buffer, size, offset))
            )
        )

    def _truncate(self, file: int, size: int) -> int:
        opened = self._files[file]
        native = _Truncate(opened.original.xTruncate)
        return _code(
            lambda: opened.watcher.sqlite_truncate(
                opened.node, size, lambda: _checked(native(file, size))
            )
        )

    def _sync(self, file: int, flags: int) -> int:
        opened = self._files[file]
        native = _Sync(opened.original.xSync)

        def sync() -> None:
            opened.watcher.sqlite_sync(
                opened.node, opened.directory, lambda: _checked(native(file, flags))
            )
            opened.directory = None

        return _code(sync)

    def _map(self, file: int, region: int, size: int, extend: int, out: int) -> int:
        opened = self._files[file]
        native = _Map(opened.original.xShmMap)
        return _code(
            lambda: opened.watcher.sqlite_map(
                lambda: _checked(native(file, region, size, extend, out))
            )
        )


def _checked(code: int) -> None:
    if code != _OK:
        raise Refused(code)


def _code(call: Callable[[], None]) -> int:
    """The answer for SQLite. Anything but Refused is a bug of the watcher and ends the test."""
    try:
        call()
    except Refused as refused:
        return refused.code
    return _OK


_shims: list[_Shim] = []


def watch(directory: Path, watcher: Watcher) -> None:
    """From now on the watcher is asked for every file of SQLite below the directory."""
    if not _shims:
        _shims.append(_Shim())
    _shims[0].watched[str(directory)] = watcher


def unwatch(directory: Path) -> None:
    """Files opened from now on are not watched; those that are open still are."""
    del _shims[0].watched[str(directory)]
