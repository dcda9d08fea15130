"""What is done to open files and directories, by file handle.

Steps as those of the vfs, which is built on them. What opening a file means for its tree (it may
be made, or cut) is the vfs's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from imagefs.errors import Corrupt, NoSpace
from imagefs.model import Ino, NodeId
from imagefs.vfs import rights
from imagefs.vfs.caller import Caller, MountOptions
from imagefs.vfs.handles import FileHandle, Handles, OpenDirectory, OpenFile, SyncPoint
from imagefs.vfs.listing import Listing
from imagefs.vfs.node import INO_BITS, Entry, ino_of, tree_of
from imagefs.vfs.statistics import Statistics, collect
from imagefs.vfs.volume import Volume
from imagefs.vfs.volumes import Volumes


class Opened:
    """The open files and directories of one mount. A base class of `Vfs`."""

    def __init__(
        self,
        volumes: Volumes,
        listing: Listing,
        options: MountOptions,
        clock: Callable[[], int],
    ) -> None:
        self._volumes = volumes
        self._listing = listing
        self._options = options
        self._clock = clock
        self._files: Handles[OpenFile] = Handles()
        self._directories: Handles[OpenDirectory] = Handles()

    def statistics(self) -> Statistics:
        """What is open and what the kernel holds, in numbers."""
        return collect(self._files, self._directories, self._volumes)

    # -- files --------------------------------------------------------------------------

    def read(self, fh: FileHandle, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`: fewer only at the end of the file."""
        file = self._files[fh]
        if file.volume.withdrawn:
            file.volume.require_shared()
        try:
            return file.volume.overlay.read(file.ino, offset, size)
        except Corrupt as error:
            raise Corrupt(f"{file.volume.row.reference}: {error}") from error

    def write(self, fh: FileHandle, offset: int, data: bytes) -> int:
        """Write all of `data` at `offset`; returns its length."""
        file = self._files[fh]
        volume = file.volume
        overlay = volume.require_changeable()
        if not file.privileged:
            attributes = overlay.attributes(file.ino)
            rights.drop_set_id(overlay, attributes, file.opener, self._options)
        try:
            written = overlay.write(file.ino, offset, data)
        except NoSpace:
            volume.require_given_back()
            raise
        volume.changed(self._clock())
        return written

    def release(self, fh: FileHandle) -> None:
        """Close a file."""
        file = self._files.pop(fh)
        volume = file.volume
        volume.closed(file.ino, writable=file.writable)
        volume.discard_orphan(file.ino)
        self._volumes.release(volume)

    # -- directories --------------------------------------------------------------------

    def opendir(self, node: NodeId) -> FileHandle:
        """Open a directory for listing."""
        if not node >> INO_BITS:
            return self._directories.add(OpenDirectory(None, ino_of(node)))
        volume = self._volumes[tree_of(node)]
        volume.directories += 1
        return self._directories.add(OpenDirectory(volume, ino_of(node)))

    def readdir(self, fh: FileHandle, start: int) -> Iterator[tuple[bytes, Entry, int]]:
        """Names from position `start` on, each with the position behind it.

        Entries are not counted as lookups: `counted` is for those that reach the kernel.
        """
        directory = self._directories[fh]
        if directory.volume is not None:
            directory.volume.require_shared()
        return self._listing.items(directory, start)

    def releasedir(self, fh: FileHandle) -> None:
        """Close a directory."""
        volume = self._directories.pop(fh).volume
        if volume is not None:
            volume.directories -= 1
            self._volumes.release(volume)

    # -- durability ---------------------------------------------------------------------

    def sync_point(self, fh: FileHandle, *, directory: bool = False) -> SyncPoint:
        """What an fsync that begins now is to wait for."""
        volume = (self._directories if directory else self._files)[fh].volume
        return SyncPoint(self._volumes.name_changes, volume.changes if volume else 0)

    def fsync(self, fh: FileHandle, point: SyncPoint, *, directory: bool = False) -> None:
        """Return once all that was changed in the tree before is durable, and its name."""
        volume = (self._directories if directory else self._files)[fh].volume
        self._volumes.require_names_durable(point.names)
        if volume is not None:
            volume.require_synced(point.changes)

    # -- inside -------------------------------------------------------------------------

    def _open(self, volume: Volume, ino: Ino, flags: int, caller: Caller) -> FileHandle:
        # The kernel opens nothing but regular files this way: no look at the inode is needed.
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        privileged = self._options.privileged(caller)
        file = OpenFile(volume, ino, caller, writable=writable, privileged=privileged)
        volume.opened(ino, writable=writable)
        return self._files.add(file)
