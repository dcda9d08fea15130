"""All objects of a tree, each once, without those of another tree that stand at the same place.

For copying a tree to where a base is complete: what both have at the same path (a page of a
directory, a map node, a chunk) is left out together with everything below it, and not read.
What moved is listed, so whoever copies still asks whether the target has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Final, TypeAlias, Union

from imagefs.errors import Corrupt
from imagefs.format.content import FANOUT, check_node, map_depth, node_child
from imagefs.format.directory import Entry, Index, Leaf
from imagefs.model import OBJECT_ID_SIZE, ObjectId
from imagefs.store.known import KnownIds
from imagefs.tree.links import read_link_pages
from imagefs.tree.pages import Fetch, Pages, load_child, load_root
from imagefs.tree.tree import Tree

Found = tuple[ObjectId, bool]
"""An object, and whether it is metadata: anything but a chunk of a file."""

_Items: TypeAlias = Iterator[Union[Found, "_Items"]]
"""Objects, and in their places those of parts below."""

_PAGE: Final = 0
_Content = tuple[ObjectId, int]
"""A content reference, and the levels of map nodes above its chunks."""


def tree_objects(
    fetch: Fetch, manifest: ObjectId, *, base: ObjectId | None = None
) -> Iterator[Found]:
    """The objects of a tree in canonical order: the manifest, the link table, then directory
    by directory its pages and what they refer to. Blocks as `fetch` does.

    `base` is the manifest of another tree that need not be listed; what of it cannot be read is
    taken as not there. Raises Corrupt when an object is missing or not what it should be.
    Memory grows by 40 bytes for each object.
    """
    return _Walk(fetch).run(manifest, base)


class _Base:
    """The other tree. It only saves work: where it is damaged, nothing of it is there."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._pages = Pages(fetch)

    def __repr__(self) -> str:
        return f"<_Base {self._pages}>"

    def root(self, manifest: ObjectId) -> tuple[Entry | None, set[ObjectId]]:
        """The root's entry and the objects of the link table."""
        tree = Tree(self._fetch, manifest, self._pages)
        try:
            links = tree.manifest.links
            if links is None:
                return tree.manifest.root, set()
            table = ObjectId(links)
            return tree.manifest.root, {table, *read_link_pages(self._fetch, table)}
        except Corrupt:
            return None, set()

    def pages(self, directory: Entry) -> set[bytes]:
        """The pages of a directory; leaf pages are not read for it."""
        found: set[bytes] = set()
        with suppress(Corrupt):  # what was found so far is right
            self._add_pages(self._pages.root(directory), found)
        return found

    def _add_pages(self, page: Leaf | Index, found: set[bytes]) -> None:
        if isinstance(page, Index):
            found.update(ref.ref for ref in page.pages)
            if page.level > 1:
                for place in range(len(page.pages)):
                    self._add_pages(self._pages.child(page, place), found)

    def entry(self, directory: Entry | None, name: bytes) -> Entry | None:
        """The entry of a name in a directory."""
        if directory is None:
            return None
        try:
            found = self._pages.find(directory, name)
        except Corrupt:
            return None
        return None if found is None else found[1]

    def children(self, content: _Content | None, depth: int) -> Callable[[int], _Content | None]:
        """What stands at each place of a map node of that depth, so has one level less. Content
        with fewer levels stands at the first place, or below it."""
        if content is None or content[1] < depth:
            return lambda place: None if place else content
        try:
            node = self._fetch(content[0])
            check_node(node, FANOUT)
        except Corrupt:
            node = b""

        def child(place: int) -> _Content | None:
            found = node_child(node, place)
            return None if found is None else (found, depth - 1)

        return child

    def cut(self, content: _Content | None, depth: int) -> _Content | None:
        """Content with at most so many levels: of more, what the first nodes lead to."""
        while content is not None and content[1] > depth:
            content = self.children(content, content[1])(0)
        return content


