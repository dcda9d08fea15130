"""Trees for tests: an object store in a dict, and plain values that trees are built from."""

from __future__ import annotations

import random
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from imagefs.errors import Corrupt, NotReady
from imagefs.format.directory import Entry
from imagefs.format.manifest import path_order
from imagefs.format.record import object_id
from imagefs.model import CHUNK_SIZE, Ino, ObjectId
from imagefs.tree import build

T = TypeVar("T")


class Memory:
    """Objects by id, counting reads and new objects."""

    def __init__(self) -> None:
        self.objects: dict[ObjectId, bytes] = {}
        self.reads = 0
        self.writes = 0

    def put(self, data: bytes) -> ObjectId:
        oid = object_id(data)
        self.writes += oid not in self.objects
        self.objects[oid] = data
        return oid

    def fetch(self, oid: ObjectId) -> bytes:
        self.reads += 1
        if oid not in self.objects:
            raise Corrupt(f"Object {oid.hex()} is missing")
        return self.objects[oid]

    def unready_fetch(self) -> Callable[[ObjectId], bytes]:
        """A fetch that has nothing at hand the first time it is asked for an object."""
        ready: set[ObjectId] = set()

        def fetch(oid: ObjectId) -> bytes:
            if oid not in ready:
                raise NotReady(oid, lambda: oid, ready.add)
            return self.objects[oid]

        return fetch


def take(step: Callable[..., T], *args: object) -> T:
    """The result of a step that may say NotReady, as offline code takes it."""
    while True:
        try:
            return step(*args)
        except NotReady as missing:
            result = missing.work() if missing.work else None
            if missing.finish is not None:
                missing.finish(result)


@dataclass
class Node:
    """One inode. `children` only matter for directories; one Node at two places is a hard
    link."""

    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    chunks: list[bytes | None] = field(default_factory=list)
    target: bytes = b""
    rdev: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] | None = None
    children: dict[bytes, Node] = field(default_factory=dict)


def regular(*chunks: bytes | None, mode: int = 0o644, mtime: int = 0) -> Node:
    return Node(stat.S_IFREG | mode, chunks=list(chunks), mtime=mtime)


def directory(children: dict[bytes, Node] | None = None, mode: int = 0o755) -> Node:
    return Node(stat.S_IFDIR | mode, children=children or {})


def symlink(target: bytes) -> Node:
    return Node(stat.S_IFLNK | 0o777, target=target)


def places(root: Node) -> Iterator[tuple[bytes, Node]]:
    """Every path and its node in canonical order, the root first."""

    def below(path: bytes, node: Node) -> Iterator[tuple[bytes, Node]]:
        yield path, node
        for name, child in sorted(node.children.items()):
            yield from below(path + b"/" + name if path else name, child)

    return below(b"", root)


def link_groups(root: Node) -> dict[int, list[bytes]]:
    """The paths of every node that has several, by id(node)."""
    groups: dict[int, list[bytes]] = {}
    for path, node in places(root):
        groups.setdefault(id(node), []).append(path)
    return {key: paths for key, paths in groups.items() if len(paths) > 1}


def store(memory: Memory, root: Node) -> ObjectId:
    """Build the tree from nothing; returns its manifest id."""
    groups = link_groups(root)
    entry = entry_of(memory, b"", root, set(groups))
    return build.write_manifest(memory.put, entry, groups.values())


def entry_of(memory: Memory, name: bytes, node: Node, linked: set[int]) -> Entry:
    size, count, ref, links = 0, 0, None, int(id(node) in linked)
    if stat.S_ISDIR(node.mode):
        entries = [entry_of(memory, key, child, linked) for key, child in node.children.items()]
        random.Random(name).shuffle(entries)
        summary = build.write_directory(memory.put, entries)
        size, count, ref, links = summary.size, summary.count, summary.ref, summary.links
    elif stat.S_ISREG(node.mode):
        size = max(len(node.chunks) - 1, 0) * CHUNK_SIZE + sum(map(len_of, node.chunks[-1:]))
        ids = [None if chunk is None else memory.put(chunk) for chunk in node.chunks]
        ref = build.write_content(memory.put, ids, size)
        count = build.allocated(memory.fetch, ref, size)
    elif stat.S_ISLNK(node.mode):
        size, ref = len(node.target), ObjectId(node.target)
    else:
        count = node.rdev
    return Entry(
        name, node.mode, node.uid, node.gid, node.mtime, size, count, ref, links, node.xattrs
    )


def len_of(chunk: bytes | None) -> int:
    return CHUNK_SIZE if chunk is None else len(chunk)


def numbers(root: Node) -> dict[bytes, Ino]:
    """The inode number of every path, by counting."""
    first: dict[int, int] = {}
    found = {}
    for position, (path, node) in enumerate(places(root), 1):
        found[path] = Ino(first.setdefault(id(node), position))
    return found


def in_order(paths: list[bytes]) -> tuple[bytes, ...]:
    return tuple(sorted(paths, key=path_order))


def grown(rng: random.Random, names: int) -> Node:
    """A random tree of about that many names, of all types, with hard links."""
    root = directory()
    directories = [root]
    files: list[Node] = []
    for _ in range(names):
        parent = rng.choice(directories[-5:] if rng.random() < 0.7 else directories)
        name = rng.choice([b"%x" % rng.randrange(4096), rng.randbytes(3).hex().encode(), b"\xff-"])
        if name in parent.children:
            continue
        if files and rng.random() < 0.1:
            node = rng.choice(files)
        else:
            node = grown_node(rng)
            (directories if stat.S_ISDIR(node.mode) else files).append(node)
        parent.children[name] = node
    return root


def grown_node(rng: random.Random) -> Node:
    kind = rng.choice(
        [stat.S_IFREG] * 8 + [stat.S_IFDIR] * 3 + [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO]
    )
    node = Node(kind | rng.randrange(0o10000), rng.randrange(3), rng.randrange(2**32))
    node.mtime = rng.choice([0, -1, 10**18, rng.randrange(-(2**63), 2**63)])
    if rng.random() < 0.1:
        node.xattrs = ((b"security.capability", rng.randbytes(20)), (b"user.\xff", b""))
    if kind == stat.S_IFREG:
        node.chunks = rng.choice([[], [b"a"], [b"bc", None][:1], [None, rng.randbytes(5)]])
        if len(node.chunks) == 2 and rng.random() < 0.5:
            node.chunks = [b"x" * CHUNK_SIZE, *[None] * rng.randrange(3), b"end"]
    elif kind == stat.S_IFLNK:
        node.target = rng.choice([b"a", b"../" * 9, b"\xfe" * 4095])
    elif kind == stat.S_IFCHR:
        node.rdev = rng.choice([0, 1281, 2**32 - 1])
    return node
