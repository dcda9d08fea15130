"""Making, linking, removing and renaming: everything that changes which names there are.

Each operation first finds out all it needs (and may raise NotReady), then makes its changes
in one transaction. A directory's own row changes with its names, so the totals of the
overlay are kept there: what a directory gains or loses in names, and what a removed file
took with it that its own row can no longer tell.
"""

from __future__ import annotations

import stat
from typing import Final

from msgspec.structs import replace

from imagefs.errors import (
    Exists,
    InvalidArgument,
    InvalidName,
    IsADirectory,
    NameTooLong,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    TooManyLinks,
)
from imagefs.format.directory import valid_name
from imagefs.model import MAX_LINKS, MAX_NAME, MAX_SYMLINK, ROOT_INO, Ino
from imagefs.overlay.content import Content
from imagefs.overlay.database import Database
from imagefs.overlay.inodes import Inode, Xattrs, pack_xattrs
from imagefs.overlay.layer import Layer
from imagefs.tree.tree import DIRECTORY_SIZE

NOREPLACE: Final = 1
EXCHANGE: Final = 2


def check_name(name: bytes) -> None:
    """Raise NameTooLong or InvalidName unless a directory may hold this name."""
    if len(name) > MAX_NAME:
        raise NameTooLong(f"Name {name[:32]!r}... has {len(name)} bytes; {MAX_NAME} are allowed")
    if not valid_name(name):
        raise InvalidName(f"{name!r} is not a name that a directory can hold")


