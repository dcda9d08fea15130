"""Reading the pages of directories, verified against what their parents say of them.

`load_*` read and check; `Pages` keeps decoded pages, bounded, and finds entries by name and
by position. Positions are relative: 0 is the first entry of the directory, and an entry is
followed by everything below it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import Final

from imagefs.errors import Corrupt
from imagefs.format.directory import (
    PAGE_LIMIT,
    Entry,
    Index,
    Leaf,
    PageRef,
    decode_page,
    holds_boundary,
)
from imagefs.model import ObjectId
from imagefs.tree.recent import Recent

Fetch = Callable[[ObjectId], bytes]

CACHE_BYTES: Final = 16 * 1024 * 1024
"""Estimated memory of the decoded pages one `Pages` keeps."""

_ROW_BYTES: Final = 256


def load_page(fetch: Fetch, ref: ObjectId) -> Leaf | Index:
    """A page by its id; raises Corrupt, naming the object."""
    data = fetch(ref)
    try:
        return decode_page(data)
    except Corrupt as error:
        raise Corrupt(f"{error} (object {ref.hex()})") from error


def check_root(page: Leaf | Index, ref: ObjectId) -> None:
    """Raise Corrupt when the page cannot be the root page of a directory."""
    if isinstance(page, Index) and (len(page.pages) < 2 or page.claim.names <= PAGE_LIMIT):
        raise Corrupt(f"Directory page {ref.hex()} should not have been split")


def check_directory(page: Leaf | Index, entry: Entry) -> None:
    """Raise Corrupt when the root page is not what the directory's entry says."""
    claim = page.claim
    if claim.total != entry.count or claim.size != entry.size or claim.links != entry.links:
        raise Corrupt(f"Directory {entry.name!r} does not hold what its entry says: {claim}")


def check_child(page: Leaf | Index, ref: PageRef, level: int) -> None:
    """Raise Corrupt when a page is not what its index page, one level up, says."""
    claim = page.claim
    if (
        page.level != level
        or claim.names != ref.names
        or claim.total != ref.total
        or claim.size != ref.size
        or claim.links != ref.links
        or page.names[0] != ref.first
    ):
        raise Corrupt(f"Directory page {ref.ref.hex()} is not what its index page says")


def load_root(fetch: Fetch, entry: Entry) -> Leaf | Index:
    """The root page of a directory; raises Corrupt when it is not what the entry says."""
    assert entry.ref is not None
    ref = ObjectId(entry.ref)
    page = load_page(fetch, ref)
    check_root(page, ref)
    check_directory(page, entry)
    return page


def load_child(fetch: Fetch, index: Index, i: int) -> Leaf | Index:
    """One page that an index page lists; raises Corrupt when it is not what that says."""
    ref = index.pages[i]
    page = load_page(fetch, ObjectId(ref.ref))
    check_child(page, ref, index.level - 1)
    if isinstance(page, Leaf) and holds_boundary(page):
        raise Corrupt(f"Directory page {ref.ref.hex()} should have been split")
    return page


class Pages:
    """Decoded pages by id. Every method may raise what `fetch` raises and can be repeated.

    A page is verified whenever it is reached, because an equal page may be listed with other
    figures elsewhere; being cut at the right names is verified when it is loaded.
    """

    def __init__(self, fetch: Fetch, cache_bytes: int = CACHE_BYTES) -> None:
        self._fetch = fetch
        self._cache: Recent[bytes, Leaf | Index] = Recent(cache_bytes, _memory)

    def __repr__(self) -> str:
        return f"<Pages {self._cache}>"

    def __len__(self) -> int:
        return len(self._cache)

    def root(self, directory: Entry) -> Leaf | Index:
        """The root page of a directory."""
        ref = directory.ref
        assert ref is not None
        page = self._cache.get(ref)
        if page is None:
            page = load_root(self._fetch, directory)
            self._cache.put(ref, page)
            return page
        check_root(page, ObjectId(ref))
        check_directory(page, directory)
        return page

    def child(self, index: Index, i: int) -> Leaf | Index:
        """The i-th page that an index page lists."""
        ref = index.pages[i]
        page = self._cache.get(ref.ref)
        if page is None:
            page = load_child(self._fetch, index, i)
            self._cache.put(ref.ref, page)
            return page
        check_child(page, ref, index.level - 1)
        return page

    def find(self, directory: Entry, name: bytes) -> tuple[int, Entry] | None:
        """Position and entry of a name."""
        page = self.root(directory)
        before = 0
        while isinstance(page, Index):
            i = bisect_right(page.names, name) - 1
            if i < 0:
                return None
            before += page.starts[i]
            page = self.child(page, i)
        i = bisect_left(page.names, name)
        if i == len(page.names) or page.names[i] != name:
            return None
        return before + page.starts[i], page.entries[i]

    def at(self, directory: Entry, position: int) -> tuple[int, Entry]:
        """The entry that stands at the position, or that has it below, and where it stands.
        The position is less than the directory's count."""
        page = self.root(directory)
        before = 0
        while isinstance(page, Index):
            i = bisect_right(page.starts, position - before) - 1
            before += page.starts[i]
            page = self.child(page, i)
        i = bisect_right(page.starts, position - before) - 1
        return before + page.starts[i], page.entries[i]

    def leaves(self, directory: Entry, after: bytes | None = None) -> Iterator[tuple[int, Leaf]]:
        """The leaf pages in order, with the position of their first entry, beginning with
        the page that has the names after `after`."""
        return self._leaves(self.root(directory), 0, after)

    def _leaves(
        self, page: Leaf | Index, before: int, after: bytes | None
    ) -> Iterator[tuple[int, Leaf]]:
        if isinstance(page, Leaf):
            yield before, page
            return
        first = max(bisect_right(page.names, after) - 1, 0) if after is not None else 0
        for i in range(first, len(page.pages)):
            yield from self._leaves(
                self.child(page, i), before + page.starts[i], after if i == first else None
            )


def _memory(page: Leaf | Index) -> int:
    """An estimate of what a decoded page occupies."""
    return len(page.names) * _ROW_BYTES + 2 * page.weight
