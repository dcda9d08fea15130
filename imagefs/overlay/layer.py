"""The open parts of one overlay: database, heap and caches, opened when they are needed.

An overlay that was never changed has no files. `database()` opens them for reading when
there are any; `begin` makes them, and must be called before every change.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from imagefs.disk import Disk
from imagefs.errors import Corrupt, ImagefsError, NoSpace
from imagefs.overlay import database as db
from imagefs.overlay import heap as heap_file
from imagefs.overlay.copies import Copies
from imagefs.overlay.database import Database
from imagefs.overlay.extents import Extents
from imagefs.overlay.heap import Heap
from imagefs.overlay.inodes import Inodes
from imagefs.overlay.names import Names
from imagefs.overlay.space import LIMIT, Space, gaps, used_end
from imagefs.tree import Tree
from imagefs.tree.contents import Fetch

log = logging.getLogger(__name__)

_LEVELS = 3
"""An overlay is STORE/overlays/ACCOUNT/NUMBER."""


class Layer:
    """One overlay's files and caches. Loop's thread only, but for `sync`."""

    def __init__(
        self, directory: Path, base: Tree, fetch: Fetch, disk: Disk, clock: Callable[[], int]
    ) -> None:
        self.directory = directory
        self.base = base
        self.fetch = fetch
        self.disk = disk
        self.clock = clock
        self.exists = _is_made(directory, disk)
        self.inodes = Inodes(base, self.database)
        self.names = Names(base, self.database, self.inodes)
        self.extents = Extents(self.database)
        self.copies = Copies()
        self.changes = 0
        """Grows with every change."""
        self._database: Database | None = None
        self._heap: Heap | None = None
        self._space: Space | None = None
        self._changing = False
        self._recovering = False
        self._sync_failure: ImagefsError | None = None
        self._sync_lock = threading.Lock()
        self._open_lock = threading.RLock()
        self._descriptors: list[int] = []
        self._unpublished: list[Path] = []
        """Directories with names that may not be durable."""

    def __repr__(self) -> str:
        state = "open" if self._database else "closed" if self.exists else "without files"
        return f"<Layer {self.directory} {state}, {self.inodes}, {self.extents}>"

    # -- opening ------------------------------------------------------------------------

    def database(self) -> Database | None:
        """The database; None when nothing was ever changed."""
        if self._database is None and self.exists:
            # A commit in a worker thread may be the first to need it.
            with self._open_lock:
                if self._database is None:
                    self._open()
        return self._database

    def begin(self) -> Database:
        """Open for a change, making the files first if there are none."""
        self.changes += 1
        return self.prepare()

    def prepare(self) -> Database:
        """What `begin` does, without a change: for what comes before one."""
        if self._changing:
            assert self._database is not None
            return self._database
        if not self.exists:
            self._create()
        database = self.database()
        assert database is not None
        # Power loss may have taken back rows and left what they named.
        self.heap.renew(self.space.free)
        self.space.begin()
        self._changing = True
        return database

    @property
    def heap(self) -> Heap:
        """The heap of an overlay that has files."""
        if self._heap is None:
            self.database()
            assert self._heap is not None
        return self._heap

    @property
    def space(self) -> Space:
        """The counters of an overlay that has files."""
        if self._space is None:
            self.database()
            assert self._space is not None
        return self._space

    def _create(self) -> None:
        """Make the files. What fails in between is made again by the next attempt."""
        for directory in reversed(self._all_directories()[:-1]):
            with suppress(FileExistsError):
                self.disk.mkdir(directory)
        # What an attempt without success left; a heap must begin as zeros.
        for path in (db.wal_in(self.directory), heap_file.path_in(self.directory)):
            with suppress(FileNotFoundError):
                self.disk.unlink(path)
        db.create(self.directory, self.disk)
        heap_file.create(self.directory, self.disk)
        # Chunks are copied durably into the heap, which must not lose its name then; and a heap
        # with content and without a database is damage, not what power loss left.
        self.disk.fsync_dir(self.directory)
        self.exists = True
        self._unpublished = self._all_directories()

    def _all_directories(self) -> list[Path]:
        """Every directory that names these files or a directory of theirs, up to the store:
        whoever made one of them may not have made its name durable."""
        return [self.directory, *self.directory.parents[:_LEVELS]]

    def _open(self) -> None:
        if not self.base.total:  # which may raise NotReady: before anything is open
            raise Corrupt(f"The tree below overlay {self.directory} is empty")
        database = Database(self.directory, self.forget)
        try:
            self._heap = Heap(heap_file.path_in(self.directory), self.disk)
            self._space = Space(database, self.base.total + 1)
            self._require_heap()
            self.inodes.load_stored(database)
            self._database = database
            if not self._space.clean:
                self._recover()
        except BaseException:
            self._database = database
            self.let_go()
            raise

    def _require_heap(self) -> None:
        """Raise Corrupt when a heap that was closed in order is gone or was cut short: what is
        missing would read as zeros."""
        size, end = self.heap.size(), self.space.free[0]
        if self.space.reached and size < end:
            raise Corrupt(
                f"Overlay heap {self.heap.path} ends at {size} of {end} bytes: restore the file"
                " from a backup, or give up the changes with `imagefs reset` or `imagefs rm`"
            )

    def _recover(self) -> None:
        """After a session that was killed: what it left in memory becomes durable, as an
        fsync of this session promises; extents of files that were open without a name go."""
        assert self._database is not None
        self._remove_orphans()
        # After power loss rows may be there without their data, which then reads as zeros.
        self.heap.reach(used_end(self._database))
        self._unpublished = self._all_directories()
        self._recovering = True
        self.sync()
        self._recovering = False
        with suppress(NoSpace):
            self._database.checkpoint()

    def note_leftovers(self) -> None:
        """What the session has left behind is to be removed when it ends."""
        if self._space is not None:
            self._space.clean = False

    def _remove_orphans(self) -> None:
        """Remove extents of files without a name that are not open, or could not be removed."""
        assert self._database is not None
        with self._database.transaction():
            for ino in self.extents.orphans():
                self.extents.remove_orphan(ino)

    def forget(self) -> None:
        """Drop every cache: rows were changed or taken back behind them."""
        self.inodes.forget()
        self.names.forget()
        self.extents.forget()
        self._give_up_copies()

    def _give_up_copies(self) -> None:
        """Copies that no row names go with the next sync."""
        for place in self.copies.forget():
            self.heap.release(*place)

    def recycle(self, length: int) -> None:
        """Take heap addresses from the largest range that deletions have left, so that
        `length` bytes fit; raises NoSpace. Reads every extent. What was taken and has no row
        yet would be lost."""
        database = self.prepare()
        self._give_up_copies()
        self.sync()
        orphans = [(inode.place, inode.capacity) for inode in self.inodes.orphans.values()]
        free = gaps(database, LIMIT, orphans)
        begin, end = max(free, key=lambda gap: gap[1] - gap[0], default=(0, 0))
        if end - begin < length:
            raise NoSpace(f"Overlay {self.directory} is full: commit it or delete files in it")
        self.heap.renew((begin, end))
        self.space.use((begin, end))

    # -- durability ---------------------------------------------------------------------

    def sync(self) -> None:
        """Everything that was changed before is durable afterwards. Blocks; any thread.

        Data comes before the rows that name it, and rows that end before their data goes.
        Once it has failed it fails until the overlay is opened again: the kernel may have
        dropped what it could not write, and a second attempt would not know.
        """
        with self._sync_lock:
            heap = self._heap
            if heap is None or not (self._changing or self._recovering):
                return
            if self._sync_failure is not None:
                raise self._sync_failure
            released = heap.take_released()
            try:
                heap.sync()
                self._sync_database()
            except ImagefsError as error:
                heap.give_back(released)
                self._sync_failure = error
                raise
            heap.punch(released)

    def _sync_database(self) -> None:
        if not self._descriptors:
            # Kept open until SQLite is closed: closing any descriptor of the database would
            # end SQLite's lock on it.
            paths = (db.wal_in(self.directory), db.path_in(self.directory))
            for path in paths:
                self._descriptors.append(self.disk.open(path, os.O_RDONLY))
            if not self._unpublished:
                self._unpublished = [self.directory]  # the WAL is new in every session
        wal, database = self._descriptors
        self.disk.fdatasync(wal)
        if self._unpublished:
            self.disk.fdatasync(database)
            for directory in self._unpublished:
                self.disk.fsync_dir(directory)
            self._unpublished = []

    @property
    def full(self) -> bool:
        """Whether the database met a full disk and may have no room for a change."""
        return self._database is not None and self._database.full

    def make_room(self) -> None:
        """Give back what was released, and have the WAL written over instead of on; raises
        NoSpace. Blocks, which is better than a full disk that cannot be emptied."""
        if self._database is not None:
            self.sync()
            self._database.checkpoint()

    # -- closing ------------------------------------------------------------------------

    def close(self) -> None:
        """Close the files, durably if anything was changed; they open again when needed."""
        if self._database is None:
            return
        try:
            self._end_session()
        finally:
            self.let_go()

    def _end_session(self) -> None:
        if not self._changing and self.space.clean:
            return
        self._give_up_copies()
        if self.space.clean:
            self.heap.reach(self.space.free[0])
        self.sync()
        try:
            if not self.space.clean:
                self._remove_orphans()
                self.heap.punch(gaps(self.begin(), self.heap.size()))
                self.heap.reach(self.space.free[0])
                self.sync()
            self.space.finish()
        except ImagefsError as error:
            # All is durable; only the next session has more to do.
            log.warning("%s was not closed in order: %s", self, error)

    @property
    def is_open(self) -> bool:
        """Whether the files are open."""
        return self._database is not None

    def let_go(self) -> None:
        """Close the files as they are, whatever is durable of them."""
        with self._sync_lock:
            self.forget()
            if self._heap is not None:
                self._heap.close()
            if self._database is not None:
                self._database.close()
            for fd in self._descriptors:
                self.disk.close(fd)
            self._descriptors = []
            self._heap = self._database = self._space = None
            self._changing = self._recovering = False
            self._sync_failure = None


def _is_made(directory: Path, disk: Disk) -> bool:
    """Whether the overlay has files. An empty database is one whose making was cut short by
    power loss, before anything in it could be durable."""
    return bool(disk.size_of(db.path_in(directory)))
