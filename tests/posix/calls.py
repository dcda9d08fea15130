"""System calls that the standard library has no function for, and their constants."""

import ctypes
import os
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_NOFOLLOW = 0x100
AT_SYMLINK_FOLLOW = 0x400
AT_EACCESS = 0x200
CLOCK_REALTIME_COARSE = 5
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_COLLAPSE, FALLOC_ZERO = 1, 2, 8, 16
F_OFD_GETLK, F_OFD_SETLK = 36, 37
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FICLONE = 0x80086601, 0x40086602, 0x40049409
O_TMPFILE = 0o20000000 | os.O_DIRECTORY
CAP_CHOWN, CAP_FSETID, CAP_MKNOD, CAP_LINUX_IMMUTABLE = 0, 4, 27, 9

_SYS_FACCESSAT2, _SYS_FCHMODAT2 = 439, 452
_SYS_GETDENTS64, _SYS_CAPGET, _SYS_CAPSET = (
    (217, 125, 126) if os.uname().machine == "x86_64" else (61, 90, 91)
)
_DIRENT = struct.Struct("<QqHB")
_CAPABILITY_VERSION = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> int:
    """The result of a function of C that says -1 for an error; raises OSError."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def call(name: str, *args: Any) -> int:
    """A function of the C library by name; raises OSError."""
    return checked(getattr(_libc, name)(*args))


def renameat2(old: str, new: str, flags: int) -> None:
    call("renameat2", AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)


def linkat(fd: int, path: str, new: str, flags: int) -> None:
    call("linkat", fd, os.fsencode(path), AT_FDCWD, os.fsencode(new), flags)


def faccessat2(path: str, mode: int, flags: int) -> None:
    checked(_libc.syscall(_SYS_FACCESSAT2, AT_FDCWD, os.fsencode(path), mode, flags))


def fchmodat2(path: str, mode: int, flags: int) -> None:
    checked(_libc.syscall(_SYS_FCHMODAT2, AT_FDCWD, os.fsencode(path), mode, flags))


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64))


def utimensat(path: str, atime: tuple[int, int], mtime: tuple[int, int], flags: int = 0) -> None:
    """Set times, each as seconds and nanoseconds, the latter also UTIME_NOW or UTIME_OMIT."""
    pair = (_Timespec * 2)(_Timespec(*atime), _Timespec(*mtime))
    call("utimensat", AT_FDCWD, os.fsencode(path), pair, flags)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    call("fallocate", fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length))


def ioctl(fd: int, request: int, argument: int = 0) -> int:
    """An ioctl that takes a pointer to a long; returns what that is afterwards."""
    value = ctypes.c_long(argument)
    call("ioctl", fd, ctypes.c_ulong(request), ctypes.byref(value))
    return value.value


class DirectoryEntry(NamedTuple):
    """One name of getdents(2); `position` is where to go on behind it."""

    ino: int
    position: int
    kind: int
    name: bytes


def getdents(fd: int, size: int) -> list[DirectoryEntry]:
    """The next names of a directory, as many as `size` bytes hold; none at the end."""
    buffer = ctypes.create_string_buffer(size)
    length = checked(_libc.syscall(_SYS_GETDENTS64, fd, buffer, ctypes.c_long(size)))
    return list(_entries(buffer.raw[:length]))


def _entries(raw: bytes) -> Iterator[DirectoryEntry]:
    at = 0
    while at < len(raw):
        ino, position, length, kind = _DIRENT.unpack_from(raw, at)
        name = raw[at + _DIRENT.size : at + length].split(b"\0", 1)[0]
        yield DirectoryEntry(ino, position, kind, name)
        at += length


def drop_capability(number: int) -> None:
    """Give up one effective capability of this process."""
    header = ctypes.create_string_buffer(struct.pack("<Ii", _CAPABILITY_VERSION, 0), 8)
    data = ctypes.create_string_buffer(24)
    checked(_libc.syscall(_SYS_CAPGET, header, data))
    words = list(struct.unpack("<6I", data.raw))
    words[3 * (number // 32)] &= ~(1 << number % 32)
    new = ctypes.create_string_buffer(struct.pack("<6I", *words), 24)
    checked(_libc.syscall(_SYS_CAPSET, header, new))


def name_to_handle(path: str) -> bytes:
    """A file handle as name_to_handle_at(2) gives it, with its header."""
    handle = ctypes.create_string_buffer(struct.pack("<Ii", 128, 0), 8 + 128)
    mount = ctypes.c_int()
    call("name_to_handle_at", AT_FDCWD, os.fsencode(path), handle, ctypes.byref(mount), 0)
    return handle.raw


def open_by_handle(mount: int, handle: bytes) -> int:
    buffer = ctypes.create_string_buffer(handle, len(handle))
    return call("open_by_handle_at", mount, buffer, os.O_RDONLY)
