"""System calls on descriptors and mappings that Python has no function for, or hides the errors of."""

import ctypes
import mmap
import os
import struct

from tests.posix.calls import AT_SYMLINK_NOFOLLOW, UTIME_NOW, UTIME_OMIT, checked

_libc = ctypes.CDLL(None, use_errno=True)
for _name in ("mmap", "pread", "pwrite"):
    getattr(_libc, _name).restype = ctypes.c_long

SECOND = 10**9
PAGE = 4096

_PR_SET_DUMPABLE = 4


def rename(old_fd: int, old: bytes, new_fd: int, new: bytes, flags: int) -> None:
    checked(_libc.renameat2(old_fd, old, new_fd, new, flags))


def utimens(fd: int, path: bytes | None, atime: int, mtime: int, follow: bool) -> None:
    """Times in ns; UTIME_NOW and UTIME_OMIT below mean themselves."""
    fields = []
    for time in (atime, mtime):
        special = time in {UTIME_NOW, UTIME_OMIT}
        fields += [0, time] if special else list(divmod(time, SECOND))
    times = struct.pack("<qqqq", *fields)
    flags = 0 if follow or path is None else AT_SYMLINK_NOFOLLOW
    checked(_libc.utimensat(fd, path, times, flags))


def syncfs(fd: int) -> None:
    checked(_libc.syncfs(fd))


def be_inspectable() -> None:
    """A process that changed its user may not see its own /proc/self/fd without this."""
    checked(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))


class Mapping:
    """A mapping of a file that answers EFAULT where touching it would end the process."""

    def __init__(self, fd: int, offset: int, length: int, shared: bool, writable: bool) -> None:
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        flags = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
        address = _libc.mmap(
            None, ctypes.c_size_t(length), protection, flags, fd, ctypes.c_long(offset)
        )
        self.address = checked(address)
        self.length = length
        self.offset = offset
        self.file = os.dup(fd)
        # The kernel copies between it and the mapping, and checks addresses when it does.
        self.through = os.memfd_create("through")

    def read(self, offset: int, size: int) -> bytes:
        size = min(size, self.length - offset)
        if size <= 0:
            return b""
        os.ftruncate(self.through, 0)
        written = _libc.pwrite(
            self.through, ctypes.c_void_p(self.address + offset), ctypes.c_size_t(size), 0
        )
        return os.pread(self.through, checked(written), 0)

    def write(self, offset: int, data: bytes) -> int:
        """Writes nothing behind the end of the file: what comes of that is not defined."""
        end = os.fstat(self.file).st_size - self.offset
        data = data[: max(min(self.length, end) - offset, 0)]
        if not data:
            return 0
        os.pwrite(self.through, data, 0)
        read = _libc.pread(
            self.through, ctypes.c_void_p(self.address + offset), ctypes.c_size_t(len(data)), 0
        )
        return checked(read)

    def sync(self) -> None:
        length = ctypes.c_size_t(self.length)
        checked(_libc.msync(ctypes.c_void_p(self.address), length, 4))

    def close(self) -> None:
        _libc.munmap(ctypes.c_void_p(self.address), ctypes.c_size_t(self.length))
        os.close(self.file)
        os.close(self.through)
