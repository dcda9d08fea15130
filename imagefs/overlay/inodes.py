"""Inode rows: what an overlay knows about one inode, and the cache of them.

An inode of the base has a row once it was changed in any way; until then its `Inode` is
made from the base's entry. What the overlay created always has a row. `stored` bits say
which base inodes may have one, so that a tree that was hardly changed is served without
asking the database.

An inode that lost its last name while it is open is an orphan: its row is deleted together
with the name and it lives on in memory only, so a crash needs no cleaning up here. (Heap
extents of its chunks are another matter, see `extents`.)
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from functools import cached_property

import msgspec

from imagefs.errors import Stale
from imagefs.format.directory import Entry
from imagefs.model import MAX_FILE_SIZE, Attributes, Ino
from imagefs.overlay.database import Database
from imagefs.overlay.recent import RowCache
from imagefs.tree import Tree

_SECTOR = 512
_PAGE = 4096
_CACHED = 1024
"""Few, because every instance in use has a cache; the kernel has the large one."""

Xattrs = tuple[tuple[bytes, bytes], ...]
"""Extended attributes, sorted by name."""

GET_INODE = "SELECT * FROM inode WHERE ino = ?"
"""The row of an inode, in the order of the fields of `Inode`."""
_PUT = f"INSERT OR REPLACE INTO inode VALUES ({', '.join('?' * 21)})"
_REMOVE = "DELETE FROM inode WHERE ino = ?"
_STORED = "SELECT ino FROM inode WHERE ino <= ?"

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Xattrs)


class Inode(msgspec.Struct, frozen=True, gc=False):
    """One inode; the fields are the columns of its row, in their order.

    `parent` is set for directories the overlay made or moved, 0 elsewhere. `ref`, `ref_size`
    and `ref_count` are what the store has: of a regular file the content reference with its
    size and allocated bytes, of which the first `keep` bytes still show; of a symlink `ref`
    is the target. `place` and `capacity` say where in the heap chunk 0 lies (capacity 0:
    nowhere). `allocated` counts bytes: stored chunks that show and heap capacity.
    `added_entries` and `added_bytes` are what this row adds to the totals of the base.
    """

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    allocated: int
    atime: int
    mtime: int
    ctime: int
    parent: int = 0
    ref: bytes | None = None
    ref_size: int = 0
    ref_count: int = 0
    keep: int = 0
    place: int = 0
    capacity: int = 0
    xattrs: bytes | None = None
    added_entries: int = 0
    added_bytes: int = 0

    @property
    def is_directory(self) -> bool:
        return self.mode & 0o170000 == stat.S_IFDIR

    @property
    def is_regular(self) -> bool:
        return self.mode & 0o170000 == stat.S_IFREG


def attributes_of(inode: Inode) -> Attributes:
    """What stat answers; a file shows no more blocks than its size can fill."""
    most = -(-inode.size // _PAGE) * _PAGE
    return Attributes(
        Ino(inode.ino),
        inode.mode,
        inode.nlink,
        inode.uid,
        inode.gid,
        inode.rdev,
        inode.size,
        -(-min(inode.allocated, most) // _SECTOR),
        inode.atime,
        inode.mtime,
        inode.ctime,
    )


def pack_xattrs(xattrs: Xattrs | None) -> bytes | None:
    """Extended attributes as a row keeps them."""
    return _encoder.encode(xattrs) if xattrs else None


def unpack_xattrs(packed: bytes | None) -> Xattrs:
    """Extended attributes from a row, sorted by name."""
    return _decoder.decode(packed) if packed else ()


def inode_of(tree: Tree, ino: Ino, entry: Entry) -> Inode:
    """An inode of the base as it is before any change; may raise NotReady."""
    attributes = tree.attributes(ino, entry)
    regular = entry.is_regular
    return Inode(
        ino=ino,
        mode=attributes.mode,
        nlink=attributes.nlink,
        uid=attributes.uid,
        gid=attributes.gid,
        rdev=attributes.rdev,
        size=attributes.size,
        allocated=entry.count if regular else attributes.blocks * _SECTOR,
        atime=attributes.atime,
        mtime=attributes.mtime,
        ctime=attributes.ctime,
        ref=None if entry.is_directory else entry.ref,
        ref_size=entry.size if regular else 0,
        ref_count=entry.count if regular else 0,
        keep=entry.size if regular else 0,
        xattrs=pack_xattrs(entry.xattrs),
    )


class Inodes:
    """The inodes of one overlay: rows over base, a bounded cache in front of both.

    `put` and `remove` change the row and the cache at once; when the transaction around
    them is rolled back `forget` must be called.
    """

    def __init__(self, base: Tree, database: Callable[[], Database | None]) -> None:
        self._base = base
        self._database = database
        self._recent: RowCache[int, Inode] = RowCache(_CACHED)
        self._stored = bytearray()
        self.orphans: dict[int, Inode] = {}

    def __repr__(self) -> str:
        return f"<Inodes: {len(self._recent)} cached, {len(self.orphans)} orphans>"

    @cached_property
    def total(self) -> int:
        """Inode numbers up to this are the base's; may raise NotReady."""
        return self._base.total

    def load_stored(self, database: Database) -> None:
        """Learn which base inodes have a row; to be called when the database is opened."""
        stored = bytearray((self.total >> 3) + 1)
        for (ino,) in database.rows(_STORED, (self.total,)):
            stored[ino >> 3] |= 1 << (ino & 7)
        self._stored = stored

    def forget(self) -> None:
        """Drop the cache: rows were taken back."""
        self._recent.clear()

    def may_be_stored(self, ino: int) -> bool:
        """False only when the inode certainly has no row, and its chunks no extents."""
        if ino > self.total:
            return True
        return bool(self._stored and self._stored[ino >> 3] >> (ino & 7) & 1)

    def get(self, ino: int) -> Inode:
        """The inode as it is now; raises Stale when there is none, NotReady."""
        inode = self._recent.get(ino)
        if inode is None:
            inode = self._load(ino)
            self._recent.put(ino, inode)
        return inode

    def seen(self, ino: Ino, entry: Entry) -> Inode:
        """Like `get` for an inode whose entry of the base is at hand."""
        if self.may_be_stored(ino):
            return self.get(ino)
        inode = self._recent.get(ino)
        if inode is None:
            inode = inode_of(self._base, ino, entry)
            self._recent.put(ino, inode)
        return inode

    def put(self, inode: Inode) -> None:
        """Store the row; an orphan's is kept in memory."""
        ino = inode.ino
        if not -MAX_FILE_SIZE <= inode.added_bytes <= MAX_FILE_SIZE:
            bounded = min(max(inode.added_bytes, -MAX_FILE_SIZE), MAX_FILE_SIZE)
            inode = msgspec.structs.replace(inode, added_bytes=bounded)
        if inode.nlink:
            self._require().run(_PUT, msgspec.structs.astuple(inode))
        else:
            self.orphans[ino] = inode
        self._recent.put(ino, inode)
        if ino <= self.total:
            # An orphan's chunks may have extents, which is what this is asked about, too.
            self._stored[ino >> 3] |= 1 << (ino & 7)

    def remove(self, ino: int) -> None:
        """Delete the row."""
        if self.may_be_stored(ino):
            self._require().run(_REMOVE, (ino,))
        self._recent.drop(ino)

    def release_orphan(self, ino: int) -> Inode | None:
        """Forget an orphan; None if the inode is none."""
        orphan = self.orphans.pop(ino, None)
        if orphan is not None:
            self._recent.drop(ino)
        return orphan

    def _require(self) -> Database:
        database = self._database()
        assert database is not None
        return database

    def _load(self, ino: int) -> Inode:
        orphan = self.orphans.get(ino)
        if orphan is not None:
            return orphan
        database = self._database()
        if database is not None and self.may_be_stored(ino):
            row = database.row(GET_INODE, (ino,))
            if row is not None:
                return Inode(*row)
        if ino > self.total:
            raise Stale(f"Inode {ino} does not exist any more")
        return inode_of(self._base, Ino(ino), self._base.entry(Ino(ino)))
