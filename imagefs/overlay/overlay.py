"""The mutable layer over one immutable tree: the operations of a file system, by inode.

Every operation is a step: it answers, raises an `ImagefsError`, or raises NotReady before it
changed anything. What returned survives kill -9; `sync` makes it survive power loss. All of
it belongs to the loop's thread, but for `sync` and `commit`, which block and are for worker
threads: reading goes on meanwhile, and so may changes during `sync`, not during `commit`.

The layer above decides about rights, set-user-id bits and append mode. Times of what an
operation changes are kept here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from msgspec.structs import replace

from imagefs.disk import Disk
from imagefs.errors import (
    AttributeTooBig,
    Corrupt,
    Exists,
    ImagefsError,
    InvalidArgument,
    IsADirectory,
    NoAttribute,
    NoSpace,
    NotReady,
)
from imagefs.model import (
    MAX_NAME,
    MAX_XATTR_LIST,
    MAX_XATTR_VALUE,
    ROOT_INO,
    AttributeChange,
    Attributes,
    Ino,
    ObjectId,
)
from imagefs.overlay.bookkeeping import Bookkeeping, remember
from imagefs.overlay.check import check
from imagefs.overlay.commit import Commit
from imagefs.overlay.content import Content
from imagefs.overlay.inodes import Inode, attributes_of, pack_xattrs, unpack_xattrs
from imagefs.overlay.layer import Layer
from imagefs.overlay.names import Items
from imagefs.overlay.naming import Naming
from imagefs.overlay.totals import Totals
from imagefs.overlay.whereabouts import paths_of
from imagefs.store import StoreWriter
from imagefs.tree import Tree
from imagefs.tree.contents import Fetch

_PERMISSIONS: Final = 0o7777

_STORED_CONTENTS: Final = """
    SELECT ino, ref, ref_size, ref_count FROM inode
    WHERE ino > ? AND ref IS NOT NULL AND mode & 61440 = 32768 ORDER BY ino LIMIT ?"""

Problems = list[str]
StoredContent = tuple[int, bytes, int, int]
StoredContents = list[StoredContent]
T = TypeVar("T")


class Overlay(Totals):
    """One overlay. It has no files until its first change; they open when they are needed.

    `fetch` gets stored objects and may raise NotReady. `close` it when no operation runs;
    any later operation opens it again.
    """

    def __init__(
        self, directory: Path, base: Tree, fetch: Fetch, disk: Disk, clock: Callable[[], int]
    ) -> None:
        super().__init__(Layer(directory, base, fetch, disk, clock))
        self._inodes = self._layer.inodes
        self._names = self._layer.names
        self._content = Content(self._layer)
        self._naming = Naming(self._layer, self._content)

    def __repr__(self) -> str:
        return f"<Overlay {self._layer}>"

    def close(self) -> None:
        """Close the files; what was changed is durable then. Orphans are gone."""
        for ino in list(self._inodes.orphans):
            self._content.discard(Ino(ino))
        self._layer.close()

    def abandon(self) -> None:
        """Close the files of an overlay that is about to be deleted: nothing in it needs to
        become durable any more."""
        self._layer.let_go()

    @property
    def is_open(self) -> bool:
        """Whether the overlay's files are open."""
        return self._layer.is_open

    @staticmethod
    def delete(directory: Path, disk: Disk) -> None:
        """Remove the files of an overlay that is not open; blocks. None there is fine."""
        if not disk.is_directory(directory):
            return
        for name in disk.listdir(directory):
            disk.unlink(directory / name)
        disk.rmdir(directory)

    # -- telling ------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        """Whether anything was ever changed."""
        return self._layer.exists

    def orphan(self, ino: Ino) -> bool:
        """Whether the inode has lost its last name and was not discarded."""
        return ino in self._inodes.orphans

    def discard(self, ino: Ino) -> None:
        """Give up an orphan that nobody has open any more. Never raises."""
        self._content.discard(ino)

    # -- names and attributes -----------------------------------------------------------

    def lookup(self, parent: Ino, name: bytes) -> Attributes | None:
        """The attributes behind a name, None if there is none; raises NotADirectory."""
        directory = self._inodes.get(parent)
        if not directory.is_directory:
            self._naming.directory(parent)
        ino = self._names.find(directory, name)
        return attributes_of(self._inodes.get(ino)) if ino else None

    def attributes(self, ino: Ino) -> Attributes:
        """The attributes of an inode; raises Stale."""
        return attributes_of(self._inodes.get(ino))

    def list(self, ino: Ino, after: bytes | None, limit: int) -> Items:
        """Up to `limit` names behind `after` in byte order; fewer only at the end. The last
        name given is where to go on, whatever changes in between."""
        directory = self._inodes.get(ino)
        if not directory.is_directory:
            self._naming.directory(ino)
        return self._names.list(directory, after, limit)

    def require_empty(self, ino: Ino) -> None:
        """Raise NotEmpty if the directory has names."""
        self._naming.require_empty(self._naming.directory(ino), self.path(ino))

    def parent(self, ino: Ino) -> Ino:
        """The directory that a directory stands in; the root's is the root."""
        inode = self._inodes.get(ino)
        if not inode.nlink and not inode.parent:
            return ROOT_INO
        return self._naming.parent(inode)

    def path(self, ino: Ino) -> bytes:
        """A path of the inode from the root, for messages; slow for files made here."""
        parts: list[bytes] = []
        while ino != ROOT_INO:
            inode = self._inodes.get(ino)
            if not inode.nlink:
                return b"(removed)"
            parent, name = self._place(inode)
            parts.append(name)
            ino = parent
        return b"/".join(reversed(parts))

    def paths(self, inos: Iterable[Ino]) -> dict[Ino, bytes]:
        """A path from the root for each of these files, where they have one, to open them by."""
        return paths_of(self._layer.base, self._layer.database(), inos)

    def _place(self, inode: Inode) -> tuple[Ino, bytes]:
        if inode.parent:
            return Ino(inode.parent), self._names.name_in(inode.parent, inode.ino) or b"?"
        found = self._names.any_name(inode.ino)
        if found is not None:
            return Ino(found[0]), found[1]
        if inode.ino > self._inodes.total:
            return ROOT_INO, b"?"
        base, ino = self._layer.base, Ino(inode.ino)
        return base.parent(ino), base.entry(ino).name

    def change_attributes(self, ino: Ino, change: AttributeChange) -> Attributes:
        """Set the fields that are not None; a size cuts the file or lets it grow."""
        old = self._inodes.get(ino)
        now = self._layer.clock()
        new = old
        mtime = change.mtime
        if change.size is not None:
            _require_regular(old)
            new = self._content.resized(old, change.size)
            mtime = now if mtime is None else mtime
        mode = old.mode
        if change.mode is not None:
            mode = stat.S_IFMT(mode) | change.mode & _PERMISSIONS
        new = replace(
            new,
            mode=mode,
            uid=old.uid if change.uid is None else change.uid,
            gid=old.gid if change.gid is None else change.gid,
            atime=old.atime if change.atime is None else change.atime,
            mtime=old.mtime if mtime is None else mtime,
            ctime=now if change.ctime is None else change.ctime,
        )
        if change.size is not None:
            self._in_any_case(partial(self._content.store_resized, old, new))
        else:
            self._layer.begin()
            self._inodes.put(new)
        return attributes_of(new)

    # -- changing names -----------------------------------------------------------------

    def make(
        self,
        parent: Ino,
        name: bytes,
        mode: int,
        uid: int,
        gid: int,
        *,
        rdev: int = 0,
        target: bytes | None = None,
        xattrs: Mapping[bytes, bytes] | None = None,
    ) -> Attributes:
        """A new inode; `mode` has the type bits, `target` is a symlink's.

        Raises Exists, NotADirectory, NotFound (the directory was removed), NameTooLong,
        InvalidName, NoSpace.
        """
        packed = tuple(sorted(xattrs.items())) if xattrs else ()
        inode = self._naming.make(parent, name, mode, uid, gid, rdev, target, packed)
        return attributes_of(inode)

    def link(self, ino: Ino, parent: Ino, name: bytes) -> Attributes:
        """Another name for a file; raises Exists, NotPermitted, TooManyLinks, NotFound."""
        return attributes_of(self._naming.link(ino, parent, name))

    def unlink(self, parent: Ino, name: bytes) -> Ino:
        """Remove a name that is not a directory's. Returns the inode: when `orphan` says so
        it lives on until `discard`."""
        return self._in_any_case(partial(self._naming.unlink, parent, name))

    def rmdir(self, parent: Ino, name: bytes) -> Ino:
        """Remove an empty directory, which is an orphan then; raises NotEmpty."""
        return self._in_any_case(partial(self._naming.rmdir, parent, name))

    def _in_any_case(self, remove: Callable[[], T]) -> T:
        """Take a step that frees space, also where the row that says so has none.

        Once the disk was full, room comes first: the checkpoint needs some too.
        """
        if self._layer.full:
            with suppress(NoSpace):
                self._layer.make_room()
        try:
            return remove()
        except NoSpace:
            self._layer.make_room()
        return remove()

    def rename(
        self, parent: Ino, name: bytes, new_parent: Ino, new_name: bytes, flags: int = 0
    ) -> Ino | None:
        """Rename as renameat2(2) with RENAME_NOREPLACE, RENAME_EXCHANGE or neither; returns
        the inode that lost a name to this one, if any."""
        return self._naming.rename(parent, name, new_parent, new_name, flags)

    # -- content ------------------------------------------------------------------------

    def readlink(self, ino: Ino) -> bytes:
        """The target of a symlink."""
        inode = self._inodes.get(ino)
        if not stat.S_ISLNK(inode.mode):
            raise InvalidArgument(f"Inode {ino} is not a symlink")
        return inode.ref or b""

    def read(self, ino: Ino, offset: int, size: int) -> bytes:
        """The bytes from `offset`, fewer than `size` only at the end of the file."""
        inode = self._inodes.get(ino)
        if not inode.is_regular:
            _require_regular(inode)
        try:
            return self._content.read(inode, offset, size)
        except Corrupt as error:
            raise self._damaged(ino, error) from error

    def write(self, ino: Ino, offset: int, data: bytes) -> int:
        """Write all of `data`; returns its length."""
        inode = self._inodes.get(ino)
        if not inode.is_regular:
            _require_regular(inode)
        if data:
            try:
                self._content.write(inode, offset, data)
            except Corrupt as error:
                raise self._damaged(ino, error) from error
        return len(data)

    def _damaged(self, ino: Ino, error: Corrupt) -> Corrupt:
        try:
            path = repr(self.path(ino))
        except (ImagefsError, NotReady):
            path = f"of inode {ino}"
        return Corrupt(f"File {path} cannot be read: {error}")

    # -- extended attributes ------------------------------------------------------------

    def get_xattr(self, ino: Ino, name: bytes) -> bytes:
        """The value of an extended attribute; raises NoAttribute."""
        packed = self._inodes.get(ino).xattrs
        if packed is not None:
            for key, value in unpack_xattrs(packed):
                if key == name:
                    return value
        raise NoAttribute(f"Inode {ino} has no extended attribute {name!r}")

    def list_xattr(self, ino: Ino) -> tuple[bytes, ...]:
        """The names of the extended attributes in byte order."""
        packed = self._inodes.get(ino).xattrs
        return tuple([key for key, _ in unpack_xattrs(packed)]) if packed is not None else ()

    def set_xattr(self, ino: Ino, name: bytes, value: bytes, flags: int = 0) -> None:
        """Set an extended attribute; `flags` as in setxattr(2)."""
        if not 0 < len(name) <= MAX_NAME or len(value) > MAX_XATTR_VALUE:
            raise AttributeTooBig(
                f"Extended attribute {name[:32]!r} of {len(value)} bytes is too big:"
                f" names may have {MAX_NAME} bytes, values {MAX_XATTR_VALUE}"
            )
        inode = self._inodes.get(ino)
        known = dict(unpack_xattrs(inode.xattrs))
        if flags & os.XATTR_CREATE and name in known:
            raise Exists(f"Inode {ino} has extended attribute {name!r} already")
        if flags & os.XATTR_REPLACE and name not in known:
            raise NoAttribute(f"Inode {ino} has no extended attribute {name!r}")
        if known.get(name) == value:
            return  # not even the time of the change: as ext4 and others
        known[name] = value
        if sum(len(key) + 1 for key in known) > MAX_XATTR_LIST:
            raise AttributeTooBig(f"Inode {ino} cannot have more extended attributes")
        self._store_xattrs(inode, known)

    def remove_xattr(self, ino: Ino, name: bytes) -> None:
        """Remove an extended attribute; raises NoAttribute."""
        inode = self._inodes.get(ino)
        known = dict(unpack_xattrs(inode.xattrs))
        if name not in known:
            raise NoAttribute(f"Inode {ino} has no extended attribute {name!r}")
        del known[name]
        self._store_xattrs(inode, known)

    def _store_xattrs(self, inode: Inode, known: dict[bytes, bytes]) -> None:
        self._layer.begin()
        packed = pack_xattrs(tuple(sorted(known.items())))
        self._inodes.put(replace(inode, xattrs=packed, ctime=self._layer.clock()))

    # -- durability ---------------------------------------------------------------------

    def sync(self) -> None:
        """What was changed before is durable afterwards, all of it: an overlay is two files.
        Blocks; for worker threads."""
        self._layer.sync()

    def commit(self, writer: StoreWriter, fetch: Fetch) -> tuple[ObjectId, Bookkeeping]:
        """Put the tree as it is now into the store; returns its manifest id and what to hand
        to `committed`. Blocks; for worker threads. `fetch` gets stored objects and blocks.

        Nothing may be changed meanwhile, reading goes on. The tree is complete when the
        caller has called `writer.finish`.
        """
        if self._layer.database() is None:
            return self._layer.base.manifest_id, Bookkeeping(self._layer.changes)
        return Commit(self._layer, writer, fetch).run()

    def committed(self, bookkeeping: Bookkeeping) -> None:
        """After `writer.finish`, if the overlay is used further: from now on content that is
        in the store is read there, and the next commit does not store it again."""
        remember(self._layer, bookkeeping)

    def check(self, fetch: Fetch) -> Problems:
        """What is wrong in the files, one sentence each; none when all is well. Blocks, and
        nothing may be changed meanwhile; `fetch` gets stored objects and blocks."""
        return check(self._layer, fetch)

    def stored_contents(self, after: int, limit: int) -> StoredContents:
        """Up to `limit` regular files with a row and content in the store, by inode number
        from behind `after`: inode, reference, size and bytes in chunks."""
        database = self._layer.database()
        return [] if database is None else database.rows(_STORED_CONTENTS, (after, limit))

    @property
    def wants_sync(self) -> bool:
        """Whether a `sync` would give space back to the host."""
        return self._layer.exists and self._layer.heap.has_released


def _require_regular(inode: Inode) -> None:
    if inode.is_directory:
        raise IsADirectory(f"Inode {inode.ino} is a directory")
    if not inode.is_regular:
        raise InvalidArgument(f"Inode {inode.ino} is not a regular file")
