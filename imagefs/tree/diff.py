"""What differs between two trees, read only where their objects differ."""

from __future__ import annotations

import stat
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from enum import StrEnum

import msgspec

from imagefs.format.directory import Entry, Index, Leaf
from imagefs.format.manifest import LinkGroup
from imagefs.model import ROOT_INO, ObjectId
from imagefs.tree.links import read_link_page, read_link_pages
from imagefs.tree.pages import Pages
from imagefs.tree.tree import Tree


class ChangeKind(StrEnum):
    """What happened to a path from the first tree to the second."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


class Change(msgspec.Struct, frozen=True):
    """One path that differs. `details` say what of a changed entry: type, mode, owner,
    mtime, xattrs, content, target, device, links (the names it shares its inode with)."""

    kind: ChangeKind
    path: bytes
    details: tuple[str, ...] = ()
    old: Entry | None = None
    new: Entry | None = None


Pair = tuple[bytes, Entry | None, Entry | None]
"""A name and its entries in both directories."""

_PageAt = tuple[Index, int]
"""A page, as its index page lists it."""


def diff(a: Tree, b: Tree) -> Iterator[Change]:
    """All differences in canonical order of paths, the root (path b"") included.

    Below a directory that was added or removed everything is listed. A directory is changed
    when its own attributes are, not when only something in it is.
    """
    comparison = _Comparison(a, b)
    old, new = a.entry(ROOT_INO), b.entry(ROOT_INO)
    yield from comparison.changes(b"", old, new)
    stack = [(b"", comparison.pairs(b"", old, new))]
    while stack:
        above, pairs = stack[-1]
        pair = next(pairs, None)
        if pair is None:
            stack.pop()
            continue
        name, before, after = pair
        path = above + b"/" + name if above else name
        yield from comparison.changes(path, before, after)
        if _is_directory(before) or _is_directory(after):
            stack.append((path, comparison.pairs(path, before, after)))


class _Comparison:
    def __init__(self, a: Tree, b: Tree) -> None:
        self._a = a
        self._b = b
        self._relinked = _relinked(a, b)

    def changes(self, path: bytes, old: Entry | None, new: Entry | None) -> Iterator[Change]:
        """The change at the path itself, if there is one."""
        if old is None:
            yield Change(ChangeKind.ADDED, path, (), None, new)
        elif new is None:
            yield Change(ChangeKind.REMOVED, path, (), old, None)
        else:
            details = _details(old, new)
            if "links" not in details and _contains(self._relinked, path):
                details = (*details, "links")
            if details:
                yield Change(ChangeKind.CHANGED, path, details, old, new)

    def pairs(self, path: bytes, old: Entry | None, new: Entry | None) -> Iterator[Pair]:
        """The names in two directories (None or no directory: an empty one) that differ or
        have differences below."""
        if not _is_directory(old):
            old = None
        if not _is_directory(new):
            new = None
        all_pages = self._relinked_below(path)
        if old is not None and new is not None and old.ref == new.ref and not all_pages:
            return
        lefts, rights = self._entries(old, new, all_pages)
        for name, before, after in _merge(lefts, rights):
            if before == after:
                below = path + b"/" + name if path else name
                if not _contains(self._relinked, below) and not self._relinked_below(below):
                    continue
            yield name, before, after

    def _entries(
        self, old: Entry | None, new: Entry | None, all_pages: bool
    ) -> tuple[Iterator[Entry], Iterator[Entry]]:
        """The entries of both directories, without pages that both have where allowed."""
        if old is None or new is None or all_pages:
            return _all_entries(self._a.pages, old), _all_entries(self._b.pages, new)
        left = _Frontier(self._a.pages, old)
        right = _Frontier(self._b.pages, new)
        while left.level or right.level:
            level = max(left.level, right.level)
            left.descend(level)
            right.descend(level)
            if left.level == right.level:
                common = left.ids() & right.ids()
                left.drop(common)
                right.drop(common)
        return left.entries(), right.entries()

    def _relinked_below(self, path: bytes) -> bool:
        prefix = path + b"/" if path else b""
        i = bisect_left(self._relinked, prefix)
        return i < len(self._relinked) and self._relinked[i].startswith(prefix)


class _Frontier:
    """The pages of one level of a directory that may differ from another directory's."""

    def __init__(self, pages: Pages, directory: Entry) -> None:
        self._pages = pages
        self._root = pages.root(directory)
        self._at: list[_PageAt] = []
        self.level = self._root.level

    def descend(self, level: int) -> None:
        """Go down one level, if the frontier is on that level and not at the leaves."""
        if self.level != level or not level:
            return
        if isinstance(self._root, Index) and self._root.level == level:
            self._at = [(self._root, i) for i in range(len(self._root.pages))]
        else:
            self._at = [
                (page, i)
                for index, child in self._at
                if isinstance(page := self._pages.child(index, child), Index)
                for i in range(len(page.pages))
            ]
        self.level -= 1

    def ids(self) -> set[bytes]:
        if not self._at:
            return set()
        return {index.pages[i].ref for index, i in self._at}

    def drop(self, ids: set[bytes]) -> None:
        self._at = [(index, i) for index, i in self._at if index.pages[i].ref not in ids]

    def entries(self) -> Iterator[Entry]:
        """The entries of the leaves that are left."""
        if isinstance(self._root, Leaf):
            yield from self._root.entries
            return
        for index, i in self._at:
            page = self._pages.child(index, i)
            assert isinstance(page, Leaf)
            yield from page.entries


