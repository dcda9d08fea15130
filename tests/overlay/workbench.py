"""An overlay in a temporary directory, driven by paths, and what to compare it with."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from imagefs.disk import Disk
from imagefs.errors import NotReady
from imagefs.format.directory import Entry
from imagefs.model import ROOT_INO, Attributes, Ino, ObjectId
from imagefs.overlay import Overlay
from imagefs.store import Store
from imagefs.tree import Tree, build

P = ParamSpec("P")
T = TypeVar("T")

START = 1_700_000_000_000_000_000
PIECE = 7
"""Names listed at once: few, so that going on behind a name is always tried."""


def empty_tree(store: Store) -> ObjectId:
    """The manifest of a tree that is nothing but a root directory."""
    with store.writer() as writer:
        put = partial(writer.put, metadata=True)
        summary = build.write_directory(put, [])
        entry = Entry(
            b"", 0o40755, 0, 0, START, summary.size, summary.count, summary.ref, 0, None
        )  # fmt: skip
        manifest = build.write_manifest(put, entry, [])
        writer.finish()
    return manifest


class Reluctant:
    """A `fetch` that has nothing at hand at the start of a step, so that every step that
    needs objects is interrupted as often as it can be."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._at_hand: set[ObjectId] = set()
        self.refusals = 0

    def start(self) -> None:
        self._at_hand.clear()

    def __call__(self, oid: ObjectId) -> bytes:
        if oid not in self._at_hand:
            self.refusals += 1
            raise NotReady(("object", oid), partial(self._store.get, oid), self._finish(oid))
        return self._store.get(oid)

    def _finish(self, oid: ObjectId) -> Callable[[bytes], None]:
        return lambda _: self._at_hand.add(oid)


