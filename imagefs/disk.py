"""The one door to the host's files: packs, raw data and published files go through it.

A `Disk` makes system calls and nothing else; it knows no format. Tests hand in a subclass
that records calls, fails the N-th, or forgets what was not synced. Methods block and may be
called from any thread. OSError is mapped here: ENOSPC and EDQUOT become `NoSpace`,
FileNotFoundError and FileExistsError pass unchanged, everything else becomes `IOFailure`
with the path in its message. (SQLite does its own file access; tests watch and fail it in the
same way through a VFS of theirs, see docs/durability.md.)
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from imagefs.errors import ImagefsError, IOFailure, NoSpace

_FALLOC_KEEP_SIZE = 1
_FALLOC_PUNCH_HOLE = 2
_SYNC_FILE_RANGE_WRITE = 2
_RENAME_NOREPLACE = 1
_AT_FDCWD = -100
_ZERO_STEP = 1024 * 1024

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
_libc.renameat2.argtypes = [
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
]

_WOULD_BLOCK = (errno.EAGAIN, errno.EWOULDBLOCK)
_NO_FLAG = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What reads and writes with a flag answer that the file system does not know."""


def failure(error: OSError, where: int | str | Path) -> ImagefsError | OSError:
    """What to raise for an OSError; `where` is the path, or the descriptor it is open as."""
    if isinstance(error, (FileNotFoundError, FileExistsError)):
        return error
    path = _path_of(where) if isinstance(where, int) else str(where)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"No space left for {path}: free some and try again")
    return IOFailure(f"The host's disk failed at {path}: {error.strerror}")