class Naming:
    """The operations on names of one overlay."""

    def __init__(self, layer: Layer, content: Content) -> None:
        self._layer = layer
        self._content = content
        self._inodes = layer.inodes
        self._names = layer.names

    def __repr__(self) -> str:
        return f"<Naming of {self._layer}>"

    # -- making -------------------------------------------------------------------------

    def make(
        self, parent: Ino, name: bytes, mode: int, uid: int, gid: int, rdev: int,
        target: bytes | None, xattrs: Xattrs,
    ) -> Inode:  # fmt: skip
        """A new inode under a new name."""
        check_name(name)
        directory = self.directory(parent)
        if self._names.find(directory, name):
            raise Exists(f"{name!r} exists already")
        kind = stat.S_IFMT(mode)
        is_directory = kind == stat.S_IFDIR
        if kind == stat.S_IFLNK and not 0 < len(target or b"") <= MAX_SYMLINK:
            raise NameTooLong(f"The target of a symlink has 1 to {MAX_SYMLINK} bytes")
        database = self._layer.begin()
        now = self._layer.clock()
        size = DIRECTORY_SIZE if is_directory else len(target or b"")
        inode = Inode(
            ino=self._layer.space.take_ino(),
            mode=mode,
            nlink=2 if is_directory else 1,
            uid=uid,
            gid=gid,
            rdev=rdev if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0,
            size=size,
            allocated=size if is_directory else 0,
            atime=now,
            mtime=now,
            ctime=now,
            parent=parent if is_directory else 0,
            ref=target,
            xattrs=pack_xattrs(xattrs),
        )
        with database.transaction():
            self._inodes.put(inode)
            self._names.put(parent, name, inode.ino)
            self._inodes.put(_touched(directory, now, entries=1, links=is_directory))
        return inode

    def link(self, ino: Ino, parent: Ino, name: bytes) -> Inode:
        """Another name for an inode that has one."""
        check_name(name)
        directory = self.directory(parent)
        inode = self._inodes.get(ino)
        if inode.is_directory:
            raise NotPermitted("Directories cannot have several names")
        if not inode.nlink:
            raise NotFound(f"Inode {ino} has lost its last name")
        if inode.nlink >= MAX_LINKS:
            raise TooManyLinks(f"Inode {ino} has {inode.nlink} names; more are not allowed")
        if self._names.find(directory, name):
            raise Exists(f"{name!r} exists already")
        database = self._layer.begin()
        self._layer.space.relink()
        now = self._layer.clock()
        new = _relinked(inode, inode.nlink + 1, now)
        with database.transaction():
            self._names.put(parent, name, ino)
            self._inodes.put(new)
            self._inodes.put(_touched(directory, now, entries=1))
        return new

    # -- removing -----------------------------------------------------------------------

    def unlink(self, parent: Ino, name: bytes) -> Ino:
        """Remove a name; returns its inode, which is an orphan if this was the last."""
        directory = self.directory(parent)
        inode = self._inodes.get(self._existing(directory, name))
        if inode.is_directory:
            raise IsADirectory(f"{name!r} is a directory")
        hidden = self._names.hides(directory, name)
        database = self._begin(inode)
        now = self._layer.clock()
        new = _relinked(inode, inode.nlink - 1, now)
        with database.transaction():
            self._names.remove(parent, name, hidden=hidden)
            lost = self._put_relinked(new)
            self._inodes.put(_touched(directory, now, entries=-1, size=lost))
        self._note_orphan(new)
        return Ino(inode.ino)

    def rmdir(self, parent: Ino, name: bytes) -> Ino:
        """Remove an empty directory; it is an orphan then."""
        directory = self.directory(parent)
        inode = self._inodes.get(self._existing(directory, name))
        if not inode.is_directory:
            raise NotADirectory(f"{name!r} is not a directory")
        self.require_empty(inode, name)
        hidden = self._names.hides(directory, name)
        database = self._layer.begin()
        now = self._layer.clock()
        with database.transaction():
            self._names.remove(parent, name, hidden=hidden)
            self._drop_directory(inode)
            entries = inode.added_entries - 1
            changed = _touched(directory, now, entries=entries, size=inode.added_bytes, links=-1)
            self._inodes.put(changed)
        self._note_orphan(replace(inode, nlink=0, ctime=now))
        return Ino(inode.ino)

    def require_empty(self, directory: Inode, name: bytes) -> None:
        """Raise NotEmpty if the directory has names."""
        if not self._names.is_empty(directory):
            raise NotEmpty(f"Directory {name!r} is not empty")

    # -- renaming -----------------------------------------------------------------------

    def rename(
        self, parent: Ino, name: bytes, new_parent: Ino, new_name: bytes, flags: int
    ) -> Ino | None:
        """What the system call does; the inode that lost its name to this is returned."""
        check_name(new_name)
        if flags not in {0, NOREPLACE, EXCHANGE}:
            raise InvalidArgument(f"Rename flags {flags:#x} are not supported")
        source = self.directory(parent)
        target = self.directory(new_parent)
        moved = self._inodes.get(self._existing(source, name))
        found = self._names.find(target, new_name)
        replaced = self._inodes.get(found) if found else None
        if flags == NOREPLACE and replaced is not None:
            raise Exists(f"{new_name!r} exists already")
        if flags == EXCHANGE and replaced is None:
            raise NotFound(f"{new_name!r} does not exist")
        self._refuse_loop(moved, source, target)
        if replaced is None:
            self._move(source, name, moved, target, new_name)
            return None
        if replaced.ino == moved.ino:
            return None
        if flags == EXCHANGE:
            self._refuse_loop(replaced, target, source)
            self._exchange(source, name, moved, target, new_name, replaced)
            return None
        self._check_replacing(moved, replaced, new_name)
        self._replace(source, name, moved, target, new_name, replaced)
        return Ino(replaced.ino)

    def _refuse_loop(self, moved: Inode, source: Inode, target: Inode) -> None:
        """A directory cannot move below itself."""
        if not moved.is_directory or source.ino == target.ino:
            return
        ino = target.ino
        while ino != ROOT_INO:
            if ino == moved.ino:
                raise InvalidArgument("A directory cannot move below itself")
            ino = self.parent(self._inodes.get(ino))

    def _check_replacing(self, moved: Inode, replaced: Inode, name: bytes) -> None:
        if not moved.is_directory and replaced.is_directory:
            raise IsADirectory(f"{name!r} is a directory")
        if moved.is_directory and not replaced.is_directory:
            raise NotADirectory(f"{name!r} is not a directory")
        if replaced.is_directory:
            self.require_empty(replaced, name)

    def _move(
        self, source: Inode, name: bytes, moved: Inode, target: Inode, new_name: bytes
    ) -> None:
        hidden = self._names.hides(source, name)
        database = self._begin(moved)
        now = self._layer.clock()
        with database.transaction():
            self._names.remove(source.ino, name, hidden=hidden)
            self._names.put(target.ino, new_name, moved.ino)
            self._inodes.put(_placed(moved, target, now))
            self._touch_both(source, target, now, moved.is_directory)

    def _replace(
        self, source: Inode, name: bytes, moved: Inode, target: Inode, new_name: bytes,
        replaced: Inode,
    ) -> None:  # fmt: skip
        hidden = self._names.hides(source, name)
        database = self._begin(moved, replaced)
        now = self._layer.clock()
        is_directory = replaced.is_directory
        new = _relinked(replaced, 0 if is_directory else replaced.nlink - 1, now)
        with database.transaction():
            self._names.remove(source.ino, name, hidden=hidden)
            self._names.put(target.ino, new_name, moved.ino)
            self._inodes.put(_placed(moved, target, now))
            entries, lost = -1, 0
            if is_directory:
                self._drop_directory(replaced)
                entries, lost = replaced.added_entries - 1, replaced.added_bytes
            else:
                lost = self._put_relinked(new)
            target = _touched(target, now, entries=entries, size=lost, links=-is_directory)
            if source.ino == target.ino:
                source = target
            self._touch_both(source, target, now, is_directory)
        self._note_orphan(new)

    def _exchange(
        self, source: Inode, name: bytes, moved: Inode, target: Inode, new_name: bytes,
        other: Inode,
    ) -> None:  # fmt: skip
        database = self._begin(moved, other)
        now = self._layer.clock()
        with database.transaction():
            self._names.put(source.ino, name, other.ino)
            self._names.put(target.ino, new_name, moved.ino)
            self._inodes.put(_placed(moved, target, now))
            self._inodes.put(_placed(other, source, now))
            if source.ino == target.ino:
                self._inodes.put(_touched(source, now))
            else:
                links = moved.is_directory - other.is_directory
                self._inodes.put(_touched(source, now, links=-links))
                self._inodes.put(_touched(target, now, links=links))

    def _touch_both(self, source: Inode, target: Inode, now: int, is_directory: bool) -> None:
        """A name went from one directory to another, or stayed in the same."""
        if source.ino == target.ino:
            self._inodes.put(_touched(source, now))
            return
        self._inodes.put(_touched(source, now, entries=-1, links=-is_directory))
        self._inodes.put(_touched(target, now, entries=1, links=is_directory))

    # -- parts --------------------------------------------------------------------------

    def directory(self, ino: Ino) -> Inode:
        """A directory that has not been removed."""
        inode = self._inodes.get(ino)
        if not inode.is_directory:
            raise NotADirectory(f"Inode {ino} is not a directory")
        if not inode.nlink:
            raise NotFound(f"Directory {ino} has been removed")
        return inode

    def parent(self, directory: Inode) -> Ino:
        """The directory that a directory stands in; the root's is the root."""
        return Ino(directory.parent or self._layer.base.parent(Ino(directory.ino)))

    def _begin(self, *renamed: Inode) -> Database:
        """Open for a change of these inodes' names. The table of hard links lists paths, so
        it may change with names of linked inodes and of directories of the base."""
        database = self._layer.begin()
        for inode in renamed:
            if inode.nlink > 1 and (not inode.is_directory or inode.ino <= self._inodes.total):
                self._layer.space.relink()
        return database

    def _existing(self, directory: Inode, name: bytes) -> int:
        ino = self._names.find(directory, name)
        if not ino:
            raise NotFound(f"{name!r} does not exist")
        return ino

    def _put_relinked(self, new: Inode) -> int:
        """Store an inode after it lost a name; returns what its row no longer adds to the
        overlay's bytes, so that the directory can."""
        if new.nlink:
            self._inodes.put(new)
            return 0
        self._inodes.remove(new.ino)
        if new.is_regular:
            self._content.abandon(new)
        return new.added_bytes

    def _drop_directory(self, inode: Inode) -> None:
        if self._inodes.may_be_stored(inode.ino):
            self._names.remove_all(inode.ino)
        self._inodes.remove(inode.ino)

    def _note_orphan(self, new: Inode) -> None:
        if not new.nlink:
            self._inodes.put(new)


def _touched(
    directory: Inode, now: int, *, entries: int = 0, size: int = 0, links: int = 0
) -> Inode:
    """A directory after a change of its names."""
    return replace(
        directory,
        mtime=now,
        ctime=now,
        nlink=directory.nlink + links,
        added_entries=directory.added_entries + entries,
        added_bytes=directory.added_bytes + size,
    )


def _relinked(inode: Inode, nlink: int, now: int) -> Inode:
    """An inode with another number of names; each name of a file counts its size."""
    added = inode.added_bytes
    if inode.is_regular:
        added += inode.size * (nlink - inode.nlink)
    return replace(inode, nlink=nlink, ctime=now, added_bytes=added)


def _placed(moved: Inode, directory: Inode, now: int) -> Inode:
    """An inode after it got a name in a directory."""
    return replace(moved, ctime=now, parent=directory.ino if moved.is_directory else 0)
