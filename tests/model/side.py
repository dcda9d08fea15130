"""One of the two trees as one process uses it: its open files, its mappings, its system calls.

Every method that a script may name is a system call or a few; it returns plain values or raises
OSError. What cannot be equal on two file systems is left out: numbers of descriptors and inodes,
the order of listings, sizes of directories.
"""

import errno
import fcntl
import hashlib
import mmap
import os
import random
import stat
import struct
from typing import Any, NamedTuple

from tests.model import system
from tests.posix.calls import UTIME_NOW, UTIME_OMIT, getdents

_LOCK = struct.Struct("hhqqi4x")
_SHOWN = 48
_ALIGNED = 4096
_BUFFER = 1 << 20
_LARGEST = (2**32 - 1) * 4096
"""Bytes in the largest file of ext4."""
DIRENT_SIZE = 280


class Facts(NamedTuple):
    """Attributes of an open file; `size` is -1 for directories."""

    mode: int
    uid: int
    gid: int
    size: int
    nlink: int
    mtime: int
    ino: int


def facts_of(status: os.stat_result) -> Facts:
    size = -1 if stat.S_ISDIR(status.st_mode) else status.st_size
    return Facts(
        status.st_mode, status.st_uid, status.st_gid, size, status.st_nlink,
        status.st_mtime_ns, status.st_ino,
    )  # fmt: skip


def content(seed: int, size: int) -> bytes:
    """Bytes that say where they came from; seed 0 gives zeros."""
    if not seed:
        return bytes(size)
    return random.Random(seed).randbytes(size)


def digested(data: bytes) -> Any:
    """Data short enough to be shown."""
    if len(data) <= _SHOWN:
        return data
    return len(data), hashlib.sha256(data).hexdigest()[:16], data[:16]


def flags_of(text: str) -> int:
    flags = 0
    for name in text.split("|"):
        flags |= getattr(os, name)
    return flags


