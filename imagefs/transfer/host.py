"""The host's files as import reads them: by descriptor, never following a symbolic link.

Names go relative to an open directory, so depth and path length have no limit and nobody
can lead the reader elsewhere by swapping a directory. Errors are OSError; `failure` turns
them into ours.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from imagefs.errors import AccessDenied, ImagefsError, IOFailure, NotADirectory, NotFound
from imagefs.format.directory import RESERVED_XATTR
from imagefs.model import bounded_time

_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: what was a regular file when it was listed may be a fifo when it is opened.
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_KEPT_XATTRS: Final = (b"user.", b"security.", b"trusted.")
_KEPT_SYSTEM_XATTRS: Final = {b"system.posix_acl_access", b"system.posix_acl_default"}
_NO_XATTRS: Final = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}

Xattrs = tuple[tuple[bytes, bytes], ...] | None


def open_root(path: bytes) -> int:
    """A descriptor of the directory at a path, which may be a symbolic link to it."""
    return os.open(path, _OPEN_DIRECTORY)


def open_directory(parent: int, name: bytes) -> int:
    """A descriptor of a directory in a directory."""
    return os.open(name, _OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)


def open_parent(directory: int) -> int:
    """A descriptor of the directory that a directory lies in."""
    return os.open(b"..", _OPEN_DIRECTORY, dir_fd=directory)


def names(directory: int) -> list[bytes]:
    """What the directory holds, in canonical order."""
    return sorted(map(os.fsencode, os.listdir(directory)))


def identity(status: os.stat_result) -> tuple[int, int]:
    """What tells an inode from all others on the host."""
    return status.st_dev, status.st_ino


def mtime(status: os.stat_result) -> int:
    """The time of the last change in ns."""
    return bounded_time(status.st_mtime_ns)


class FileOpener:
    """Opens regular files for reading, leaving their access times alone where that is allowed."""

    def __init__(self) -> None:
        self._flags = _OPEN_FILE | os.O_NOATIME

    def open(self, parent: int, name: bytes) -> int:
        """A descriptor of a file in a directory."""
        try:
            return os.open(name, self._flags, dir_fd=parent)
        except PermissionError:
            if self._flags == _OPEN_FILE:
                raise
        # Only root and a file's owner may use O_NOATIME; ask no more after the first refusal.
        self._flags = _OPEN_FILE
        return os.open(name, self._flags, dir_fd=parent)


def xattrs_of_open(descriptor: int) -> Xattrs:
    """The extended attributes, with ACLs, of an open file or directory."""
    return _xattrs(descriptor, follow=True)


def xattrs_of_name(parent: int, name: bytes) -> Xattrs:
    """The extended attributes of what cannot be opened: symbolic links, devices and so on.

    The system calls take no directory descriptor; the way round is /proc.
    """
    return _xattrs(b"/proc/self/fd/%d/%b" % (parent, name), follow=False)


def _xattrs(where: int | bytes, *, follow: bool) -> Xattrs:
    try:
        keys = os.listxattr(where, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return None
        raise
    if not keys:
        return None
    found = []
    for key in sorted(map(os.fsencode, keys)):
        if not _kept(key):
            continue
        try:
            found.append((key, os.getxattr(where, key, follow_symlinks=follow)))
        except OSError as error:
            # Removed since it was listed, or listed but not answered by this file system.
            if error.errno not in {errno.ENODATA, *_NO_XATTRS}:
                raise
    return tuple(found) or None


def _kept(key: bytes) -> bool:
    if key in _KEPT_SYSTEM_XATTRS:
        return True
    return key.startswith(_KEPT_XATTRS) and not key.startswith(RESERVED_XATTR)


def replaced(name: bytes) -> OSError:
    """The error for a name that is no longer what it was when it was looked at."""
    return OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)


def is_replaced(error: OSError) -> bool:
    """Whether an error says that something is no longer what it was when looked at."""
    return error.errno in {errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EINVAL}


def failure(error: OSError, path: bytes) -> ImagefsError:
    """The error to report for a file of the source, with its path."""
    shown = os.fsdecode(path)
    reason = os.strerror(error.errno or 0)
    if isinstance(error, PermissionError):
        return AccessDenied(f"Cannot read {shown}: {reason}; import as a user who may")
    if isinstance(error, FileNotFoundError):
        return NotFound(f"Cannot read {shown}: {reason}")
    if isinstance(error, NotADirectoryError):
        return NotADirectory(f"Cannot import {shown}: {reason}")
    return IOFailure(f"Cannot read {shown}: {reason}")
