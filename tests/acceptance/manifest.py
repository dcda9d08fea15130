"""Everything about a directory tree as comparable lines: the judge of what a copy kept.

One line per entry: path, type, mode, owner, modification time in ns, size, device number, extended
attributes (ACLs are among them, as the kernel stores them), and the SHA-256 of the content or the
target of a symlink. Members of a hard-link group name the group's first path. Times of access
and change, inode numbers and sizes of directories belong to the file system, not to the tree.

Whether a file is sparse is kept aside: a copy must not lose holes, but may gain some.
"""

import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character-device",
    stat.S_IFBLK: "block-device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
# Holes shorter than two chunks of content may lie across a border, where nothing can be left out.
CERTAIN_HOLE = 256 * 1024
READ_SIZE = 1024 * 1024

Accept = Callable[[bytes], bool]


class Manifest(NamedTuple):
    """The lines by path, and which files have holes."""

    lines: dict[bytes, str]
    sparse: frozenset[bytes]

    def to_json(self) -> str:
        lines = {path.hex(): line for path, line in self.lines.items()}
        return json.dumps({"lines": lines, "sparse": [path.hex() for path in self.sparse]})

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        data = json.loads(text)
        lines = {bytes.fromhex(path): line for path, line in data["lines"].items()}
        return cls(lines, frozenset(map(bytes.fromhex, data["sparse"])))


def manifest(root: Path, *, accept: Accept = lambda _: True) -> Manifest:
    """Reads the whole tree; `accept` leaves out paths (and what is below them)."""
    lines: dict[bytes, str] = {}
    sparse: set[bytes] = set()
    first_paths: dict[tuple[int, int], bytes] = {}
    for path, full, status in walk(os.fsencode(root), b".", accept):
        link_to = b""
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            link_to = first_paths.setdefault((status.st_dev, status.st_ino), path)
        lines[path] = line(path, full, status, link_to)
        if stat.S_ISREG(status.st_mode) and has_hole(status):
            sparse.add(path)
    return Manifest(lines, frozenset(sparse))


def walk(top: bytes, path: bytes, accept: Accept) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    """The tree in order of names, each as (path inside, path outside, lstat)."""
    full = os.path.join(top, path)
    status = os.lstat(full)
    yield path, full, status
    if stat.S_ISDIR(status.st_mode):
        for name in sorted(os.listdir(full)):
            below = os.path.join(path, name)
            if accept(below):
                yield from walk(top, below, accept)


def line(path: bytes, full: bytes, status: os.stat_result, link_to: bytes) -> str:
    kind = TYPES[stat.S_IFMT(status.st_mode)]
    fields = [
        escape(path),
        kind,
        f"mode={stat.S_IMODE(status.st_mode):04o}",
        f"owner={status.st_uid}:{status.st_gid}",
        f"mtime={status.st_mtime_ns}",
    ]
    if kind in {"file", "symlink"}:
        fields.append(f"size={status.st_size}")
    if kind in {"character-device", "block-device"}:
        fields.append(f"device={os.major(status.st_rdev)}:{os.minor(status.st_rdev)}")
    if link_to:
        fields.append(f"links={status.st_nlink} first={escape(link_to)}")
    fields += [f"{name}={value.hex()}" for name, value in xattrs(full)]
    if kind == "file":
        fields.append(f"sha256={checksum(full)}")
    if kind == "symlink":
        fields.append(f"target={escape(os.readlink(full))}")
    return " ".join(fields)


def xattrs(full: bytes) -> list[tuple[str, bytes]]:
    names = sorted(os.listxattr(full, follow_symlinks=False))
    return [(name, os.getxattr(full, name, follow_symlinks=False)) for name in names]


def checksum(full: bytes) -> str:
    digest = hashlib.sha256()
    with open(full, "rb", buffering=0) as file:
        while piece := file.read(READ_SIZE):
            digest.update(piece)
    return digest.hexdigest()


def has_hole(status: os.stat_result) -> bool:
    return status.st_size - status.st_blocks * 512 >= CERTAIN_HOLE


def escape(path: bytes) -> str:
    return repr(path)[2:-1]


def differences(source: Manifest, copy: Manifest) -> list[str]:
    """What the copy has otherwise than the source, one line per finding; empty when equal."""
    found = []
    for path in sorted(source.lines.keys() | copy.lines.keys()):
        before, after = source.lines.get(path), copy.lines.get(path)
        if before != after:
            found += [f"- {before}"] * (before is not None) + [f"+ {after}"] * (after is not None)
    found += [f"no longer sparse: {escape(path)}" for path in sorted(source.sparse - copy.sparse)]
    return found


def assert_equal(source: Manifest, copy: Manifest) -> None:
    """Fails with the first differences."""
    found = differences(source, copy)
    shown = "\n".join(found[:20])
    assert not found, f"{len(found)} differences, for example\n{shown}"


if __name__ == "__main__":
    # For reading a mount that only another user may enter.
    print(manifest(Path(sys.argv[1])).to_json())
