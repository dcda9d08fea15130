"""Looking for contradictions in an overlay. Reads every row; changes nothing; blocks.

What is checked: rows name inodes that exist, values can be, directories hang together, link
counts are the numbers of names, extents belong to files, lie in the heap and share no byte of
it (overlay.check_heap), the figures an inode keeps about its content are true, and so are the
totals of the whole. Rows are read in pieces, so memory does not grow with them, but for some
four bytes an inode.
"""

from __future__ import annotations

import stat
from array import array
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import msgspec

from imagefs.errors import Corrupt
from imagefs.format.directory import Entry, check_xattrs, valid_name
from imagefs.model import MAX_FILE_SIZE, MAX_SYMLINK, OBJECT_ID_SIZE, ROOT_INO, Ino
from imagefs.overlay import database as db
from imagefs.overlay import heap as heap_file
from imagefs.overlay.check_heap import check_heap, check_place, stored_bytes
from imagefs.overlay.database import Database
from imagefs.overlay.inodes import Inode, unpack_xattrs
from imagefs.overlay.layer import Layer
from imagefs.overlay.links import Places
from imagefs.overlay.tally import Tally
from imagefs.tree import Tree
from imagefs.tree.contents import Fetch
from imagefs.tree.recent import Recent
from imagefs.tree.tree import DIRECTORY_SIZE

MOST: Final = 1000
"""Problems told of one overlay."""

_AT_ONCE: Final = 2000
_NAMES: Final = """
    SELECT d.parent, d.name, d.ino, p.mode, i.mode, i.parent, i.size FROM dentry d
    LEFT JOIN inode p ON p.ino = d.parent LEFT JOIN inode i ON i.ino = d.ino
    WHERE (d.parent, d.name) > (?, ?) ORDER BY d.parent, d.name LIMIT ?"""
_INODES: Final = "SELECT * FROM inode WHERE ino > ? ORDER BY ino LIMIT ?"
_ORPHANS: Final = "SELECT o.ino FROM orphan o JOIN inode i ON i.ino = o.ino LIMIT 10"
_STATE: Final = "SELECT count(*), max(next_ino) FROM state"
_LARGEST: Final = "SELECT coalesce(max(ino), 0) FROM inode"
_ADDED: Final = """
    SELECT coalesce(sum(added_entries), 0), coalesce(total(added_bytes), 0) FROM inode"""
_QUICK_CHECK: Final = "PRAGMA quick_check(10)"
_EXACT: Final = 2**53
"""Up to here floating point sums of integers are exact."""

_MAX_ID: Final = 2**32 - 1
_SPECIAL: Final = {stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK}


def check(layer: Layer, fetch: Fetch) -> list[str]:
    """What is wrong, one sentence each; nothing when all is well. `fetch` blocks."""
    database = layer.database()
    if database is None:
        return list(_check_unmade(layer))
    return list(islice(_Check(layer, database, fetch).run(), MOST))


def _check_unmade(layer: Layer) -> Iterator[str]:
    """An overlay without a database has no heap: that one is made later."""
    if layer.disk.size_of(heap_file.path_in(layer.directory)):
        lost = db.path_in(layer.directory)
        yield f"Overlay database {lost} is missing: all changes since its making are lost"