class _Walk:
    """One listing. A part that was gone through is not gone through again, wherever it stands;
    a page and a chunk with the same bytes are one object and two parts."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._base = _Base(fetch)
        self._told = KnownIds()
        self._entered: dict[int, KnownIds] = {}

    def run(self, manifest: ObjectId, base: ObjectId | None) -> Iterator[Found]:
        if manifest == base:
            return
        tree = Tree(self._fetch, manifest)
        root = tree.manifest.root
        old, old_links = (None, set[ObjectId]()) if base is None else self._base.root(base)
        yield from self._tell(manifest, metadata=True)
        if tree.manifest.links is not None:
            links = ObjectId(tree.manifest.links)
            for oid in [links, *read_link_pages(self._fetch, links)]:
                if oid not in old_links:
                    yield from self._tell(oid, metadata=True)
        stack = [self._directory(root, old)]
        while stack:
            found = next(stack[-1], None)
            if found is None:
                stack.pop()
            elif isinstance(found, tuple):
                yield found
            else:
                stack.append(found)

    def _tell(self, oid: ObjectId, *, metadata: bool) -> Iterator[Found]:
        if self._told.get(oid) is None:
            self._told.put(oid, 0)
            yield oid, metadata

    def _enter(self, oid: ObjectId, kind: int) -> bool:
        """Whether to go through this part; `kind` is `_PAGE`, or the depth of a map node."""
        entered = self._entered.setdefault(kind, KnownIds())
        if entered.get(oid) is not None:
            return False
        entered.put(oid, 0)
        return True

    # -- directories --------------------------------------------------------------------

    def _directory(self, entry: Entry, old: Entry | None) -> _Items:
        """The objects of a directory, and in their places those of the directories in it."""
        assert entry.ref is not None
        if old is not None and not old.is_directory:
            old = None
        if old is not None and old.ref == entry.ref:
            return
        known = set() if old is None else self._base.pages(old)
        load = partial(load_root, self._fetch, entry)
        yield from self._page(entry.ref, load, old, known)

    def _page(
        self, ref: bytes, load: Callable[[], Leaf | Index], old: Entry | None, known: set[bytes]
    ) -> _Items:
        oid = ObjectId(ref)
        if ref in known or not self._enter(oid, _PAGE):
            return
        yield from self._tell(oid, metadata=True)
        page = load()
        if isinstance(page, Index):
            for place, child in enumerate(page.pages):
                load = partial(load_child, self._fetch, page, place)
                yield from self._page(child.ref, load, old, known)
            return
        for entry in page.entries:
            if entry.is_directory:
                yield self._directory(entry, self._base.entry(old, entry.name))
            elif entry.is_regular and entry.ref is not None:
                before = _content(self._base.entry(old, entry.name))
                depth = map_depth(entry.size)
                yield from self._map(ObjectId(entry.ref), depth, self._base.cut(before, depth))

    # -- files --------------------------------------------------------------------------

    def _map(self, oid: ObjectId, depth: int, old: _Content | None) -> Iterator[Found]:
        """The objects of content with so many levels of map nodes."""
        if old == (oid, depth):
            return
        if depth == 0:
            yield from self._tell(oid, metadata=False)
            return
        if not self._enter(oid, depth):
            return
        yield from self._tell(oid, metadata=True)
        node = self._fetch(oid)
        try:
            check_node(node, FANOUT)
        except Corrupt as error:
            raise Corrupt(f"{error} (object {oid.hex()})") from error
        before = self._base.children(old, depth)
        for place in range(len(node) // OBJECT_ID_SIZE):
            child = node_child(node, place)
            if child is not None:
                yield from self._map(child, depth - 1, before(place))


def _content(entry: Entry | None) -> _Content | None:
    if entry is None or not entry.is_regular or entry.ref is None:
        return None
    return ObjectId(entry.ref), map_depth(entry.size)
