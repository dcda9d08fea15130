"""Writing directories: from entries in name order, or by changing a stored one.

Both give the same pages for the same entries, because pages are cut by names alone (see
format.directory). `put` stores an object and returns its id; `fetch` gets stored objects
and may raise NotReady, after which the call is simply made again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from imagefs.errors import InvalidName, NotSupported
from imagefs.format.directory import (
    MAX_INODES,
    PAGE_LIMIT,
    Claim,
    Entry,
    Index,
    Leaf,
    PageRef,
    boundary_rank,
    encode_index,
    encode_leaf,
    valid_name,
    validate_entry,
)
from imagefs.model import ObjectId
from imagefs.tree.pages import Fetch, check_root, load_child, load_page

Put = Callable[[bytes], ObjectId]

Changes = Sequence[tuple[bytes, Entry | None]]
"""New entries by name, None for a name that is to go; in name order."""


class DirectorySummary(msgspec.Struct, frozen=True):
    """What the entry of a directory says about its content."""

    ref: ObjectId
    size: int
    count: int
    links: int


def write_directory(put: Put, entries: Iterable[Entry]) -> DirectorySummary:
    """Store a directory with these entries, given in any order."""
    builder = DirectoryBuilder(put)
    for entry in sorted(entries, key=lambda entry: entry.name):
        builder.add(entry)
    return builder.finish()


def update_directory(
    fetch: Fetch, put: Put, ref: ObjectId, changes: dict[bytes, Entry | None]
) -> DirectorySummary:
    """Store the directory `ref` with changed entries (None: the name goes, if it is there).

    Reads and writes only the pages concerned, and leaves the result of writing all entries.
    """
    root = load_page(fetch, ref)
    check_root(root, ref)
    ordered = sorted(changes.items(), key=lambda change: change[0])
    if not ordered:
        return _summary(ref, root.claim)
    update = _Update(fetch, put, ordered)
    if update.leaves_few(root):
        return write_directory(put, update.entries(root, 0, len(ordered)))
    update.run(ref, root)
    return update.builder.finish(fetch)


class DirectoryBuilder:
    """Cuts entries that come in name order into pages; holds one page a level."""

    def __init__(self, put: Put) -> None:
        self._put = put
        self._split = False
        self._leaf: list[Entry] = []
        self._levels: list[list[PageRef]] = [[]]
        """Pages of level n that are complete, waiting for their index page: _levels[n]."""
        self._last: bytes | None = None
        self._unread: PageRef | None = None

    def add(self, entry: Entry) -> None:
        """Append an entry; raises InvalidName when its name cannot come next and
        InvalidArgument when its values cannot be stored."""
        name = entry.name
        if not valid_name(name) or (self._last is not None and name <= self._last):
            raise InvalidName(f"Directory entry {name[:64]!r} cannot follow {self._last!r}")
        validate_entry(entry)
        self._last = name
        if self._split:
            self._place(entry)
            return
        self._leaf.append(entry)
        if len(self._leaf) > PAGE_LIMIT:
            self.split()

    def split(self) -> None:
        """Cut pages from here on: there will be more than PAGE_LIMIT names."""
        self._split = True
        entries, self._leaf = self._leaf, []
        for entry in entries:
            self._place(entry)

    def add_page(self, ref: PageRef, level: int) -> None:
        """Append a complete page of that level unread; the builder is splitting, and what
        comes next begins a new page on that level too."""
        self._close(boundary_rank(ref.first))
        self._at(level).append(ref)
        self._unread = ref

    def finish(self, fetch: Fetch | None = None) -> DirectorySummary:
        """Store what is left and return the directory. `fetch` is needed where pages were
        added unread: one that is left alone makes way to the only page in it."""
        if not self._split:
            data = encode_leaf(self._leaf)
            return _summary(self._put(data), Leaf(self._leaf, len(data)).claim)
        self._close(1)
        level = 0
        while len(self._levels[level]) != 1 or any(self._levels[level + 1 :]):
            self._close_index(level)
            level += 1
        ref = self._levels[level][0]
        while level and ref is self._unread and fetch is not None:
            page = load_page(fetch, ObjectId(ref.ref))
            if isinstance(page, Index) and len(page.pages) == 1:
                ref = self._unread = page.pages[0]
            level -= 1
        return _summary(ObjectId(ref.ref), Claim(ref.names, ref.total, ref.size, ref.links))

    def _place(self, entry: Entry) -> None:
        rank = boundary_rank(entry.name)
        if rank:
            self._close(rank)
        self._leaf.append(entry)

    def _at(self, level: int) -> list[PageRef]:
        while level >= len(self._levels):
            self._levels.append([])
        return self._levels[level]

    def _close(self, rank: int) -> None:
        """End the open pages of all levels below `rank`."""
        if not rank:
            return
        if self._leaf:
            data = encode_leaf(self._leaf)
            page = Leaf(self._leaf, len(data))
            self._levels[0].append(_page_ref(page, self._put(data)))
            self._leaf = []
        for level in range(rank - 1):
            self._close_index(level)

    def _close_index(self, level: int) -> None:
        """Store the index page of the complete pages of one level, if there are any."""
        pages = self._at(level)
        if not pages:
            return
        data = encode_index(level + 1, pages)
        ref = _page_ref(Index(level + 1, pages, len(data)), self._put(data))
        self._at(level + 1).append(ref)
        self._levels[level] = []


class _Update:
    """One run over a stored directory with changes; slices of `changes` go down to the
    pages whose span they fall into."""

    def __init__(self, fetch: Fetch, put: Put, changes: Changes) -> None:
        self._fetch = fetch
        self._changes = changes
        self._names = [name for name, _ in changes]
        self._removed = {name for name, entry in changes if entry is None}
        self.builder = DirectoryBuilder(put)

    def leaves_few(self, root: Leaf | Index) -> bool:
        """Whether the directory will be small enough for a single leaf."""
        if root.claim.names - len(self._removed) > PAGE_LIMIT:
            return False
        return root.claim.names + self.growth(root, 0, len(self._changes)) <= PAGE_LIMIT

    def growth(self, page: Leaf | Index, low: int, high: int) -> int:
        """How many names the changes low to high add to the page, less those they remove."""
        if isinstance(page, Index):
            return sum(
                self.growth(load_child(self._fetch, page, i), first, last)
                for i, first, last in self._slices(page, low, high)
                if first < last
            )
        present = set(page.names)
        return sum(
            (entry is not None) - (name in present) for name, entry in self._changes[low:high]
        )

    def entries(self, page: Leaf | Index, low: int, high: int) -> Iterator[Entry]:
        """All entries of the page with the changes made, in order."""
        if isinstance(page, Index):
            for i, first, last in self._slices(page, low, high):
                yield from self.entries(load_child(self._fetch, page, i), first, last)
            return
        kept = dict(zip(page.names, page.entries, strict=True))
        merged: dict[bytes, Entry | None] = {**kept, **dict(self._changes[low:high])}
        for _, entry in sorted(merged.items()):
            if entry is not None:
                yield entry

    def run(self, ref: ObjectId, root: Leaf | Index) -> None:
        """Feed the builder: changed pages by entry, all others whole."""
        self.builder.split()
        self._feed(root, 0, len(self._changes), None)

    def _feed(self, page: Leaf | Index, low: int, high: int, follower: bytes | None) -> None:
        """`follower` is the first name after the page, None at the directory's end."""
        if isinstance(page, Leaf):
            for entry in self.entries(page, low, high):
                self.builder.add(entry)
            return
        for i, first, last in self._slices(page, low, high):
            after = page.names[i + 1] if i + 1 < len(page.names) else follower
            # When the name that began the next page goes, what is left of that page joins
            # this one.
            if first == last and after not in self._removed:
                self.builder.add_page(page.pages[i], page.level - 1)
            else:
                self._feed(load_child(self._fetch, page, i), first, last, after)

    def _slices(self, page: Index, low: int, high: int) -> Iterator[tuple[int, int, int]]:
        """For every page listed, the changes that fall into its span."""
        start = low
        for i in range(len(page.pages)):
            end = high
            if i + 1 < len(page.names):
                end = bisect_left(self._names, page.names[i + 1], start, high)
            yield i, start, end
            start = end


def _page_ref(page: Leaf | Index, ref: ObjectId) -> PageRef:
    claim = page.claim
    return PageRef(page.names[0], ref, claim.names, claim.total, claim.size, claim.links)


def _summary(ref: ObjectId, claim: Claim) -> DirectorySummary:
    if claim.total >= MAX_INODES:
        raise NotSupported(f"A tree of {claim.total} entries: at most {MAX_INODES} are possible")
    return DirectorySummary(ref, claim.size, claim.total, claim.links)
