"""Which positions of a tree are one inode: the link table, resolved to positions.

Read in full when the first linked entry is met, into flat arrays (12 bytes a name and 4 an
inode), so that a tree with a million hard links stays small.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable

from imagefs.errors import Corrupt
from imagefs.format.directory import Entry
from imagefs.format.manifest import LinkGroup, decode_link_index, decode_link_page
from imagefs.model import Ino, ObjectId
from imagefs.tree.recent import Recent

Fetch = Callable[[ObjectId], bytes]
Resolve = Callable[[bytes], tuple[Ino, Entry] | None]
"""Position and entry of a path, None when it does not exist."""

Find = Callable[[Ino, Entry, bytes], tuple[Ino, Entry] | None]
"""Position and entry of a name in a directory, None when it does not exist."""

_GROUP_BITS = 32
_KNOWN_DIRECTORIES = 1024


def read_link_pages(fetch: Fetch, links: ObjectId | None) -> list[ObjectId]:
    """The pages of a link table in order."""
    if links is None:
        return []
    data = fetch(links)
    try:
        return decode_link_index(data)
    except Corrupt as error:
        raise Corrupt(f"{error} (object {links.hex()})") from error


def read_link_page(fetch: Fetch, page: ObjectId, before: bytes | None) -> list[LinkGroup]:
    """The groups of one page; see decode_link_page for `before`."""
    data = fetch(page)
    try:
        return decode_link_page(data, before)
    except Corrupt as error:
        raise Corrupt(f"{error} (object {page.hex()})") from error


class LinkMap:
    """The link table of one tree. `load` completes it and may be called until it returns:
    what it has read stays read when `fetch` raises."""

    def __init__(self, fetch: Fetch, links: ObjectId | None, resolve: Resolve, find: Find) -> None:
        self._fetch = fetch
        self._links = links
        self._resolve = resolve
        self._find = find
        self._directories: Recent[bytes, tuple[Ino, Entry]] = Recent(_KNOWN_DIRECTORIES)
        self._pages: list[ObjectId] | None = None
        self._page_firsts: list[bytes] = []
        self._page_starts = array("I", [0])
        """Number of groups before each page that has been read."""
        self._firsts = array("I")
        self._counts = array("I")
        self._names = array("Q")
        """position << 32 | number of its group, sorted once all is read."""
        self._complete = False

    def __repr__(self) -> str:
        return f"<LinkMap {len(self._names)} names of {len(self._firsts)} inodes>"

    def __len__(self) -> int:
        return len(self._names)

    def load(self) -> None:
        """Read what is missing. Raises Corrupt when the table does not fit the tree."""
        if self._complete:
            return
        if self._pages is None:
            self._pages = read_link_pages(self._fetch, self._links)
        while len(self._page_firsts) < len(self._pages):
            self._load_page(self._pages[len(self._page_firsts)])
        self._names = array("Q", sorted(self._names))
        positions = [name >> _GROUP_BITS for name in self._names]
        if any(map(int.__eq__, positions, positions[1:])):
            raise Corrupt("Link table holds a path twice")
        self._complete = True

    def first(self, ino: Ino) -> Ino:
        """The first position, in canonical order, of the inode at a position."""
        return Ino(self._firsts[self._group(ino)])

    def count(self, ino: Ino) -> int:
        """The number of names of the inode at a position."""
        return self._counts[self._group(ino)]

    def paths(self, ino: Ino) -> LinkGroup:
        """The paths of the inode at a position, in canonical order."""
        group = self._group(ino)
        assert self._pages is not None
        page = bisect_left(self._page_starts, group + 1) - 1
        before = self._before(page)
        groups = read_link_page(self._fetch, self._pages[page], before)
        return groups[group - self._page_starts[page]]

    def _before(self, page: int) -> bytes | None:
        return self._page_firsts[page - 1] if page else None

    def _group(self, ino: Ino) -> int:
        i = bisect_left(self._names, ino << _GROUP_BITS)
        if i == len(self._names) or self._names[i] >> _GROUP_BITS != ino:
            raise Corrupt(f"Entry {ino} is marked as linked but missing in the link table")
        return self._names[i] & ((1 << _GROUP_BITS) - 1)

    def _load_page(self, page: ObjectId) -> None:
        groups = read_link_page(self._fetch, page, self._before(len(self._page_firsts)))
        rows = [self._positions(group) for group in groups]
        for positions in rows:
            number = len(self._firsts)
            self._firsts.append(positions[0])
            self._counts.append(len(positions))
            self._names.extend(position << _GROUP_BITS | number for position in positions)
        self._page_firsts.append(groups[-1][0])
        self._page_starts.append(len(self._firsts))

    def _positions(self, group: LinkGroup) -> list[Ino]:
        positions = []
        common: Entry | None = None
        for path in group:
            found = self._position(path)
            if found is None or not found[1].is_linked:
                raise Corrupt(f"Link table holds {path!r}, which is not a linked entry")
            position, entry = found
            if common is not None and not same_inode(common, entry):
                raise Corrupt(f"{path!r} is linked with {group[0]!r} but differs from it")
            common = entry
            positions.append(position)
        return positions

    def _position(self, path: bytes) -> tuple[Ino, Entry] | None:
        above, _, name = path.rpartition(b"/")
        place = self._directories.get(above)
        if place is None:
            place = self._resolve(above)
            if place is None or not place[1].is_directory:
                return None
            self._directories.put(above, place)
        return self._find(*place, name)


def same_inode(a: Entry, b: Entry) -> bool:
    """Whether two entries say the same of their inode."""
    return (
        a.mode == b.mode
        and a.uid == b.uid
        and a.gid == b.gid
        and a.mtime == b.mtime
        and a.size == b.size
        and a.count == b.count
        and a.ref == b.ref
        and a.xattrs == b.xattrs
    )
