r"""A tree as text: one line for every path in canonical order, with every attribute.

    imagefs dump 1
    / d 0755 0 0 1690000000.000000000 size=5 entries=2 content=3f…
    /hello f 0644 0 0 1690000000.250000000 size=5 data=5 content=9a… link=/hello
    /link l 0777 0 0 1690000000.000000000 target=hello xattr:security.selinux=…

The columns are path, type (f, d, l, c, b, p, s), mode, uid, gid and mtime in seconds; then
what the type has. `size` is in bytes, `data` bytes of it are not holes, `content` is the
object the entry refers to (no object: no word), `entries` counts everything below, `device`
is MAJOR:MINOR, `link` is the first path of the inode on each of its names. Bytes other than
printable ASCII, and blank, backslash and `=`, are written \xNN. Nothing is left out: the
tree can be built again from the dump and the chunks.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final

from imagefs.format.directory import Entry
from imagefs.model import Ino
from imagefs.tree.tree import Tree
from imagefs.tree.walk import walk

HEADER: Final = "imagefs dump 1"

TYPES: Final = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
}

_ESCAPED: Final = tuple(
    chr(byte) if 0x20 < byte < 0x7F and chr(byte) not in "\\=" else f"\\x{byte:02x}"
    for byte in range(256)
)
_NANOSECONDS: Final = 10**9


def dump(tree: Tree) -> Iterator[str]:
    """The lines of the dump, without newlines."""
    yield HEADER
    for path, ino, entry in walk(tree):
        yield " ".join(_words(tree, path, ino, entry))


def escape(data: bytes) -> str:
    """Bytes as they are written in a dump."""
    return "".join([_ESCAPED[byte] for byte in data])


def format_time(time: int) -> str:
    """Nanoseconds as seconds, exactly."""
    seconds, rest = divmod(abs(time), _NANOSECONDS)
    return f"{'-' if time < 0 else ''}{seconds}.{rest:09d}"


def _words(tree: Tree, path: bytes, ino: Ino, entry: Entry) -> Iterator[str]:
    yield "/" + escape(path)
    yield TYPES[stat.S_IFMT(entry.mode)]
    yield f"{stat.S_IMODE(entry.mode):04o}"
    yield str(entry.uid)
    yield str(entry.gid)
    yield format_time(entry.mtime)
    yield from _content_words(entry)
    if entry.is_linked:
        yield "link=/" + escape(tree.path(ino))
    for key, value in entry.xattrs or ():
        yield f"xattr:{escape(key)}={escape(value)}"


def _content_words(entry: Entry) -> Iterator[str]:
    kind = stat.S_IFMT(entry.mode)
    if kind == stat.S_IFLNK:
        yield f"target={escape(entry.ref or b'')}"
        return
    if kind in {stat.S_IFCHR, stat.S_IFBLK}:
        yield f"device={os.major(entry.count)}:{os.minor(entry.count)}"
        return
    if kind == stat.S_IFREG:
        yield f"size={entry.size}"
        yield f"data={entry.count}"
    elif kind == stat.S_IFDIR:
        yield f"size={entry.size}"
        yield f"entries={entry.count}"
    if entry.ref is not None:
        yield f"content={entry.ref.hex()}"