class _Check:
    """One check. `_names` counts the names of every inode that has a row, `_directories`
    the directories in every directory that has one, `_hidden` are directories of the base
    whose name in the base is gone from there."""

    def __init__(self, layer: Layer, database: Database, fetch: Fetch) -> None:
        self._layer = layer
        self._database = database
        self._fetch = fetch
        self._base = Tree(fetch, layer.base.manifest_id)
        self._total = self._base.total
        self._places = Places(self._base, database)
        self._orphans = set(layer.inodes.orphans)
        self._names = Tally()
        self._directories = Tally()
        self._hidden = array("Q")
        self._alive: Recent[int, str] = Recent(1 << 16)
        self._entries = self._base.manifest.root.count
        self._bytes = self._base.manifest.root.size

    def run(self) -> Iterator[str]:
        problems = 0
        for problem in self._run():
            problems += 1
            yield problem
        if not problems:
            yield from self._check_totals()

    def _run(self) -> Iterator[str]:
        for (line,) in self._database.rows(_QUICK_CHECK):
            if line != "ok":
                yield f"Database: {line}"
        yield from self._check_state()
        yield from self._check_names()
        after = 0
        while rows := self._database.rows(_INODES, (after, _AT_ONCE)):
            for row in rows:
                yield from self._check_inode(Inode(*row))
            after = rows[-1][0]
        yield from check_heap(self._layer, self._database, self._orphans)

    def _check_state(self) -> Iterator[str]:
        rows, next_ino = self._database.row(_STATE)
        (largest,) = self._database.row(_LARGEST)
        if rows != 1:
            yield f"The overlay has {rows} rows of state"
        elif largest > self._total and largest >= next_ino:
            yield f"Inode {largest} exists, numbers up to {next_ino - 1} were given out"
        for (ino,) in self._database.rows(_ORPHANS):
            yield f"Inode {ino} has a row and counts as one without a name"

    # -- names --------------------------------------------------------------------------

    def _check_names(self) -> Iterator[str]:
        after: tuple[int, bytes] = (-1, b"")
        while rows := self._database.rows(_NAMES, (*after, _AT_ONCE)):
            for row in rows:
                yield from self._check_name(*row)
            after = rows[-1][:2]

    def _check_name(
        self, directory: int, name: bytes, ino: int, mode: Any, child_mode: Any, parent: Any,
        size: Any,
    ) -> Iterator[str]:  # fmt: skip
        where = f"Name {name!r} in directory {directory}"
        if mode is None or not stat.S_ISDIR(mode):
            yield f"{where}: that is no directory with a row"
            return
        if not valid_name(name):
            yield f"{where} cannot exist"
        below = self._below(directory, name)
        if below is not None:
            self._hide(directory, *below)
        if not ino:
            if below is None:
                yield f"{where} hides nothing"
            return
        if child_mode is None:
            yield f"{where} stands for inode {ino}, which has no row"
            return
        self._names.add(ino, 1)
        self._entries += 1
        if stat.S_ISREG(child_mode):
            self._bytes += size
        if stat.S_ISDIR(child_mode):
            self._directories.add(directory, 1)
            if parent != directory:
                yield f"{where} stands for directory {ino}, which is in {parent}"

    def _hide(self, directory: int, ino: Ino, entry: Entry) -> None:
        """A name of the base is no longer there."""
        self._entries -= 1
        if entry.is_regular:
            self._bytes -= entry.size
        if entry.is_directory:
            self._directories.add(directory, -1)
            self._hidden.append(ino)

    def _below(self, directory: int, name: bytes) -> tuple[Ino, Entry] | None:
        """What the base has there."""
        return None if directory > self._total else self._base.lookup(Ino(directory), name)

    # -- inodes -------------------------------------------------------------------------

    def _check_inode(self, inode: Inode) -> Iterator[str]:
        what = f"Inode {inode.ino}"
        yield from _check_values(what, inode)
        if inode.is_directory:
            yield from self._check_directory(inode)
            return
        below = self._names_of_base(inode.ino)
        names = self._names[inode.ino] + below
        if inode.nlink != names:
            yield f"{what} counts {inode.nlink} names and has {names}"
        if not inode.is_regular:
            if inode.capacity:
                yield f"{what} is no regular file and has content"
            return
        if below:
            self._bytes += (inode.size - self._base.entry(Ino(inode.ino)).size) * below
        yield from self._check_content(what, inode)

    def _check_content(self, what: str, inode: Inode) -> Iterator[str]:
        fits = 0 <= inode.keep <= inode.ref_size and inode.keep <= inode.size
        fits &= 0 <= inode.ref_count <= inode.ref_size and inode.allocated >= 0
        fits &= inode.ref is None or len(inode.ref) == OBJECT_ID_SIZE
        if not fits:
            yield f"{what} has figures that contradict each other: {inode}"
            return
        yield from check_place(what, inode.capacity, inode.size, 0)
        try:
            allocated = stored_bytes(self._database, self._fetch, inode)
        except Corrupt as error:
            yield f"{what}: {error}"
            return
        if inode.allocated != allocated:
            yield f"{what} says {inode.allocated} bytes are allocated, {allocated} are"

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
        """Whether a directory can be reached from the root."""
        above: list[int] = []
        seen: set[int] = set()
        found = "alive"
        while directory != ROOT_INO:
            known = self._alive.get(directory)
            parent = None if known else self._places.parent(directory)
            if known or parent is None or directory in seen:
                found = known or "lost"
                break
            above.append(directory)
            seen.add(directory)
            directory = parent
        for child in above:
            self._alive.put(child, found)
        return found == "alive"

    # -- totals -------------------------------------------------------------------------

    def _check_totals(self) -> Iterator[str]:
        """With all rows in order, what was counted and what the rows add up to is the same."""
        for ino in self._hidden:
            self._leave_out(Ino(ino))
        root = self._base.manifest.root
        entries, size = self._database.row(_ADDED)
        if root.count + entries != self._entries:
            yield f"The tree should have {root.count + entries} entries and has {self._entries}"
        exact = max(self._bytes, root.size, abs(size)) < _EXACT
        if exact and root.size + size != self._bytes:
            yield f"The tree should have {root.size + int(size)} bytes and has {self._bytes}"

    def _leave_out(self, top: Ino) -> None:
        """The names in a directory of the base that was removed, and in those below it that
        were not moved away before."""
        directories = [top]
        while directories:
            directory = directories.pop()
            if self._is_alive(directory):
                continue
            for ino, entry in self._base.list(directory):
                self._entries -= 1
                if entry.is_regular:
                    self._bytes -= entry.size
                if entry.is_directory:
                    directories.append(ino)


def _check_values(what: str, inode: Inode) -> Iterator[str]:
    """What a row says of itself."""
    kind = stat.S_IFMT(inode.mode)
    good = inode.ino > 0 and inode.nlink > 0 and 0 <= inode.size <= MAX_FILE_SIZE
    good &= 0 <= inode.uid <= _MAX_ID and 0 <= inode.gid <= _MAX_ID and inode.mode < 1 << 16
    if kind == stat.S_IFDIR:
        good &= inode.size == DIRECTORY_SIZE and inode.ref is None
    elif kind == stat.S_IFLNK:
        target = inode.ref or b""
        good &= 0 < len(target) <= MAX_SYMLINK and b"\0" not in target
        good &= inode.size == len(target)
    elif kind in _SPECIAL:
        good &= inode.size == 0 and inode.ref is None and 0 <= inode.rdev <= _MAX_ID
    else:
        good &= kind == stat.S_IFREG
    if kind != stat.S_IFDIR:
        good &= inode.parent == 0
    if not good:
        yield f"{what} has values that cannot be: {inode}"
    if inode.xattrs is not None:
        try:
            check_xattrs(what.encode(), unpack_xattrs(inode.xattrs))
        except (Corrupt, msgspec.MsgspecError) as error:
            yield f"{what} has extended attributes that cannot be: {error}"
