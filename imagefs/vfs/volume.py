"""A volume: one image or instance as the mount serves it.

It joins what lower layers know apart: the catalog's row, the overlay, what the kernel holds
(lookup counts, open files) and whether changes are allowed. It belongs to the loop's thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable

import msgspec

from imagefs.catalog import Kind, State, TreeRow
from imagefs.errors import Busy, NotReady, ReadOnly, Stale
from imagefs.model import ROOT_INO, Attributes, Ino
from imagefs.overlay import Overlay
from imagefs.vfs.lookups import LookupCounts

WRITE_BITS = 0o222
_KEPT_HERE = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK})
"""What is written to in the file system itself; fifos and devices lead elsewhere."""


class Volume:
    """An image or instance in use.

    `superseded` volumes are named nowhere any more: what still has them open reads on, and
    nothing changes them; `successor` is what took the name, and what the kernel asks about
    until it has been told. `withdrawn` ones are another account's, shared no longer: nothing in
    them can be reached. `writers` counts how often each inode is open for writing. `committing` is the key of the commit that keeps changes waiting.
    `last_change` decides when time seals a draft, `last_use` when its files are closed.
    `changes` counts changes, `synced` says which of them are durable; `unsynced_since` is
    when the first of the others was made.
    """

    def __init__(self, row: TreeRow, overlay: Overlay, now: int) -> None:
        self.row = row
        self.overlay = overlay
        self.lookups = LookupCounts()
        self.files = 0
        self.writers: dict[Ino, int] = {}
        self.directories = 0
        self.orphans: set[Ino] = set()
        self.superseded = False
        self.withdrawn = False
        self.successor: TreeRow | None = None
        self.committing: Hashable | None = None
        self.changes = 0
        self.synced = 0
        self.last_change = now
        self.last_use = now
        self.unsynced_since = now

    def __repr__(self) -> str:
        state = "superseded" if self.superseded else str(self.row.state)
        return (
            f"<Volume {self.row.number} {self.row.reference} {state}: {self.files} files open,"
            f" {self.lookups.total} lookups, {self.changes} changes>"
        )

    @property
    def read_only(self) -> bool:
        """Whether every change is refused."""
        return self.superseded or self.row.state is State.SEALED

    @property
    def idle(self) -> bool:
        """Whether nothing holds the volume: the kernel knows none of its inodes.

        A draft stays in use, because time will seal it.
        """
        if self.row.state is State.DRAFT and not self.superseded:
            return False
        return not (self.lookups.total or self.files or self.directories) and (
            self.committing is None
        )

    @property
    def may_rest(self) -> bool:
        """Whether the overlay's files are open for nothing and may be closed at any time."""
        held = self.files or self.orphans or self.committing is not None
        return self.overlay.is_open and not held and self.synced >= self.changes

    def require_shared(self) -> None:
        """Raise Stale if the volume is another account's and no longer shared."""
        if self.withdrawn:
            raise Stale(f"Image {self.row.name} of {self.row.account} is shared no longer")

    def require_changeable(self) -> Overlay:
        """The overlay, to be changed now.

        Raises ReadOnly for a sealed image, NotReady while a commit is under way.
        """
        if self.read_only:
            raise ReadOnly(f"Image {self.row.reference} is sealed and never changes")
        if self.committing is not None:
            raise NotReady(self.committing, None)
        return self.overlay

    def allows(self, ino: Ino, mask: int) -> bool:
        """Whether access(2) allows something to root, who runs no file that nobody may run;
        raises ReadOnly."""
        mode = self.overlay.attributes(ino).mode
        if mask & os.W_OK and self.read_only and stat.S_IFMT(mode) in _KEPT_HERE:
            raise ReadOnly(f"Image {self.row.reference} is sealed and never changes")
        return not (mask & os.X_OK and stat.S_ISREG(mode) and not mode & 0o111)

    def changed(self, now: int) -> None:
        """A change was made."""
        if self.changes == self.synced:
            self.unsynced_since = now
        self.changes += 1
        self.last_change = self.last_use = now

    def opened(self, ino: Ino, *, writable: bool) -> None:
        """A file was opened."""
        self.files += 1
        if writable:
            self.writers[ino] = self.writers.get(ino, 0) + 1

    def closed(self, ino: Ino, *, writable: bool) -> None:
        """A file that was `opened` so was closed."""
        self.files -= 1
        if not writable:
            return
        self.writers[ino] -= 1
        if not self.writers[ino]:
            del self.writers[ino]

    def require_no_writers(self, what: str) -> None:
        """Raise Busy while a file is open for writing."""
        if self.writers:
            raise Busy(self._held(what, sum(self.writers.values()), "open for writing"))

    def require_closed(self, what: str) -> None:
        """Raise Busy while a file is open."""
        if self.files:
            raise Busy(self._held(what, self.files, "open"))

    def _held(self, what: str, count: int, how: str) -> str:
        files = "a file in it is" if count == 1 else f"{count} files in it are"
        return (
            f"{self.row.kind.capitalize()} {self.row.reference} can't be {what} while {files}"
            f" {how}: end what uses it (`fuser -vm` shows programs) and try again"
        )

    def require_synced(self, target: int) -> None:
        """Raise NotReady with the work that makes the first `target` changes durable, if they
        are not."""
        if self.synced >= target:
            return
        covered, now = self.changes, self.last_change

        def done(_: object) -> None:
            self.synced = max(self.synced, covered)
            self.unsynced_since = now

        raise NotReady(("sync", self.row.number), self.overlay.sync, done)

    def require_given_back(self) -> None:
        """On a full disk: raise NotReady with the work that gives back what was deleted, if
        anything was."""
        if self.overlay.wants_sync:
            raise NotReady(("sync", self.row.number), self.overlay.sync)

    def attributes(self, ino: Ino) -> Attributes:
        """Attributes as users see them: the root of a sealed image shows no write bits."""
        attributes = self.overlay.attributes(ino)
        return self.shown(attributes) if ino == ROOT_INO else attributes

    def shown(self, root: Attributes) -> Attributes:
        """The attributes of the root as users see them."""
        if self.row.kind is Kind.IMAGE and self.read_only:
            return msgspec.structs.replace(root, mode=root.mode & ~WRITE_BITS)
        return root

    def discard_orphan(self, ino: Ino) -> None:
        """Remove an inode without a name for good once the kernel forgot it."""
        if not self.lookups[ino] and ino in self.orphans:
            self.orphans.discard(ino)
            self.overlay.discard(ino)
