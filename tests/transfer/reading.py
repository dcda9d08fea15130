"""Importing a directory and looking at the tree that it became."""

from __future__ import annotations

from pathlib import Path

from imagefs.format.directory import Entry
from imagefs.model import CHUNK_SIZE, Ino, ObjectId
from imagefs.store import Store
from imagefs.transfer.import_directory import import_directory
from imagefs.tree import Tree
from imagefs.tree.walk import walk


def imported(store: Store, source: Path) -> ObjectId:
    with store.writer() as writer:
        return import_directory(source, writer, store.get)


def tree_of(store: Store, source: Path) -> Tree:
    return Tree(store.get, imported(store, source))


def entries(tree: Tree) -> dict[bytes, Entry]:
    return {path: entry for path, _, entry in walk(tree)}


def found(tree: Tree, path: bytes) -> tuple[Ino, Entry]:
    place = tree.resolve(path)
    assert place is not None
    return place


def content(store: Store, tree: Tree, entry: Entry) -> bytes:
    chunks = tree.chunk_ids(entry, 0, entry.size // CHUNK_SIZE)
    data = b"".join(bytes(CHUNK_SIZE) if chunk is None else store.get(chunk) for chunk in chunks)
    return data[: entry.size]
