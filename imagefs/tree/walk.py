"""The canonical walk: a directory, then everything below each of its entries in name order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from imagefs.format.directory import Entry
from imagefs.model import ROOT_INO, Ino
from imagefs.tree.tree import Tree

_PIECE: Final = 256
"""Entries listed at once: a walk holds this many for each directory above it."""


def walk(tree: Tree) -> Iterator[tuple[bytes, Ino, Entry]]:
    """Every path with its inode number and entry, the root (path b"") first.

    All names of one inode come with its one number. Depth is limited by memory alone.
    """
    yield b"", ROOT_INO, tree.entry(ROOT_INO)
    stack = [(0, _children(tree, ROOT_INO))]
    path = b""
    while stack:
        length, children = stack[-1]
        row = next(children, None)
        if row is None:
            stack.pop()
            continue
        ino, entry = row
        path = path[:length] + b"/" + entry.name if length else entry.name
        yield path, ino, entry
        if entry.is_directory:
            stack.append((len(path), _children(tree, ino)))


def _children(tree: Tree, directory: Ino) -> Iterator[tuple[Ino, Entry]]:
    after: bytes | None = None
    while rows := tree.list(directory, after, _PIECE):
        yield from rows
        after = rows[-1][1].name
        if len(rows) < _PIECE:
            return
