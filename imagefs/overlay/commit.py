"""Making a stored tree of an overlay: only what lies on the path to a change is written.

Touched are the directories that have rows, those that hold an inode of the base that has
one, and all above them. They are stored from the deepest up: one of the base by changing
its pages, one made here from its rows. Rows are read directory by directory and the files of
some thousand of them are stored together, so memory does not grow with the overlay.

Runs in a worker thread with a `Tree` of its own. Nothing may change meanwhile; the loop's
thread may read.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, NamedTuple

from imagefs.format.directory import Entry
from imagefs.format.manifest import Manifest, encode_manifest
from imagefs.model import ROOT_INO, Ino, ObjectId
from imagefs.overlay.bookkeeping import Bookkeeping
from imagefs.overlay.fresh import Fresh
from imagefs.overlay.inodes import GET_INODE, Inode, inode_of, unpack_xattrs
from imagefs.overlay.layer import Layer
from imagefs.overlay.links import Links, Places
from imagefs.overlay.names import LIST_NAMES
from imagefs.overlay.sealing import Sealer, Stored
from imagefs.store import StoreWriter
from imagefs.tree import Tree
from imagefs.tree.build import (
    DirectoryBuilder,
    DirectorySummary,
    Put,
    update_directory,
    write_links,
)
from imagefs.tree.contents import Fetch

_BATCH: Final = 4096
_THREADS: Final = 3

_STORED = "SELECT ino, mode, parent FROM inode WHERE ino <= ?"
_DIRECTORIES = "SELECT ino, parent FROM inode WHERE ino > ? AND mode & 61440 = 16384"

Child = tuple[bytes, Inode | None]
"""A name and what it stands for, None when it is gone."""


class _Unit(NamedTuple):
    """Some of the names of a directory, in order; `last` if there are no more."""

    directory: int
    children: list[Child]
    last: bool


class Commit:
    """One commit. `fetch` gets stored objects and blocks."""

    def __init__(self, layer: Layer, writer: StoreWriter, fetch: Fetch) -> None:
        database = layer.database()
        assert database is not None
        self._layer = layer
        self._database = database
        self._fetch = fetch
        self._writer = writer
        self._put: Put = partial(writer.put, metadata=True)
        self._base = Tree(fetch, layer.base.manifest_id)
        self._total = self._base.total
        self._places = Places(self._base, database)
        self._links = Links(self._base, fetch, self._places, database)
        self._parents: dict[int, int] = {}
        """The directory above, of every touched directory."""
        self._positions: dict[int, list[tuple[bytes, int]]] = {}
        """By directory, the names of the base in it whose inode changed where it is."""
        self._builder = DirectoryBuilder(self._put)
        self._changes: dict[bytes, Entry | None] = {}
        """These two are of the one directory that is not complete yet."""
        self._summaries: dict[int, DirectorySummary] = {}
        self._linked: dict[int, Stored] = {}
        self._bookkeeping = Bookkeeping(layer.changes)

    def run(self) -> tuple[ObjectId, Bookkeeping]:
        """Put all objects of the tree; returns its manifest id. Blocks. The caller finishes
        the writer before it lets anybody know."""
        self._find_touched()
        with ThreadPoolExecutor(_THREADS, "commit") as pool:
            sealer = Sealer(
                self._database, self._layer.heap, self._fetch, self._writer.put, self._put, pool
            )
            for batch in self._batches():
                self._store_batch(sealer, batch)
        root = self._entry(b"", self._inode(ROOT_INO), {})
        manifest = encode_manifest(Manifest(root, self._link_table()))
        return self._put(manifest), self._bookkeeping

    def _link_table(self) -> bytes | None:
        if not self._layer.space.relinked:
            return self._base.manifest.links
        return write_links(self._put, self._links.groups())

    # -- which directories --------------------------------------------------------------

    def _find_touched(self) -> None:
        stored = self._database.rows(_STORED, (self._total,))
        made = self._database.rows(_DIRECTORIES, (self._total,))
        self._parents.update(made)
        touched: set[int] = {ROOT_INO}
        for ino, mode, parent in stored:
            if not stat.S_ISDIR(mode):
                touched.update(self._note_positions(Ino(ino)))
            elif parent:
                self._parents[ino] = parent
            else:
                touched.add(ino)
        for directory in [*touched, *self._parents.values()]:
            self._note_above(directory)

    def _note_positions(self, ino: Ino) -> list[int]:
        """Where the base has an inode and it still is; returns the directories."""
        directories = []
        for directory, name in self._base_names(ino):
            if self._places.path(directory) is None or self._places.is_shadowed(directory, name):
                continue
            self._positions.setdefault(directory, []).append((name, ino))
            directories.append(directory)
        return directories

    def _base_names(self, ino: Ino) -> Iterator[tuple[int, bytes]]:
        entry = self._base.entry(ino)
        if not entry.is_linked:
            yield self._base.parent(ino), entry.name
            return
        for path in self._base.link_paths(ino):
            above, _, name = path.rpartition(b"/")
            found = self._base.resolve(above)
            assert found is not None
            yield found[0], name

    def _note_above(self, directory: int) -> None:
        """The directory and all above it are touched."""
        while directory not in self._parents:
            if directory == ROOT_INO:
                self._parents[ROOT_INO] = 0
                return
            parent = self._base.parent(Ino(directory))
            name = self._base.entry(Ino(directory)).name
            self._parents[directory] = parent
            self._positions.setdefault(parent, []).append((name, directory))
            directory = parent

    def _deepest_first(self) -> list[int]:
        depths: dict[int, int] = {ROOT_INO: 0}
        for directory in self._parents:
            above = []
            while directory not in depths:
                above.append(directory)
                directory = self._parents[directory]
            depth = depths[directory]
            for child in reversed(above):
                depth += 1
                depths[child] = depth
        return sorted(self._parents, key=depths.__getitem__, reverse=True)

    # -- their names --------------------------------------------------------------------

    def _batches(self) -> Iterator[list[_Unit]]:
        batch: list[_Unit] = []
        names = 0
        for directory in self._deepest_first():
            for unit in self._units(directory):
                batch.append(unit)
                names += len(unit.children)
                if names >= _BATCH:
                    yield batch
                    batch, names = [], 0
        if batch:
            yield batch

    def _units(self, directory: int) -> Iterator[_Unit]:
        after = b""
        while True:
            rows = self._database.rows(LIST_NAMES, (directory, after, _BATCH))
            children: list[Child] = [
                (name, Inode(*columns) if ino else None) for name, ino, *columns in rows
            ]
            if len(rows) < _BATCH:
                break
            yield _Unit(directory, children, last=False)
            after = rows[-1][0]
        positions = self._positions.pop(directory, ())
        children += [(name, self._inode(ino)) for name, ino in positions]
        yield _Unit(directory, children, last=True)

    def _inode(self, ino: int) -> Inode:
        row = self._database.row(GET_INODE, (ino,))
        if row is not None:
            return Inode(*row)
        return inode_of(self._base, Ino(ino), self._base.entry(Ino(ino)))

    # -- storing ------------------------------------------------------------------------

    def _store_batch(self, sealer: Sealer, batch: list[_Unit]) -> None:
        """Store the files of these units, then their directories."""
        files = {
            inode.ino: inode
            for unit in batch
            for _, inode in unit.children
            if inode is not None and inode.is_regular and inode.ino not in self._linked
        }
        contents = sealer.store(files.values())
        for ino, stored in contents.items():
            inode = files[ino]
            if inode.nlink > 1:
                self._linked[ino] = stored
            if stored.changed:
                self._bookkeeping.add(inode, stored)
        for unit in batch:
            self._store_unit(unit, contents)

    def _store_unit(self, unit: _Unit, contents: dict[int, Stored]) -> None:
        directory = unit.directory
        entries = [
            (name, None if inode is None else self._entry(name, inode, contents))
            for name, inode in unit.children
        ]
        for name, inode in unit.children:
            if inode is not None and inode.nlink > 1 and not inode.is_directory:
                self._links.add(directory, name, inode)
        if directory > self._total:
            for _, entry in entries:
                if entry is not None:
                    self._builder.add(entry)
            if unit.last:
                self._summaries[directory] = self._builder.finish()
                self._builder = DirectoryBuilder(self._put)
            return
        self._changes.update(entries)
        if unit.last:
            fresh = Fresh(self._fetch, self._put)
            ref = self._base.entry(Ino(directory)).ref
            assert ref is not None
            self._summaries[directory] = update_directory(
                fresh.fetch, fresh.put, ObjectId(ref), self._changes
            )
            self._changes = {}

    def _entry(self, name: bytes, inode: Inode, contents: dict[int, Stored]) -> Entry:
        """The entry of an inode; of a directory that is stored already."""
        size, count, ref = 0, inode.rdev, inode.ref
        links = int(inode.nlink > 1)
        if inode.is_directory:
            summary = self._summaries.pop(inode.ino)
            size, count, ref, links = summary.size, summary.count, summary.ref, summary.links
        elif inode.is_regular:
            stored = contents.get(inode.ino) or self._linked[inode.ino]
            size, count, ref = inode.size, stored.allocated, stored.ref
        elif ref is not None:
            size = len(ref)
        xattrs = unpack_xattrs(inode.xattrs) or None
        return Entry(
            name, inode.mode, inode.uid, inode.gid, inode.mtime, size, count, ref, links, xattrs
        )
