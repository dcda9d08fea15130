"""An immutable tree, read through its manifest.

Inode numbers are positions in the canonical walk: the root is 1, a directory's first child
follows it directly, the next child comes after everything below the one before. They are
found from the counts in the entries, from the root downwards, and remembered for a while.
The names of one inode all stand for the position of the first of them.

Every method may raise whatever `fetch` raises (with a loop's `fetch`, NotReady) and can be
called again then; Corrupt when stored objects are not a tree; Stale for inode numbers that
the tree does not have. Memory is bounded whatever the size of the tree, but for the link
table (see tree.links).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from imagefs.errors import Corrupt, NotADirectory, Stale
from imagefs.format.directory import Entry
from imagefs.format.manifest import Manifest, decode_manifest
from imagefs.model import ROOT_INO, Attributes, Ino, ObjectId
from imagefs.tree.contents import Fetch, chunk_ids
from imagefs.tree.links import LinkMap
from imagefs.tree.pages import Pages
from imagefs.tree.recent import Recent

DIRECTORY_SIZE: Final = 4096
"""What stat says of every directory, as on most file systems of the host."""

KNOWN_INODES: Final = 8192
"""Entries remembered by number; others are found again from the directories above them."""

BLOCK_SIZE: Final = 512

Rows = list[tuple[Ino, Entry]]

Chunks = list[ObjectId | None]
Place = tuple[Entry, Ino]
"""An entry and the directory it stands in."""


class Tree:
    """Reads one image. Belongs to one thread at a time.

    Trees of one thread may share `pages`, so that what is common to them is kept once and
    the memory of all is bounded.
    """

    def __init__(self, fetch: Fetch, manifest_id: ObjectId, pages: Pages | None = None) -> None:
        self.manifest_id = manifest_id
        self.fetch = fetch
        self.pages = Pages(fetch) if pages is None else pages
        self._manifest: Manifest | None = None
        self._known: Recent[Ino, Place] = Recent(KNOWN_INODES)
        self._links: LinkMap | None = None
        self._last_directory = ROOT_INO

    def __repr__(self) -> str:
        return f"<Tree {self.manifest_id.hex()[:12]}: {self.pages}, known {self._known}>"

    @property
    def manifest(self) -> Manifest:
        """The manifest, read at first use."""
        if self._manifest is None:
            data = self.fetch(self.manifest_id)
            try:
                self._manifest = decode_manifest(data)
            except Corrupt as error:
                raise Corrupt(f"{error} (image {self.manifest_id.hex()})") from error
        return self._manifest

    @property
    def total(self) -> int:
        """Positions in the tree, the root included: the largest inode number."""
        return self.manifest.root.count + 1

    # -- by inode number ----------------------------------------------------------------

    def entry(self, ino: Ino) -> Entry:
        """The entry at a position."""
        return self._place(ino)[0]

    def parent(self, ino: Ino) -> Ino:
        """The directory that a position stands in; the root's is the root."""
        return self._place(ino)[1]

    def path(self, ino: Ino) -> bytes:
        """The path of a position from the root, without a leading slash; b"" is the root."""
        names = []
        while ino != ROOT_INO:
            entry, ino = self._place(ino)
            names.append(entry.name)
        return b"/".join(reversed(names))

    def attributes(self, ino: Ino, entry: Entry) -> Attributes:
        """What stat(2) is to answer for an entry; times that are not stored are mtime."""
        size, rdev = entry.size, 0
        if entry.is_directory:
            nlink = 2 + entry.links
            size = DIRECTORY_SIZE
            blocks = DIRECTORY_SIZE // BLOCK_SIZE
        else:
            nlink = self.nlink(ino, entry)
            blocks = 0
            if entry.is_regular:
                blocks = -(-entry.count // BLOCK_SIZE)
            else:
                rdev = entry.count
        return Attributes(
            ino, entry.mode, nlink, entry.uid, entry.gid, rdev, size, blocks,
            entry.mtime, entry.mtime, entry.mtime,
        )  # fmt: skip

    # -- directories --------------------------------------------------------------------

    def lookup(self, directory: Ino, name: bytes) -> tuple[Ino, Entry] | None:
        """The inode number and entry of a name, None when the directory does not have it."""
        found = self._find(directory, name)
        if found is None or not found[1].is_linked:
            return found
        return self._link_map().first(found[0]), found[1]

    def list(self, directory: Ino, after: bytes | None = None, limit: int | None = None) -> Rows:
        """Up to `limit` entries (default: all) in name order, from the first name after
        `after`, with their inode numbers."""
        found: Rows = []
        first = directory + 1
        for before, leaf in self.pages.leaves(self._directory(directory), after):
            begin = 0 if after is None else bisect_right(leaf.names, after)
            end = len(leaf.names) if limit is None else begin + limit - len(found)
            base = first + before
            numbers = [Ino(base + start) for start in leaf.starts[begin:end]]
            rows = [*zip(numbers, leaf.entries[begin:end], strict=False)]
            found += self._merge_names(rows) if leaf.linked else rows
            if limit is not None and len(found) >= limit:
                break
        return found

    def resolve(self, path: bytes) -> tuple[Ino, Entry] | None:
        """The position and entry of a path from the root (of linked names their own
        position), None when it does not exist. b"" is the root."""
        ino = ROOT_INO
        entry = self.manifest.root
        for name in path.split(b"/") if path else ():
            if not entry.is_directory:
                return None
            found = self._find(ino, name)
            if found is None:
                return None
            ino, entry = found
        return ino, entry

    # -- hard links ---------------------------------------------------------------------

    def nlink(self, ino: Ino, entry: Entry) -> int:
        """The number of names of an inode."""
        if entry.is_directory:
            return 2 + entry.links
        return self._link_map().count(ino) if entry.links else 1

    def linked_names(self) -> int:
        """How many names the link table has; raises Corrupt when it does not fit the tree."""
        return 0 if self.manifest.links is None else len(self._link_map())

    def link_paths(self, ino: Ino) -> tuple[bytes, ...]:
        """All paths of the inode at a position, in canonical order: the first has the number."""
        if self.entry(ino).is_linked:
            return self._link_map().paths(ino)
        return (self.path(ino),)

    # -- content ------------------------------------------------------------------------

    def chunk_ids(self, entry: Entry, first: int, last: int) -> Chunks:
        """The chunks `first` to `last` (inclusive; cut at the end) of a regular file, None
        for holes. The object of a chunk holds exactly the bytes of the file there."""
        assert entry.is_regular
        ref = None if entry.ref is None else ObjectId(entry.ref)
        return chunk_ids(self.fetch, ref, entry.size, first, last)

    # -- inside -------------------------------------------------------------------------

    def _link_map(self) -> LinkMap:
        if self._links is None:
            links = self.manifest.links
            table = None if links is None else ObjectId(links)
            self._links = LinkMap(self.fetch, table, self.resolve, self._find_in)
        self._links.load()
        return self._links

    def _merge_names(self, rows: Rows) -> Rows:
        """The same rows with the inode numbers of linked entries' first names."""
        links = self._link_map()
        return [(links.first(ino) if entry.is_linked else ino, entry) for ino, entry in rows]

    def _directory(self, ino: Ino) -> Entry:
        entry = self._place(ino)[0]
        if not entry.is_directory:
            raise NotADirectory(f"Inode {ino} ({entry.name!r}) is not a directory")
        return entry

    def _find(self, directory: Ino, name: bytes) -> tuple[Ino, Entry] | None:
        found = self._find_in(directory, self._directory(directory), name)
        if found is not None:
            self._known.put(found[0], (found[1], directory))
        return found

    def _find_in(self, ino: Ino, directory: Entry, name: bytes) -> tuple[Ino, Entry] | None:
        """Like `_find` where the directory's entry is at hand and nothing need be remembered."""
        found = self.pages.find(directory, name)
        return None if found is None else (Ino(ino + 1 + found[0]), found[1])

    def _place(self, ino: Ino) -> Place:
        known = self._known.get(ino)
        if known is not None:
            return known
        if ino == ROOT_INO:
            return self.manifest.root, ROOT_INO
        directory, entry = self._nearest(ino)
        while True:
            position, child = self.pages.at(entry, ino - directory - 1)
            found = Ino(directory + 1 + position)
            self._known.put(found, (child, directory))
            if found == ino:
                self._last_directory = directory
                return child, directory
            directory, entry = found, child

    def _nearest(self, ino: Ino) -> tuple[Ino, Entry]:
        """A directory that has the position somewhere below it, close to the place of the
        last search where that helps."""
        directory = self._last_directory
        while directory != ROOT_INO:
            place = self._known.get(directory)
            if place is None:
                break
            if directory < ino <= directory + place[0].count:
                return directory, place[0]
            directory = place[1]
        root = self.manifest.root
        if not ROOT_INO < ino <= root.count + 1:
            raise Stale(f"Inode {ino} does not exist in image {self.manifest_id.hex()}")
        return ROOT_INO, root
