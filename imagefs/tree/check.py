"""Checking stored trees: every object below a manifest is there, good and what it should be.

What is checked: manifest, directory pages (form, order, where they are cut, the counts of
entries, bytes and directories that the page or entry above says), content maps and the length
of every chunk, the sum of chunks that an entry says, and that the link table and the entries
marked as linked are the same names.

A part that was found good is known by its id and what is said of it above, and is not looked at
again: images that share most of their trees cost little more than one. A part with damage is
walked again for every tree, because every tree is told where it is damaged.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from blake3 import blake3

from imagefs.errors import Corrupt
from imagefs.format.content import (
    FANOUT,
    check_node,
    chunk_count,
    chunk_length,
    map_depth,
    node_child,
    node_span,
)
from imagefs.format.directory import Entry, Index, Leaf
from imagefs.model import CHUNK_SIZE, OBJECT_ID_SIZE, ObjectId
from imagefs.store.check import ObjectCheck
from imagefs.store.known import KnownIds
from imagefs.tree.links import read_link_page, read_link_pages
from imagefs.tree.pages import Pages, load_child, load_root
from imagefs.tree.tree import Tree

Tell = Callable[[int, int], None]
"""Is told of progress: entries looked at, bytes of objects read."""

_DIRECTORY = struct.Struct("<cqqq")
_PAGE = struct.Struct("<cqqqqq")
_CONTENT = struct.Struct("<cqq")


class TreeProblem(NamedTuple):
    """What is wrong at a path of a tree; `oid` is the bad object where there is one."""

    path: bytes
    message: str
    oid: ObjectId | None = None


class _Page:
    """A page of a directory that is being checked; `linked` counts the linked entries in it
    and below."""

    __slots__ = ("good", "key", "linked", "load", "path", "rest")

    def __init__(self, path: bytes, key: bytes, load: Callable[[], Leaf | Index]) -> None:
        self.path = path
        self.key = key
        self.load = load
        self.linked = 0
        self.good = True
        self.rest: Iterator[TreeProblem | _Page] = iter(())


class TreeCheck:
    """Checks any number of trees and contents of one store. Blocks."""

    def __init__(self, objects: ObjectCheck, tell: Tell) -> None:
        self.entries = 0
        """Entries looked at."""
        self._objects = objects
        self._tell = tell
        self._pages = Pages(objects.read)
        self._good = KnownIds()
        """Parts found good, with the number of linked entries in them."""

    def __repr__(self) -> str:
        return f"<TreeCheck: {self.entries} entries, {self._objects}>"

    # -- trees --------------------------------------------------------------------------

    def check(self, manifest_id: ObjectId) -> Iterator[TreeProblem]:
        """What is wrong with a tree, in the order of a walk."""
        tree = Tree(self._objects.read, manifest_id, self._pages)
        try:
            root = tree.manifest.root
        except Corrupt as error:
            yield TreeProblem(b"", f"Manifest: {error}", manifest_id)
            return
        top = self._directory(b"", root)
        yield from self._walk(top)
        yield from self._check_links(tree, top)

    def root(self, manifest_id: ObjectId) -> Entry | None:
        """The root's entry of a tree that was checked, None if its manifest is bad."""
        try:
            return Tree(self._objects.read, manifest_id, self._pages).manifest.root
        except Corrupt:
            return None

    def _walk(self, top: _Page) -> Iterator[TreeProblem]:
        known = self._good.get(top.key)
        if known is not None:
            top.linked = known
            return
        stack = [top]
        top.rest = self._look_into(top)
        while stack:
            page = stack[-1]
            found = next(page.rest, None)
            if found is None:
                stack.pop()
                self._leave(page, stack)
            elif isinstance(found, TreeProblem):
                page.good = False
                yield found
            elif (linked := self._good.get(found.key)) is not None:
                page.linked += linked
            else:
                found.rest = self._look_into(found)
                stack.append(found)

    def _leave(self, page: _Page, above: Sequence[_Page]) -> None:
        if page.good:
            self._good.put(page.key, page.linked)
        if above:
            above[-1].linked += page.linked
            above[-1].good &= page.good

    def _look_into(self, page: _Page) -> Iterator[TreeProblem | _Page]:
        """What is wrong with a page itself and the files in it, and the pages below it."""
        try:
            loaded = page.load()
        except Corrupt as error:
            yield TreeProblem(page.path, f"Directory: {error}")
            return
        if isinstance(loaded, Index):
            for place in range(len(loaded.pages)):
                yield self._child(page.path, loaded, place)
            return
        yield from self._check_files(page.path, loaded.entries)
        for entry in loaded.entries:
            page.linked += entry.is_linked
            if entry.is_directory:
                yield self._directory(_join(page.path, entry.name), entry)
        self.entries += len(loaded.entries)
        self._tell(self.entries, self._objects.bytes)

    def _directory(self, path: bytes, entry: Entry) -> _Page:
        assert entry.ref is not None
        said = _DIRECTORY.pack(b"d", entry.count, entry.size, entry.links)
        return _Page(path, _key(entry.ref, said), partial(load_root, self._objects.read, entry))

    def _child(self, path: bytes, index: Index, place: int) -> _Page:
        ref = index.pages[place]
        said = _PAGE.pack(b"p", index.level, ref.names, ref.total, ref.size, ref.links)
        load = partial(load_child, self._objects.read, index, place)
        return _Page(path, _key(ref.ref, said + ref.first), load)

    # -- hard links ---------------------------------------------------------------------

    def _check_links(self, tree: Tree, top: _Page) -> Iterator[TreeProblem]:
        try:
            if top.good:
                names = tree.linked_names()
            else:
                # Paths cannot be followed through damage; the table's own objects can be read.
                names = top.linked = self._read_links(tree)
        except Corrupt as error:
            yield TreeProblem(b"", f"Hard links: {error}")
            return
        if names != top.linked:
            yield TreeProblem(
                b"",
                f"Hard links: {top.linked} entries are marked as linked, the link table has"
                f" {names} names",
            )

    def _read_links(self, tree: Tree) -> int:
        links = tree.manifest.links
        names = 0
        before = None
        for page in read_link_pages(self._objects.read, None if links is None else ObjectId(links)):
            groups = read_link_page(self._objects.read, page, before)
            before = groups[-1][0]
            names += sum(map(len, groups))
        return names

    # -- files --------------------------------------------------------------------------

    def _check_files(self, path: bytes, entries: Sequence[Entry]) -> Iterator[TreeProblem]:
        files = [entry for entry in entries if entry.is_regular and entry.ref is not None]
        self._objects.check(ObjectId(e.ref) for e in files if e.ref and e.size <= CHUNK_SIZE)
        for entry in files:
            assert entry.ref is not None
            ref = ObjectId(entry.ref)
            yield from self.content(_join(path, entry.name), ref, entry.size, entry.count)

    def content(self, path: bytes, ref: ObjectId, size: int, count: int) -> Iterator[TreeProblem]:
        """What is wrong with the content of a regular file of `size` bytes, of which `count`
        are in chunks."""
        key = _key(ref, _CONTENT.pack(b"c", size, count))
        if size > CHUNK_SIZE and self._good.get(key) is not None:
            return
        good = True
        stored = 0
        for found in self._check_map(path, ref, map_depth(size), 0, size):
            if isinstance(found, TreeProblem):
                good = False
                yield found
            else:
                stored += found
        if good and stored != count:
            good = False
            yield TreeProblem(path, f"The chunks have {stored} bytes, the entry says {count}", ref)
        if good and size > CHUNK_SIZE:
            self._good.put(key, 0)

    def _check_map(
        self, path: bytes, ref: ObjectId, depth: int, base: int, size: int
    ) -> Iterator[TreeProblem | int]:
        """The lengths of the chunks below a map node (or of the one chunk), or what is wrong
        with them; `base` is the number of the first."""
        if depth == 0:
            self._objects.check([ref])
            yield self._check_chunk(path, ref, base, size)
            return
        span = node_span(depth - 1)
        most = min(-(-(chunk_count(size) - base) // span), FANOUT)
        try:
            node = self._objects.read(ref)
            check_node(node, most)
        except Corrupt as error:
            begin, end = base * CHUNK_SIZE, min((base + most * span) * CHUNK_SIZE, size)
            yield TreeProblem(path, f"Bytes {begin} to {end - 1}: {error}", ref)
            return
        children = [
            (base + place * span, child)
            for place in range(len(node) // OBJECT_ID_SIZE)
            if (child := node_child(node, place)) is not None
        ]
        if depth > 1:
            for begin, child in children:
                yield from self._check_map(path, child, depth - 1, begin, size)
            return
        self._objects.check(child for _, child in children)
        for begin, child in children:
            yield self._check_chunk(path, child, begin, size)
        self._tell(self.entries, self._objects.bytes)

    def _check_chunk(self, path: bytes, oid: ObjectId, index: int, size: int) -> TreeProblem | int:
        verdict = self._objects.verdict(oid)
        length = chunk_length(index, size)
        if verdict == length:
            return length
        begin = index * CHUNK_SIZE
        if isinstance(verdict, int):
            verdict = f"Object {oid.hex()} has {verdict} bytes where {length} belong"
        return TreeProblem(path, f"Bytes {begin} to {begin + length - 1}: {verdict}", oid)


def _key(ref: bytes, said: bytes) -> bytes:
    """What stands for a part: its id and what is said of it above."""
    return blake3(ref + said).digest()


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name