def _details(old: Entry, new: Entry) -> tuple[str, ...]:
    """Which attributes differ, leaving out what follows from the entries below."""
    kind = stat.S_IFMT(old.mode)
    same_kind = kind == stat.S_IFMT(new.mode)
    differs = {
        "type": not same_kind,
        "mode": stat.S_IMODE(old.mode) != stat.S_IMODE(new.mode),
        "owner": (old.uid, old.gid) != (new.uid, new.gid),
        "mtime": old.mtime != new.mtime,
        "xattrs": old.xattrs != new.xattrs,
    }
    if same_kind and kind != stat.S_IFDIR:
        differs[_content_word(kind)] = (old.ref, old.size, old.count) != (
            new.ref, new.size, new.count,
        )  # fmt: skip
        differs["links"] = old.links != new.links
    return tuple(word for word, different in differs.items() if different)


def _content_word(kind: int) -> str:
    if kind == stat.S_IFREG:
        return "content"
    return "target" if kind == stat.S_IFLNK else "device"


def _is_directory(entry: Entry | None) -> bool:
    return entry is not None and entry.is_directory


def _all_entries(pages: Pages, directory: Entry | None) -> Iterator[Entry]:
    if directory is not None:
        for _, leaf in pages.leaves(directory):
            yield from leaf.entries


def _merge(lefts: Iterator[Entry], rights: Iterator[Entry]) -> Iterator[Pair]:
    """Pair entries of two ordered sequences by name."""
    left, right = next(lefts, None), next(rights, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.name < right.name):
            assert left is not None
            yield left.name, left, None
            left = next(lefts, None)
        elif left is None or right.name < left.name:
            yield right.name, None, right
            right = next(rights, None)
        else:
            yield left.name, left, right
            left, right = next(lefts, None), next(rights, None)


def _contains(ordered: Sequence[bytes], path: bytes) -> bool:
    i = bisect_left(ordered, path)
    return i < len(ordered) and ordered[i] == path


def _relinked(a: Tree, b: Tree) -> list[bytes]:
    """Paths whose link group is another one in the other tree, in order of their bytes."""
    if a.manifest.links == b.manifest.links:
        return []
    in_a, in_b = _link_pages(a), _link_pages(b)
    groups = _groups(a, in_a - in_b) ^ _groups(b, in_b - in_a)
    return sorted({path for group in groups for path in group})


def _groups(tree: Tree, pages: set[ObjectId]) -> set[LinkGroup]:
    return {group for page in pages for group in read_link_page(tree.fetch, page, None)}


def _link_pages(tree: Tree) -> set[ObjectId]:
    links = tree.manifest.links
    return set(read_link_pages(tree.fetch, None if links is None else ObjectId(links)))
