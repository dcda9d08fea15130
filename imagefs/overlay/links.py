"""The table of hard links of a changed tree.

The base's table lists paths. A group of it is still right unless one of its names was
changed (then its inode has a row, or is gone) or a directory above one of them was moved.
Groups of inodes that have rows are put together from the names that a commit comes across.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from imagefs.model import ROOT_INO, Ino, ObjectId
from imagefs.overlay.database import Database
from imagefs.overlay.inodes import Inode
from imagefs.tree import Tree
from imagefs.tree.contents import Fetch
from imagefs.tree.links import read_link_page, read_link_pages

_ROW = "SELECT parent FROM inode WHERE ino = ?"
_NAME = "SELECT name FROM dentry WHERE parent = ? AND ino = ?"
_SHADOW = "SELECT 1 FROM dentry WHERE parent = ? AND name = ?"


class Places:
    """Where directories of the base and of an overlay are now; good until something changes."""

    def __init__(self, base: Tree, database: Database) -> None:
        self._base = base
        self._total = base.total
        self._database = database
        self._paths: dict[int, bytes | None] = {ROOT_INO: b""}

    def is_shadowed(self, directory: int, name: bytes) -> bool:
        """Whether a name of the base is gone from there or stands for something else."""
        return self._database.row(_SHADOW, (directory, name)) is not None

    def parent(self, directory: int) -> int | None:
        """The directory that a directory is in; None when it was removed."""
        row = self._database.row(_ROW, (directory,))
        if row is not None and row[0]:
            return int(row[0])
        if directory > self._total:
            return None
        parent = self._base.parent(Ino(directory))
        if row is None and self.is_shadowed(parent, self._base.entry(Ino(directory)).name):
            return None
        return parent

    def path(self, directory: int) -> bytes | None:
        """The path of a directory now, with a slash behind it; None when it was removed."""
        above = []
        while directory not in self._paths:
            above.append(directory)
            parent = self.parent(directory)
            if parent is None:
                self._paths.update(dict.fromkeys(above))
                return None
            directory = parent
        path = self._paths[directory]
        for child in reversed(above):
            if path is not None:
                path += self._name(directory, child) + b"/"
            self._paths[child] = path
            directory = child
        return path

    def _name(self, parent: int, directory: int) -> bytes:
        row = self._database.row(_NAME, (parent, directory))
        return bytes(row[0]) if row is not None else self._base.entry(Ino(directory)).name


class Links:
    """Collects the names of inodes that have several, and gives the groups."""

    def __init__(self, base: Tree, fetch: Fetch, places: Places, database: Database) -> None:
        self._base = base
        self._fetch = fetch
        self._places = places
        self._database = database
        self._names: defaultdict[int, list[tuple[int, bytes]]] = defaultdict(list)

    def add(self, directory: int, name: bytes, inode: Inode) -> None:
        """A name of an inode that has a row, come across during the commit."""
        self._names[inode.ino].append((directory, name))

    def groups(self) -> Iterator[list[bytes]]:
        """The paths of every inode with several names."""
        for names in self._names.values():
            yield [self._path(directory) + name for directory, name in names]
        links = self._base.manifest.links
        before = None
        for page in read_link_pages(self._fetch, None if links is None else ObjectId(links)):
            groups = read_link_page(self._fetch, page, before)
            before = groups[-1][0]
            for group in groups:
                yield from self._unchanged(group)

    def _path(self, directory: int) -> bytes:
        path = self._places.path(directory)
        assert path is not None
        return path

    def _unchanged(self, group: tuple[bytes, ...]) -> Iterator[list[bytes]]:
        """The group with its present paths, if none of its names was changed."""
        found = self._base.resolve(group[0])
        assert found is not None
        if self._database.row(_ROW, (found[0],)) is not None:
            return
        paths = []
        for path in group:
            above, _, name = path.rpartition(b"/")
            parent = self._base.resolve(above)
            assert parent is not None
            now = self._places.path(parent[0])
            if now is None or self._places.is_shadowed(parent[0], name):
                # Without a row, one name can only be gone because all are.
                return
            paths.append(now + name)
        yield paths