def _path_of(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"descriptor {fd}"


class Space(msgspec.Struct, frozen=True):
    """What statvfs(3) says of a file system, in blocks of `block_size` bytes and in files."""

    block_size: int
    blocks: int
    blocks_free: int
    blocks_available: int
    files: int
    files_free: int


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A name in a directory. `kind` is a mode's S_IFMT, of the name itself: symlinks are not followed."""

    name: str
    kind: int
    size: int
    modified: int


class Disk:
    """System calls on the host's files, errors mapped; has no state of its own."""

    # -- open files ---------------------------------------------------------------------

    def open(self, path: str | Path, flags: int, mode: int = 0o600) -> int:
        try:
            return os.open(path, flags | os.O_CLOEXEC, mode)
        except OSError as error:
            raise failure(error, path) from error

    def close(self, fd: int) -> None:
        try:
            os.close(fd)
        except OSError as error:
            raise failure(error, fd) from error

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """`size` bytes, fewer only where the file ends."""
        try:
            data = os.pread(fd, size, offset)
            while len(data) < size:
                more = os.pread(fd, size - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise failure(error, fd) from error
        return data

    def pread_nowait(self, fd: int, size: int, offset: int) -> bytes | None:
        """Like `pread`, or None when the bytes are not all in memory.

        Where the file system cannot tell, it reads and may block.
        """
        buffer = bytearray(size)
        try:
            count = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
            while count < size:
                rest = memoryview(buffer)[count:]
                more = os.preadv(fd, [rest], offset + count, os.RWF_NOWAIT)
                if not more:
                    return bytes(buffer[:count])
                count += more
        except OSError as error:
            if error.errno in _WOULD_BLOCK:
                return None
            if error.errno in _NO_FLAG:
                return self.pread(fd, size, offset)
            raise failure(error, fd) from error
        return bytes(buffer)

    def pwrite(self, fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Writes all of `data`."""
        try:
            count = os.pwrite(fd, data, offset)
            while count < len(data):
                count += os.pwrite(fd, memoryview(data)[count:], offset + count)
        except OSError as error:
            raise failure(error, fd) from error

    def pwrite_durably(self, fd: int, data: bytes, offset: int) -> None:
        """Writes all of `data` and waits until these bytes survive power loss.

        Where the file system cannot do that in one call, the whole file is synced.
        """
        try:
            count = os.pwritev(fd, [data], offset, os.RWF_DSYNC)
        except OSError as error:
            if error.errno not in _NO_FLAG:
                raise failure(error, fd) from error
            count = 0
        if count < len(data):
            self.pwrite(fd, memoryview(data)[count:], offset + count)
            self.fdatasync(fd)

    def pwritev(self, fd: int, parts: Sequence[bytes], offset: int) -> None:
        """Writes all parts, one after the other."""
        size = sum(map(len, parts))
        try:
            count = os.pwritev(fd, parts, offset)
        except OSError as error:
            raise failure(error, fd) from error
        if count < size:
            self.pwrite(fd, b"".join(parts)[count:], offset + count)

    def touch(self, fd: int) -> None:
        """Makes now the time at which an open file was changed."""
        try:
            os.utime(fd)
        except OSError as error:
            raise failure(error, fd) from error

    def truncate(self, fd: int, size: int) -> None:
        try:
            os.ftruncate(fd, size)
        except OSError as error:
            raise failure(error, fd) from error

    def allocate(self, fd: int, size: int) -> None:
        """Makes a file `size` bytes long, with all its space taken from the disk."""
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            raise failure(error, fd) from error

    def punch_hole(self, fd: int, offset: int, length: int) -> None:
        """Gives the space of a range back; it reads as zeros, the file keeps its size.

        Where the file system cannot do that, zeros are written.
        """
        mode = _FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE
        if _libc.fallocate(fd, mode, offset, length) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise failure(OSError(code, os.strerror(code)), fd)
        end = min(offset + length, self.size(fd))
        for start in range(offset, end, _ZERO_STEP):
            self.pwrite(fd, bytes(min(_ZERO_STEP, end - start)), start)

    def size(self, fd: int) -> int:
        try:
            return os.fstat(fd).st_size
        except OSError as error:
            raise failure(error, fd) from error

    def entry(self, fd: int) -> Entry:
        """What an open file is; it has no name here."""
        try:
            found = os.fstat(fd)
        except OSError as error:
            raise failure(error, fd) from error
        return Entry("", stat.S_IFMT(found.st_mode), found.st_size, found.st_mtime_ns)

    def try_lock(self, fd: int) -> bool:
        """Takes the file's exclusive lock; False when another descriptor holds it.

        The lock ends with the descriptor, so also with the process.
        """
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise failure(error, fd) from error
        return True

    def lock(self, fd: int) -> None:
        """Like `try_lock`, but waits until the lock is free."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as error:
            raise failure(error, fd) from error

    # -- durability ---------------------------------------------------------------------

    def fdatasync(self, fd: int) -> None:
        try:
            os.fdatasync(fd)
        except OSError as error:
            raise failure(error, fd) from error

    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        """Makes the kernel begin to write a range; best effort, promises nothing."""
        _libc.sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)

    def fsync_dir(self, path: str | Path) -> None:
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        except OSError as error:
            raise failure(error, path) from error
        finally:
            os.close(fd)

    def publish(self, path: str | Path, data: bytes) -> None:
        """Makes `path` hold `data`, durably: afterwards, and after any crash, all or nothing.

        A crash may leave `path` with the suffix .tmp behind; the next publish replaces it.
        """
        temporary = f"{path}.tmp"
        fd = self.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            self.pwrite(fd, data, 0)
            self.fdatasync(fd)
        finally:
            self.close(fd)
        self.rename(temporary, path)
        self.fsync_dir(Path(path).parent)

    # -- names --------------------------------------------------------------------------

    def mkdir(self, path: str | Path, mode: int = 0o700) -> None:
        try:
            os.mkdir(path, mode)
        except OSError as error:
            raise failure(error, path) from error

    def rmdir(self, path: str | Path) -> None:
        try:
            os.rmdir(path)
        except OSError as error:
            raise failure(error, path) from error

    def unlink(self, path: str | Path) -> None:
        try:
            os.unlink(path)
        except OSError as error:
            raise failure(error, path) from error

    def rename(self, old: str | Path, new: str | Path) -> None:
        try:
            os.rename(old, new)
        except OSError as error:
            raise failure(error, old) from error

    def rename_new(self, old: str | Path, new: str | Path) -> None:
        """Like `rename`, but FileExistsError where `new` is there, whoever made it and when.

        Where the file system cannot do that in one call, it is a second name that then is the only
        one: a crash between may leave both.
        """
        names = (os.fsencode(old), os.fsencode(new))
        done = _libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE)
        if done == 0:
            return
        code = ctypes.get_errno()
        if code not in _NO_FLAG:
            raise failure(OSError(code, os.strerror(code)), new)
        try:
            os.link(old, new, follow_symlinks=False)
        except OSError as error:
            raise failure(error, new) from error
        self.unlink(old)

    def size_of(self, path: str | Path) -> int | None:
        """The size of what bears a name; None when nothing does."""
        found = self._status(path)
        return None if found is None else found.st_size

    def is_directory(self, path: str | Path) -> bool:
        found = self._status(path)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def _status(self, path: str | Path) -> os.stat_result | None:
        try:
            return os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise failure(error, path) from error

    def listdir(self, path: str | Path) -> list[str]:
        try:
            return os.listdir(path)
        except OSError as error:
            raise failure(error, path) from error

    def entries(self, path: str | Path) -> list[Entry]:
        """What a directory holds, in no order; without what goes while it is being read."""
        found: list[Entry] = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    kind = stat.S_IFMT(status.st_mode)
                    found.append(Entry(entry.name, kind, status.st_size, status.st_mtime_ns))
        except OSError as error:
            raise failure(error, path) from error
        return found

    def real_path(self, path: str) -> str:
        """The same place without symlinks on the way, whether anything is there or not."""
        return os.path.realpath(path)

    def writable(self, path: str | Path) -> bool:
        """Whether this process may list a directory and create files in it."""
        return os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True)

    def space(self, path: str | Path) -> Space:
        """The space of the file system that holds `path`."""
        try:
            found = os.statvfs(path)
        except OSError as error:
            raise failure(error, path) from error
        return Space(
            block_size=found.f_frsize,
            blocks=found.f_blocks,
            blocks_free=found.f_bfree,
            blocks_available=found.f_bavail,
            files=found.f_files,
            files_free=found.f_ffree,
        )