def is_direct(fd: int) -> bool:
    """Whether reading and writing go past the page cache."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    return bool(flags & os.O_DIRECT and not flags & os.O_PATH)


def require_aligned(*numbers: int) -> None:
    """Raise what ext4 says to O_DIRECT otherwise."""
    if any(number % _ALIGNED for number in numbers):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


class Side:
    """What the methods do is named by their system calls; `slot` numbers open files."""

    def __init__(self, top: str) -> None:
        self.top = os.open(top, os.O_PATH | os.O_DIRECTORY)
        self.files: dict[int, int] = {}
        self.maps: dict[int, system.Mapping] = {}
        self.positions: dict[int, list[int]] = {}
        # Anonymous memory begins at a page, as O_DIRECT wants it.
        self.buffer = mmap.mmap(-1, _BUFFER)

    def close_all(self) -> None:
        for mapping in self.maps.values():
            mapping.close()
        for fd in self.files.values():
            os.close(fd)
        self.maps.clear()
        self.files.clear()
        self.positions.clear()

    def leave(self) -> None:
        self.close_all()
        os.close(self.top)

    # -- where --------------------------------------------------------------------------

    def place(self, path: str) -> tuple[int, bytes]:
        """The directory to start at and the path from there."""
        if not path.startswith("@"):
            return self.top, os.fsencode(path)
        slot, _, rest = path[1:].partition("/")
        return self.fd(int(slot)), os.fsencode(rest)

    def named(self, path: str) -> int | bytes:
        """For calls that take no directory: a path through /proc, or the open file itself."""
        fd, rest = self.place(path)
        return b"/proc/self/fd/%d/%s" % (fd, rest) if rest else fd

    def fd(self, slot: int) -> int:
        if slot not in self.files:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self.files[slot]

    def facts(self, name: str, slot: int) -> Facts | None:
        """The attributes of the open or mapped file that a step used."""
        fd = self.files.get(slot)
        if name == "mwrite":
            fd = self.maps[slot].file if slot in self.maps else None
        return None if fd is None else facts_of(os.fstat(fd))

    # -- open files ---------------------------------------------------------------------

    def open(self, slot: int, path: str, flags: str, mode: int) -> None:
        fd, rest = self.place(path)
        self.close(slot)
        self.files[slot] = os.open(rest, flags_of(flags) | os.O_NONBLOCK, mode, dir_fd=fd)

    def close(self, slot: int) -> None:
        fd = self.files.pop(slot, None)
        self.positions.pop(slot, None)
        if fd is not None:
            os.close(fd)

    def transfer(self, slot: int, offset: int | None, size: int) -> int:
        """The file for reading or writing; what O_DIRECT refuses on the host alone is refused
        here for both."""
        fd = self.fd(slot)
        if is_direct(fd):
            if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND:
                offset = os.fstat(fd).st_size
            elif offset is None:
                offset = os.lseek(fd, 0, os.SEEK_CUR)
            require_aligned(offset, size)
        return fd

    def read(self, slot: int, size: int) -> Any:
        """Of a directory EISDIR, but where ext4's own positions are too large for reading on."""
        if slot in self.positions:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        done = os.readv(self.transfer(slot, None, size), [memoryview(self.buffer)[:size]])
        return digested(self.buffer[:done])

    def pread(self, slot: int, offset: int, size: int) -> Any:
        done = os.preadv(
            self.transfer(slot, offset, size), [memoryview(self.buffer)[:size]], offset
        )
        return digested(self.buffer[:done])

    def preadv(self, slot: int, offset: int, sizes: list[int]) -> Any:
        parts = [bytearray(size) for size in sizes]
        done = os.preadv(self.transfer(slot, 1, 1), parts, offset)
        return digested(b"".join(parts)[:done])

    def _filled(self, seed: int, size: int) -> memoryview:
        self.buffer[:size] = content(seed, size)
        return memoryview(self.buffer)[:size]

    def write(self, slot: int, seed: int, size: int) -> int:
        return os.writev(self.transfer(slot, None, size), [self._filled(seed, size)])

    def pwrite(self, slot: int, offset: int, seed: int, size: int) -> int:
        return os.pwritev(self.transfer(slot, offset, size), [self._filled(seed, size)], offset)

    def pwritev(self, slot: int, offset: int, seed: int, sizes: list[int], flags: int) -> int:
        parts = [content(seed + number, size) for number, size in enumerate(sizes)]
        return os.pwritev(self.transfer(slot, 1, 1), parts, offset, flags)

    def lseek(self, slot: int, offset: int, whence: int) -> int:
        """Behind the end of ext4's largest file it is refused on both sides."""
        fd = self.no_folder(slot)
        before = os.lseek(fd, 0, os.SEEK_CUR)
        position = os.lseek(fd, offset, whence)
        if position > _LARGEST:
            os.lseek(fd, before, os.SEEK_SET)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return position

    def no_folder(self, slot: int) -> int:
        """Positions in directories are each file system's own: see `seekdir`."""
        fd = self.fd(slot)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        return fd

    def ftruncate(self, slot: int, size: int) -> None:
        os.ftruncate(self.fd(slot), size)

    def fsync(self, slot: int) -> None:
        os.fsync(self.fd(slot))

    def fdatasync(self, slot: int) -> None:
        os.fdatasync(self.fd(slot))

    def copy_range(self, slot: int, target: int, begin: int, to: int, size: int) -> int:
        """The kernel reads and writes as the two files are open: see `transfer`."""
        source, written = self.fd(slot), self.fd(target)
        if is_direct(source):
            require_aligned(begin, size)
        if is_direct(written):
            left = max(os.fstat(source).st_size - begin, 0)
            require_aligned(begin, to, min(size, left))
        return os.copy_file_range(source, written, size, begin, to)

    def seek_data(self, slot: int, offset: int, hole: bool) -> tuple[int, int]:
        """Where lseek goes (-1: nowhere), and the size of the file: what is data is the file
        system's choice."""
        fd = self.no_folder(slot)
        before = os.lseek(fd, 0, os.SEEK_CUR)
        try:
            found = os.lseek(fd, offset, os.SEEK_HOLE if hole else os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            found = -1
        finally:
            os.lseek(fd, before, os.SEEK_SET)
        return found, os.fstat(fd).st_size

    # -- mappings -----------------------------------------------------------------------

    def mmap(
        self, number: int, slot: int, offset: int, length: int, shared: bool, writable: bool
    ) -> None:
        """Set-id bits do not survive writes through maps, on FUSE alone: none are mapped so."""
        self.munmap(number)
        fd = self.fd(slot)
        if shared and writable and os.fstat(fd).st_mode & (stat.S_ISUID | stat.S_ISGID):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        self.maps[number] = system.Mapping(fd, offset, length, shared, writable)

    def munmap(self, number: int) -> None:
        mapping = self.maps.pop(number, None)
        if mapping is not None:
            mapping.close()

    def mread(self, number: int, offset: int, size: int) -> Any:
        mapping = self.maps.get(number)
        return None if mapping is None else digested(mapping.read(offset, size))

    def mwrite(self, number: int, offset: int, seed: int, size: int) -> int | None:
        mapping = self.maps.get(number)
        return None if mapping is None else mapping.write(offset, content(seed, size))

    def msync(self, number: int) -> None:
        if number in self.maps:
            self.maps[number].sync()

    # -- locks --------------------------------------------------------------------------

    def flock(self, slot: int, how: int) -> None:
        fcntl.flock(self.fd(slot), how | fcntl.LOCK_NB)

    def setlk(self, slot: int, kind: int, start: int, length: int, of_file: bool) -> None:
        command = fcntl.F_OFD_SETLK if of_file else fcntl.F_SETLK
        fcntl.fcntl(self.fd(slot), command, _LOCK.pack(kind, os.SEEK_SET, start, length, 0))

    def getlk(self, slot: int, kind: int, start: int, length: int) -> tuple[int, ...]:
        lock = _LOCK.pack(kind, os.SEEK_SET, start, length, 0)
        answer = _LOCK.unpack(fcntl.fcntl(self.fd(slot), fcntl.F_GETLK, lock))
        return answer[:1] if answer[0] == fcntl.F_UNLCK else answer

    # -- names --------------------------------------------------------------------------

    def mkdir(self, path: str, mode: int) -> None:
        fd, rest = self.place(path)
        os.mkdir(rest, mode, dir_fd=fd)

    def rmdir(self, path: str) -> None:
        fd, rest = self.place(path)
        os.rmdir(rest, dir_fd=fd)

    def unlink(self, path: str) -> None:
        fd, rest = self.place(path)
        os.unlink(rest, dir_fd=fd)

    def mknod(self, path: str, mode: int, device: int) -> None:
        fd, rest = self.place(path)
        os.mknod(rest, mode, device, dir_fd=fd)

    def symlink(self, target: str, path: str) -> None:
        fd, rest = self.place(path)
        os.symlink(os.fsencode(target), rest, dir_fd=fd)

    def link(self, old: str, new: str, follow: bool) -> None:
        (fd, rest), (new_fd, new_rest) = self.place(old), self.place(new)
        os.link(rest, new_rest, src_dir_fd=fd, dst_dir_fd=new_fd, follow_symlinks=follow)

    def link_open(self, slot: int, new: str) -> None:
        """Gives an open file a name, as linkat(2) with /proc/self/fd does."""
        new_fd, rest = self.place(new)
        os.link(f"/proc/self/fd/{self.fd(slot)}", rest, dst_dir_fd=new_fd, follow_symlinks=True)

    def rename(self, old: str, new: str, flags: int) -> None:
        (fd, rest), (new_fd, new_rest) = self.place(old), self.place(new)
        system.rename(fd, rest, new_fd, new_rest, flags)

    # -- attributes ---------------------------------------------------------------------

    def stat(self, path: str) -> tuple[int, ...]:
        status = os.stat(self.named(path))
        size = -1 if stat.S_ISDIR(status.st_mode) else status.st_size
        return status.st_mode, status.st_uid, status.st_gid, size, status.st_nlink

    def access(self, path: str, mode: int, effective: bool) -> bool:
        fd, rest = self.place(path)
        return os.access(rest, mode, dir_fd=fd, effective_ids=effective)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self.named(path), mode)

    def chown(self, path: str, uid: int, gid: int, follow: bool) -> None:
        target = self.named(path)
        if isinstance(target, int):
            os.fchown(target, uid, gid)
        else:
            os.chown(target, uid, gid, follow_symlinks=follow)

    def utimens(self, path: str, atime: int, mtime: int, follow: bool) -> tuple[int, int]:
        fd, rest = self.place(path)
        system.utimens(fd, rest or None, atime, mtime, follow)
        target = self.named(path)
        status = os.stat(target, follow_symlinks=follow) if rest else os.stat(target)
        special = {UTIME_NOW, UTIME_OMIT}
        return (
            0 if atime in special else status.st_atime_ns,
            0 if mtime in special else status.st_mtime_ns,
        )

    def truncate(self, path: str, size: int) -> None:
        os.truncate(self.named(path), size)

    def readlink(self, path: str) -> bytes:
        fd, rest = self.place(path)
        return os.readlink(rest, dir_fd=fd)

    def listdir(self, path: str) -> list[bytes]:
        """Opened anew: listings by descriptor share a position with it."""
        target = self.named(path)
        if isinstance(target, int):
            target = b"/proc/self/fd/%d" % target
        return sorted(os.listdir(target))

    def statvfs(self, path: str) -> tuple[int, bool]:
        found = os.statvfs(self.named(path))
        sane = 0 < found.f_bavail <= found.f_bfree <= found.f_blocks and found.f_frsize > 0
        return found.f_namemax, sane

    def setxattr(self, path: str, name: str, value: bytes, flags: int, follow: bool) -> None:
        target = self.named(path)
        follow = follow or isinstance(target, int)
        os.setxattr(target, name, value, flags, follow_symlinks=follow)

    def getxattr(self, path: str, name: str, follow: bool) -> Any:
        target = self.named(path)
        follow = follow or isinstance(target, int)
        return digested(os.getxattr(target, name, follow_symlinks=follow))

    def removexattr(self, path: str, name: str, follow: bool) -> None:
        target = self.named(path)
        os.removexattr(target, name, follow_symlinks=follow or isinstance(target, int))

    def listxattr(self, path: str, follow: bool) -> list[str]:
        target = self.named(path)
        return sorted(os.listxattr(target, follow_symlinks=follow or isinstance(target, int)))

    def syncfs(self) -> None:
        fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.top)
        try:
            system.syncfs(fd)
        finally:
            os.close(fd)

    # -- listings -----------------------------------------------------------------------

    def getdents(self, slot: int, count: int) -> tuple[list[bytes] | None, list[bytes]]:
        """At least `count` more names, and an empty one where the directory ends; `.` and `..`
        are left out. At the beginning also what the directory holds now."""
        initial = None
        if slot not in self.positions:
            initial = self._names(slot)
        positions = self.positions.setdefault(slot, [])
        found: list[bytes] = []
        while len(found) < count:
            entries = getdents(self.fd(slot), DIRENT_SIZE)
            if not entries:
                return initial, [*found, b""]
            for entry in entries:
                if entry.name not in {b".", b".."}:
                    found.append(entry.name)
                    positions.append(entry.position)
        return initial, found

    def _names(self, slot: int) -> list[bytes] | None:
        """None where the directory is gone or closed to this user by now."""
        try:
            return os.listdir(b"/proc/self/fd/%d" % self.fd(slot))
        except OSError:
            return None

    def seekdir(self, slot: int, index: int) -> int:
        """Goes back to behind the name that came as number `index`; 0 is the beginning.
        Returns how many names lie before."""
        index = min(index, len(self.positions.get(slot, [])))
        position = self.positions[slot][index - 1] if index else 0
        os.lseek(self.fd(slot), position, os.SEEK_SET)
        if index:
            del self.positions[slot][index:]
        else:
            self.positions.pop(slot, None)
        return index
