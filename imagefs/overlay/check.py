"""Looking for contradictions in an overlay. Reads every row; changes nothing; blocks.

What is checked: rows name inodes that exist, directories hang together, link counts are the
numbers of names, extents belong to files and share no byte of the heap, and the figures an
inode keeps about its content can be true.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator
from typing import Final

from imagefs.format.content import chunk_count
from imagefs.model import CHUNK_SIZE, ROOT_INO, Ino
from imagefs.overlay import database as db
from imagefs.overlay import heap as heap_file
from imagefs.overlay.database import Database
from imagefs.overlay.heap import PAGE
from imagefs.overlay.inodes import Inode
from imagefs.overlay.layer import Layer
from imagefs.overlay.links import Places
from imagefs.overlay.space import LIMIT
from imagefs.tree import Tree
from imagefs.tree.contents import Fetch

_INODES: Final = "SELECT * FROM inode"
_NAMES: Final = """
    SELECT d.parent, d.name, d.ino, p.mode, i.mode, i.parent FROM dentry d
    LEFT JOIN inode p ON p.ino = d.parent LEFT JOIN inode i ON i.ino = d.ino"""
_EXTENTS: Final = """
    SELECT e.ino, e.chunk, e.place, e.capacity, i.mode, i.size FROM extent e
    LEFT JOIN inode i ON i.ino = e.ino"""
_PLACES: Final = """
    SELECT place, capacity, ino FROM inode WHERE capacity > 0
    UNION ALL SELECT place, capacity, ino FROM extent ORDER BY 1"""
_QUICK_CHECK: Final = "PRAGMA quick_check(10)"


def check(layer: Layer, fetch: Fetch) -> list[str]:
    """What is wrong, one sentence each; nothing when all is well. `fetch` blocks."""
    database = layer.database()
    if database is None:
        return list(_check_unmade(layer))
    return list(_Check(layer, database, fetch).run())


def _check_unmade(layer: Layer) -> Iterator[str]:
    """An overlay without a database has no heap: that one is made later."""
    if layer.disk.size_of(heap_file.path_in(layer.directory)):
        lost = db.path_in(layer.directory)
        yield f"Overlay database {lost} is missing: all changes since its making are lost"


class _Check:
    """One check. `_names` counts the names of every inode that has a row, `_directories`
    the directories in every directory that has one."""

    def __init__(self, layer: Layer, database: Database, fetch: Fetch) -> None:
        self._layer = layer
        self._database = database
        self._base = Tree(fetch, layer.base.manifest_id)
        self._total = self._base.total
        self._places = Places(self._base, database)
        self._orphans = set(layer.inodes.orphans)
        self._names: Counter[int] = Counter()
        self._directories: Counter[int] = Counter()

    def run(self) -> Iterator[str]:
        for (line,) in self._database.rows(_QUICK_CHECK):
            if line != "ok":
                yield f"Database: {line}"
        yield from self._check_names()
        for row in self._database.rows(_INODES):
            yield from self._check_inode(Inode(*row))
        yield from self._check_extents()
        yield from self._check_heap()

    # -- names --------------------------------------------------------------------------

    def _check_names(self) -> Iterator[str]:
        for directory, name, ino, mode, child_mode, parent in self._database.rows(_NAMES):
            where = f"Name {name!r} in directory {directory}"
            if mode is None or not stat.S_ISDIR(mode):
                yield f"{where}: that is no directory with a row"
                continue
            below = self._below(directory, name)
            if below is not None and stat.S_ISDIR(below):
                self._directories[directory] -= 1
            if not ino:
                if below is None:
                    yield f"{where} hides nothing"
                continue
            if child_mode is None:
                yield f"{where} stands for inode {ino}, which has no row"
                continue
            self._names[ino] += 1
            if stat.S_ISDIR(child_mode):
                self._directories[directory] += 1
                if parent != directory:
                    yield f"{where} stands for directory {ino}, which is in {parent}"

    def _below(self, directory: int, name: bytes) -> int | None:
        """The mode of what the base has there."""
        if directory > self._total:
            return None
        found = self._base.lookup(Ino(directory), name)
        return None if found is None else found[1].mode

    # -- inodes -------------------------------------------------------------------------

    def _check_inode(self, inode: Inode) -> Iterator[str]:
        what = f"Inode {inode.ino}"
        if inode.is_directory:
            yield from self._check_directory(inode)
            return
        names = self._names[inode.ino] + self._names_of_base(inode.ino)
        if inode.nlink != names:
            yield f"{what} counts {inode.nlink} names and has {names}"
        if not inode.is_regular:
            if inode.capacity:
                yield f"{what} is no regular file and has content"
            return
        fits = 0 <= inode.keep <= inode.ref_size and inode.keep <= inode.size
        if not fits or inode.ref_count > inode.ref_size or inode.allocated < 0:
            yield f"{what} has figures that contradict each other: {inode}"
        yield from _check_place(what, inode.capacity, inode.size, 0)

    def _check_directory(self, inode: Inode) -> Iterator[str]:
        what = f"Directory {inode.ino}"
        links = 2 + self._directories[inode.ino]
        if inode.ino <= self._total:
            links += self._base.entry(Ino(inode.ino)).links
        if inode.nlink != links:
            yield f"{what} counts {inode.nlink - 2} directories in it and has {links - 2}"
        names = self._names[inode.ino] + self._names_of_base(inode.ino)
        if inode.ino != ROOT_INO and names != 1:
            yield f"{what} has {names} names"
        if not self._is_alive(inode.ino):
            yield f"{what} cannot be reached from the root"

    def _names_of_base(self, ino: int) -> int:
        """How many names the base gives the inode that are still there."""
        if ino > self._total:
            return 0
        count = 0
        for path in self._base.link_paths(Ino(ino)):
            above, _, name = path.rpartition(b"/")
            found = self._base.resolve(above)
            if found is not None and not self._places.is_shadowed(found[0], name):
                count += self._is_alive(found[0])
        return count

    def _is_alive(self, directory: int) -> bool:
        seen = set()
        while directory != ROOT_INO:
            parent = self._places.parent(directory)
            if parent is None or directory in seen:
                return False
            seen.add(directory)
            directory = parent
        return True

    # -- content ------------------------------------------------------------------------

    def _check_extents(self) -> Iterator[str]:
        for ino, chunk, _, capacity, mode, size in self._database.rows(_EXTENTS):
            what = f"Chunk {chunk} of inode {ino}"
            if ino in self._orphans:
                continue
            if mode is None or not stat.S_ISREG(mode) or chunk == 0:
                yield f"{what} is in the heap and no content of a file"
                continue
            yield from _check_place(what, capacity, size, chunk)

    def _check_heap(self) -> Iterator[str]:
        end = 0
        size = self._layer.heap.size()
        for place, capacity, ino in self._database.rows(_PLACES):
            if place >= size:
                yield f"Inode {ino} has content at {place}, the heap ends at {size}"
            if place < end:
                yield f"Inode {ino} shares bytes of the heap at {place} with another"
            end = max(end, place + capacity)
        if end > LIMIT:
            yield f"The heap is used up to {end} and ends at {LIMIT}"


def _check_place(what: str, capacity: int, size: int, chunk: int) -> Iterator[str]:
    if capacity % PAGE or not 0 <= capacity <= CHUNK_SIZE:
        yield f"{what} has a capacity of {capacity} bytes"
    if capacity and chunk >= chunk_count(size):
        yield f"{what} is in the heap, behind the end of the file"