class Bench:
    """An overlay over a tree of the store, with time that only goes on when it is asked."""

    def __init__(
        self, directory: Path, store: Store, manifest: ObjectId, disk: Disk | None = None
    ) -> None:
        self.directory = directory
        self.store = store
        self.manifest = manifest
        self.disk = disk or Disk()
        self.fetch = Reluctant(store)
        self._ticks = count(START)
        self.open()

    def open(self) -> None:
        self.tree = Tree(self.fetch, self.manifest)
        self.overlay = Overlay(self.directory, self.tree, self.fetch, self.disk, self.clock)
        # The names in the base's root are at hand from here on; all else of it is not.
        self.run(self.overlay.list, ROOT_INO, None, 1)

    def clock(self) -> int:
        return next(self._ticks)

    def reopen(self) -> None:
        self.overlay.close()
        self.open()

    def kill(self) -> None:
        """What a killed session leaves behind is opened in its place."""
        copy = self.directory.with_name(self.directory.name + "-copy")
        if self.directory.exists():
            shutil.copytree(self.directory, copy, copy_function=copy_sparse)
        self.overlay.close()
        if copy.exists():
            shutil.rmtree(self.directory)
            copy.rename(self.directory)
        self.open()

    def run(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Take a step; it must not have changed anything when it is interrupted."""
        self.fetch.start()
        while True:
            before = self.overlay._layer.changes
            try:
                return step(*args, **kwargs)
            except NotReady as needed:
                assert self.overlay._layer.changes == before, "changed, then interrupted"
                self.do(needed)

    @staticmethod
    def do(needed: NotReady) -> None:
        """Do what a step needs."""
        assert needed.work is not None
        result = needed.work()
        if needed.finish is not None:
            needed.finish(result)

    def commit(self) -> ObjectId:
        with self.store.writer() as writer:
            manifest, bookkeeping = self.overlay.commit(writer, self.store.get)
            writer.finish()
        self.overlay.committed(bookkeeping)
        return manifest

    # -- by path ------------------------------------------------------------------------

    def ino(self, path: bytes) -> Ino:
        ino = ROOT_INO
        for name in path.split(b"/") if path else ():
            found = self.run(self.overlay.lookup, ino, name)
            assert found is not None, path
            ino = found.ino
        return ino

    def place(self, path: bytes) -> tuple[Ino, bytes]:
        above, _, name = path.rpartition(b"/")
        return self.ino(above), name

    def make(self, path: bytes, mode: int = 0o100644, content: bytes = b"") -> Ino:
        parent, name = self.place(path)
        ino = self.run(self.overlay.make, parent, name, mode, 0, 0).ino
        if content:
            self.run(self.overlay.write, ino, 0, content)
        return ino

    def content(self, ino: Ino) -> bytes:
        size = self.run(self.overlay.attributes, ino).size
        return self.run(self.overlay.read, ino, 0, size + 1)

    def read(self, path: bytes) -> bytes:
        return self.content(self.ino(path))

    def names(self, ino: Ino) -> list[bytes]:
        return [name for name, _ in self.items(ino)]

    def items(self, ino: Ino) -> Iterator[tuple[bytes, Attributes]]:
        after: bytes | None = None
        while items := self.run(self.overlay.list, ino, after, PIECE):
            for item in items:
                yield item.name, item.attributes
            after = items[-1].name

    def walk(self, ino: Ino = ROOT_INO, path: bytes = b"") -> Iterator[tuple[bytes, Attributes]]:
        """Every path below, depth first."""
        for name, attributes in self.items(ino):
            below = path + name
            yield below, attributes
            if stat.S_ISDIR(attributes.mode):
                yield from self.walk(attributes.ino, below + b"/")


def copy_sparse(source: str, target: str) -> None:
    """Copy a file with its holes: heaps may be large and hardly filled."""
    size = os.stat(source).st_size
    with open(source, "rb") as old, open(target, "wb") as new:
        os.truncate(new.fileno(), size)
        place = 0
        while place < size:
            try:
                place = os.lseek(old.fileno(), place, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(old.fileno(), place, os.SEEK_HOLE)
            os.pwrite(new.fileno(), os.pread(old.fileno(), end - place, place), place)
            place = end


class Fact(NamedTuple):
    """What a comparison looks at for one path, times left out."""

    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    content: bytes
    xattrs: tuple[tuple[bytes, bytes], ...]
    linked_with: bytes


def facts(bench: Bench) -> dict[bytes, Fact]:
    """The whole tree of an overlay."""
    found: dict[bytes, Fact] = {}
    firsts: dict[int, bytes] = {}
    root = bench.run(bench.overlay.attributes, ROOT_INO)
    for path, attributes in [(b"", root), *bench.walk()]:
        ino = attributes.ino
        assert bench.run(bench.overlay.attributes, ino) == attributes, path
        content = b""
        if stat.S_ISREG(attributes.mode):
            content = bench.content(ino)
            assert len(content) == attributes.size
            assert attributes.blocks <= -(-attributes.size // 4096) * 8
        elif stat.S_ISLNK(attributes.mode):
            content = bench.overlay.readlink(ino)
        names = bench.run(bench.overlay.list_xattr, ino)
        xattrs = tuple((name, bench.run(bench.overlay.get_xattr, ino, name)) for name in names)
        is_directory = stat.S_ISDIR(attributes.mode)
        found[path] = Fact(
            attributes.mode, attributes.nlink, attributes.uid, attributes.gid, attributes.rdev,
            0 if is_directory else attributes.size, content, xattrs,
            firsts.setdefault(ino, path),
        )  # fmt: skip
    return found


def facts_of_host(directory: bytes) -> dict[bytes, Fact]:
    """The same of a directory of the host."""
    found: dict[bytes, Fact] = {}
    firsts: dict[int, bytes] = {}
    for path in [b"", *walk_host(directory)]:
        full = os.path.join(directory, path) if path else directory
        status = os.lstat(full)
        content = b""
        if stat.S_ISREG(status.st_mode):
            content = Path(os.fsdecode(full)).read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(full)
        names = sorted(os.listxattr(full, follow_symlinks=False))
        xattrs = tuple(
            (os.fsencode(name), os.getxattr(full, name, follow_symlinks=False)) for name in names
        )
        is_directory = stat.S_ISDIR(status.st_mode)
        found[path] = Fact(
            status.st_mode, status.st_nlink, status.st_uid, status.st_gid, status.st_rdev,
            0 if is_directory else status.st_size, content, xattrs,
            firsts.setdefault(status.st_ino, path),
        )  # fmt: skip
    return found


def walk_host(directory: bytes, path: bytes = b"") -> Iterator[bytes]:
    """Every path below, depth first, in byte order."""
    for name in sorted(os.listdir(os.path.join(directory, path) if path else directory)):
        below = path + name
        yield below
        full = os.path.join(directory, below)
        if stat.S_ISDIR(os.lstat(full).st_mode):
            yield from walk_host(directory, below + b"/")


def set_host_times(bench: Bench, directory: bytes) -> None:
    """Give a directory of the host the times that the overlay has, so that both are the same
    tree to the last bit."""
    root = bench.run(bench.overlay.attributes, ROOT_INO)
    for path, attributes in [*bench.walk(), (b"", root)]:
        full = os.path.join(directory, path) if path else directory
        times = (attributes.atime, attributes.mtime)
        os.utime(full, ns=times, follow_symlinks=False)
