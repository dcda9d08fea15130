"""What a tree of the model looks like, and how two of them differ.

Times of modification are compared where somebody set them; what an operation set to the present
counts as "recent" on both sides. Inode numbers are compared as groups of hard links. Of files
that are huge only the parts that the host has data for are read, and what follows them.
"""

import hashlib
import os
import stat
from typing import Any, NamedTuple

from imagefs.model import CHUNK_SIZE

READ_WHOLE = 8 << 20
AROUND = 1 << 17
RECENT = -1
Path = bytes


class Fact(NamedTuple):
    """One entry. `size` is -1 for directories; `content` is a digest or a symlink's target."""

    mode: str
    uid: int
    gid: int
    size: int
    nlink: int
    device: int
    mtime: int
    xattrs: tuple[tuple[str, bytes], ...]
    content: Any = None
    first: bytes = b""


def entry(full: bytes, epoch: int) -> tuple[Fact, os.stat_result]:
    """The entry without its content; `epoch` is when times began to be recent."""
    status = os.lstat(full)
    kind = stat.S_IFMT(status.st_mode)
    names = sorted(os.listxattr(full, follow_symlinks=False))
    xattrs = tuple((name, os.getxattr(full, name, follow_symlinks=False)) for name in names)
    is_device = kind in {stat.S_IFCHR, stat.S_IFBLK}
    fact = Fact(
        stat.filemode(status.st_mode),
        status.st_uid,
        status.st_gid,
        -1 if kind == stat.S_IFDIR else status.st_size,
        status.st_nlink,
        status.st_rdev if is_device else 0,
        RECENT if status.st_mtime_ns >= epoch else status.st_mtime_ns,
        xattrs,
    )
    return fact, status


class Tree:
    """All entries of a tree; `ranges` says which parts of huge files to read."""

    def __init__(self, top: bytes, epoch: int, ranges: dict[Path, list[tuple[int, int]]] | None):
        self.facts: dict[Path, Fact] = {}
        self.inodes: dict[Path, int] = {}
        self.status: dict[Path, os.stat_result] = {}
        self.given = ranges
        self.ranges: dict[Path, list[tuple[int, int]]] = {}
        self._firsts: dict[int, Path] = {}
        self._epoch = epoch
        self._read(top, b".", os.lstat(top).st_ino)

    def _read(self, full: bytes, path: bytes, ino: int) -> None:
        fact, status = entry(full, self._epoch)
        assert status.st_ino == ino, f"{path!r}: listed as inode {ino}, is {status.st_ino}"
        kind = stat.S_IFMT(status.st_mode)
        content: Any = None
        if kind == stat.S_IFREG:
            content = self._content(full, path, status.st_size)
        elif kind == stat.S_IFLNK:
            content = os.readlink(full)
        first = self._firsts.setdefault(status.st_ino, path)
        self.facts[path] = fact._replace(content=content, first=first)
        self.inodes[path] = status.st_ino
        self.status[path] = status
        if kind == stat.S_IFDIR:
            with os.scandir(full) as found:
                entries = sorted((item.name, item.inode()) for item in found)
            assert len(dict(entries)) == len(entries), f"{path!r} lists a name twice: {entries}"
            for name, number in entries:
                self._read(os.path.join(full, name), os.path.join(path, name), number)

    def _content(self, full: bytes, path: bytes, size: int) -> Any:
        fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if size <= READ_WHOLE:
                return checksum(fd, 0, size)
            ranges = data_ranges(fd, size) if self.given is None else self.given.get(path, [])
            self.ranges[path] = ranges
            return tuple((begin, checksum(fd, begin, end)) for begin, end in ranges)
        finally:
            os.close(fd)


def checksum(fd: int, begin: int, end: int) -> str:
    """Of a part of a file; the digest of zeros is the same however many there are to read."""
    digest = hashlib.blake2b(digest_size=12)
    while begin < end:
        piece = os.pread(fd, min(1 << 20, end - begin), begin)
        assert piece, f"Nothing to read at {begin}, although the file reaches to {end}"
        digest.update(piece)
        begin += len(piece)
    return digest.hexdigest()


def data_ranges(fd: int, size: int) -> list[tuple[int, int]]:
    """Where the host has data, and a piece of the hole before and behind."""
    found = [(0, AROUND), (size - AROUND, size)]
    at = 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(fd, begin, os.SEEK_HOLE)
        found.append((max(begin - AROUND, 0), min(at + AROUND, size)))
    return merged(sorted(found))


def merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    result: list[tuple[int, int]] = []
    for begin, end in ranges:
        if result and begin <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((begin, end))
    return result


def differences(host: Tree, instance: Tree, untimed: set[int]) -> list[str]:
    """What the instance has otherwise, one line an entry; empty when equal. The time of inodes
    of the host that are `untimed` does not count."""
    found = []
    for path in sorted(host.facts.keys() | instance.facts.keys()):
        expected, actual = host.facts.get(path), instance.facts.get(path)
        if expected and actual and host.inodes[path] in untimed:
            actual = actual._replace(mtime=expected.mtime)
        if expected != actual:
            found.append(f"{path!r}\n  host     {told(expected, actual)}\n"
                         f"  instance {told(actual, expected)}")  # fmt: skip
    return found or blocks(host, instance, untimed)


def told(fact: Fact | str | None, other: Fact | str | None) -> str:
    """The fields that differ."""
    if not isinstance(fact, Fact) or not isinstance(other, Fact):
        return str(fact)
    pairs = zip(Fact._fields, fact, other, strict=True)
    return " ".join(f"{name}={value!r}" for name, value, wanted in pairs if value != wanted)


def blocks(host: Tree, instance: Tree, untimed: set[int]) -> list[str]:
    """Files whose st_blocks `du` could not use: fewer bytes than differ from zero, or many more
    than the host needs, counted in chunks. The chunk in which a file was cut counts as long as it
    is there, also when the host has nothing left of it. Of `untimed` inodes there may be pages
    that have not gone out and do not count yet."""
    found = []
    for path, status in instance.status.items():
        if not stat.S_ISREG(status.st_mode):
            continue
        needed = 32 * host.status[path].st_blocks * 512 + CHUNK_SIZE
        most = min(needed, status.st_size) + 4096
        uncounted = status.st_blocks == 0 and host.inodes[path] not in untimed
        if status.st_blocks * 512 > most or (uncounted and _has_data(host, path)):
            found.append(f"{path!r} has {status.st_blocks} blocks, on the host"
                         f" {host.status[path].st_blocks}")  # fmt: skip
    return found


def _has_data(host: Tree, path: bytes) -> bool:
    """Whether the file is small and not all zeros."""
    size = host.status[path].st_size
    if not size or size > READ_WHOLE:
        return False
    zeros = hashlib.blake2b(bytes(size), digest_size=12).hexdigest()
    return bool(host.facts[path].content != zeros)
