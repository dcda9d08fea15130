"""What the mounted file system means, operation by operation.

Every public method is a step: a plain function on the loop's thread that either answers,
raises an `ImagefsError`, or raises `NotReady` before it changed anything. Nothing here knows
pyfuse3, arguments or the environment. Sections: setting up, names and attributes, making
and removing, opening files, extended attributes, background work; what is open is in `opened`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence

import msgspec

from imagefs.catalog import Catalog, Kind, State
from imagefs.disk import Disk, Space
from imagefs.errors import (
    CrossDevice,
    Exists,
    NameTooLong,
    NoAttribute,
    NoSpace,
    NotPermitted,
)
from imagefs.model import (
    MAX_NAME,
    ROOT_INO,
    AttributeChange,
    Attributes,
    Ino,
    NodeId,
    TreeNumber,
)
from imagefs.store import Store
from imagefs.vfs import places, rights, xattrs
from imagefs.vfs.caller import Caller, MountOptions
from imagefs.vfs.handles import FileHandle
from imagefs.vfs.information import PREFIX, attribute
from imagefs.vfs.lifecycle import Lifecycle
from imagefs.vfs.listing import Listing
from imagefs.vfs.namespace import Namespace
from imagefs.vfs.node import (
    INO_BITS,
    INO_MASK,
    NAMESPACE,
    Entry,
    Forgotten,
    Superseded,
    ino_of,
    node_id,
    tree_of,
)
from imagefs.vfs.opened import Opened
from imagefs.vfs.regions import RegionalImages
from imagefs.vfs.upkeep import Upkeep
from imagefs.vfs.volume import WRITE_BITS, Volume
from imagefs.vfs.volumes import Volumes
from imagefs.vfs.withdrawal import Withdrawal


class Vfs(Opened):
    """The file system of one account over one store."""

    # -- setting up ---------------------------------------------------------------------

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        account: str,
        options: MountOptions,
        clock: Callable[[], int],
        disk: Disk,
    ) -> None:
        volumes = Volumes(store, catalog, account, disk, clock)
        regions = RegionalImages(catalog, store, disk, account, clock, catalog.home(account))
        self.lifecycle = Lifecycle(catalog, volumes, regions, account, clock)
        self.lifecycle.superseded = lambda row: self._tell(self._namespace.locate(row))
        self.lifecycle.alias_removed = lambda name: self._tell(
            Superseded(node_id(NAMESPACE, places.IMAGES.ino), name.encode())
        )
        self._namespace = Namespace(catalog, volumes, self.lifecycle, account, options, clock)
        super().__init__(volumes, Listing(self._namespace), options, clock)
        self._store = store
        self._disk = disk
        self._account = account
        self.on_stale: Callable[[Forgotten], None] = _nothing
        self._upkeep = Upkeep(volumes, self.lifecycle, clock, options, catalog.drafts(account))
        self._withdrawal = Withdrawal(
            volumes, self.lifecycle.sharing, self._files, self._namespace.locate, self._tell, clock
        )

    def __repr__(self) -> str:
        return (
            f"<Vfs {self._account}: {self._volumes!r}, {len(self._files)} files and"
            f" {len(self._directories)} directories open>"
        )

    def close(self) -> None:
        """Let go of every volume; what was changed stays."""
        self._volumes.close()
        self.lifecycle.regions.close()

    # -- names and attributes -----------------------------------------------------------

    def lookup(self, parent: NodeId, name: bytes, caller: Caller) -> Entry | None:
        """The entry of that name, counted as one lookup; None if there is none."""
        if len(name) > MAX_NAME:
            raise NameTooLong(f"Name {name[:32]!r}... has {len(name)} bytes")
        tree = parent >> INO_BITS
        if not tree:
            return self._namespace.lookup(self._place(parent), name)
        volume = self._volumes[TreeNumber(tree)]
        attributes = volume.overlay.lookup(Ino(parent & INO_MASK), name)
        if attributes is None:
            return None
        volume.lookups.add(attributes.ino)
        return Entry(NodeId(tree << INO_BITS | attributes.ino), attributes)

    def forget(self, pairs: Iterable[tuple[NodeId, int]]) -> None:
        """The kernel gives back lookups."""
        for node, count in pairs:
            volume = self._volumes.in_use(tree_of(node))
            if volume is None:
                continue
            left = volume.lookups.subtract(ino_of(node), count)
            if not left and volume.orphans:
                volume.discard_orphan(ino_of(node))
            if not volume.lookups.total:
                self._volumes.release(volume)

    def counted(self, node: NodeId) -> None:
        """An entry of a listing reached the kernel, which counts as a lookup."""
        tree = node >> INO_BITS
        if tree:
            self._volumes[TreeNumber(tree)].lookups.add(Ino(node & INO_MASK))

    def getattr(self, node: NodeId) -> Entry:
        """The attributes of a node."""
        tree = node >> INO_BITS
        if not tree:
            return self._namespace.entry(self._place(node))
        return Entry(node, self._volumes[TreeNumber(tree)].attributes(Ino(node & INO_MASK)))

    def setattr(
        self, node: NodeId, change: AttributeChange, fh: FileHandle | None, caller: Caller
    ) -> Entry:
        """Change attributes; on the root of an image, chmod seals and unseals."""
        if not node >> INO_BITS:
            raise NotPermitted("Attributes of the directories above the images can't be changed")
        volume = self._volumes[tree_of(node)]
        if ino_of(node) == ROOT_INO and volume.row.kind is Kind.IMAGE and change.mode is not None:
            sealing = self._chmod_image(volume, change)
            if sealing is not None:
                return Entry(node, sealing)
        overlay = volume.require_changeable()
        ino = ino_of(node)
        mode = rights.mode_after(overlay.attributes(ino), change, caller, self._options)
        if mode != change.mode:
            change = msgspec.structs.replace(change, mode=mode)
        if change.mode is not None:
            rights.chmod_acl(overlay, ino, change.mode)
        attributes = overlay.change_attributes(ino, change)
        volume.changed(self._clock())
        return Entry(node, volume.shown(attributes) if ino == ROOT_INO else attributes)

    def access(self, node: NodeId, mask: int) -> bool:
        """Whether something is allowed, in a mount where the kernel does not check rights."""
        tree = node >> INO_BITS
        return not tree or self._volumes[TreeNumber(tree)].allows(ino_of(node), mask)

    def readlink(self, node: NodeId) -> bytes:
        """The target of a symlink."""
        if not node >> INO_BITS:
            return self._namespace.readlink(self._place(node))
        return self._volumes[tree_of(node)].overlay.readlink(ino_of(node))

    def statfs(self, node: NodeId) -> Space:
        """The space of the disk that the store lies on."""
        return self._disk.space(self._store.path)

    # -- making and removing ------------------------------------------------------------

    def mkdir(self, parent: NodeId, name: bytes, mode: int, caller: Caller) -> Entry:
        """Make a directory; above the trees, a draft or an instance."""
        if not parent >> INO_BITS:
            entry = self._namespace.mkdir(self._place(parent), name)
            return self._own_draft(entry, mode, caller)
        return self._make(parent, name, stat.S_IFDIR | mode & 0o7777, caller)

    def mknod(self, parent: NodeId, name: bytes, mode: int, rdev: int, caller: Caller) -> Entry:
        """Make a regular file, device, fifo or socket."""
        return self._make(parent, name, mode, caller, rdev=rdev)

    def symlink(self, parent: NodeId, name: bytes, target: bytes, caller: Caller) -> Entry:
        """Make a symlink; in images/, an alias."""
        if not parent >> INO_BITS:
            return self._namespace.symlink(self._place(parent), name, target)
        return self._make(parent, name, stat.S_IFLNK | 0o777, caller, target=target)

    def link(self, node: NodeId, parent: NodeId, name: bytes) -> Entry:
        """Give an inode another name inside its tree."""
        if not parent >> INO_BITS or not node >> INO_BITS:
            raise NotPermitted(f"Link {name!r} is not allowed above the images")
        if tree_of(node) != tree_of(parent):
            raise CrossDevice(f"Link {name!r} would join two images or instances")
        volume = self._volumes[tree_of(parent)]
        attributes = volume.require_changeable().link(ino_of(node), ino_of(parent), name)
        volume.orphans.discard(ino_of(node))
        return self._counted_entry(volume, attributes)

    def unlink(self, parent: NodeId, name: bytes) -> None:
        """Remove a name that is not a directory's."""
        if not parent >> INO_BITS:
            self._namespace.unlink(self._place(parent), name)
            return
        volume = self._volumes[tree_of(parent)]
        overlay = volume.require_changeable()
        ino = self._volumes.freeing(lambda: overlay.unlink(ino_of(parent), name))
        self._removed(volume, ino)

    def rmdir(self, parent: NodeId, name: bytes) -> None:
        """Remove an empty directory; in images/, an image whatever it holds."""
        if not parent >> INO_BITS:
            self._namespace.rmdir(self._place(parent), name)
            return
        volume = self._volumes[tree_of(parent)]
        overlay = volume.require_changeable()
        ino = self._volumes.freeing(lambda: overlay.rmdir(ino_of(parent), name))
        self._removed(volume, ino)

    def rename(
        self, parent: NodeId, name: bytes, new_parent: NodeId, new_name: bytes, flags: int
    ) -> None:
        """Rename inside one tree, or above the trees as the contract's table says."""
        above, new_above = not parent >> INO_BITS, not new_parent >> INO_BITS
        if above and new_above:
            old_place, new_place = self._place(parent), self._place(new_parent)
            self._namespace.rename(old_place, name, new_place, new_name, flags)
            return
        if above or new_above:
            raise NotPermitted(f"{name!r} can't move into or out of an image: copy it instead")
        if tree_of(parent) != tree_of(new_parent):
            raise CrossDevice(f"{name!r} can't move between two images or instances")
        volume = self._volumes[tree_of(parent)]
        replaced = volume.require_changeable().rename(
            ino_of(parent), name, ino_of(new_parent), new_name, flags
        )
        self._removed(volume, replaced)

    # -- opening files ------------------------------------------------------------------

    def create(
        self, parent: NodeId, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[FileHandle, Entry]:
        """Make a regular file and open it."""
        entry = None if not parent >> INO_BITS else self.lookup(parent, name, caller)
        if entry is None:
            entry = self._make(parent, name, stat.S_IFREG | mode & 0o7777, caller)
        elif flags & os.O_EXCL:
            self.forget([(entry.node, 1)])
            raise Exists(f"{name!r} exists already")
        volume = self._volumes[tree_of(entry.node)]
        return self._open(volume, ino_of(entry.node), flags, caller), entry

    def open(self, node: NodeId, flags: int, caller: Caller) -> FileHandle:
        """Open a regular file; O_TRUNC cuts it."""
        volume = self._volumes[tree_of(node)]
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        if writable or flags & os.O_TRUNC:
            overlay = volume.require_changeable()
            if flags & os.O_TRUNC:
                rights.drop_privilege(overlay, ino_of(node), caller, self._options)
                overlay.change_attributes(ino_of(node), AttributeChange(size=0))
                volume.changed(self._clock())
        return self._open(volume, ino_of(node), flags, caller)

    # -- extended attributes ------------------------------------------------------------

    def getxattr(self, node: NodeId, name: bytes) -> bytes:
        """The value of an extended attribute; raises NoAttribute."""
        if not node >> INO_BITS:
            # Not NotSupported: the kernel asks for ACLs where it checks rights, and takes that
            # for a failure.
            raise NoAttribute("The directories above the images have no extended attributes")
        volume = self._volumes[tree_of(node)]
        if ino_of(node) == ROOT_INO and name.startswith(PREFIX):
            return attribute(
                self.lifecycle.descriptions.describe(volume.successor or volume.row), name
            )
        xattrs.require_known(name)
        return volume.overlay.get_xattr(ino_of(node), name)

    def listxattr(self, node: NodeId, caller: Caller) -> Sequence[bytes]:
        """The names of the extended attributes; those of imagefs itself are not among them."""
        if not node >> INO_BITS:
            return []
        return xattrs.listed(self._volumes[tree_of(node)], ino_of(node), caller)

    def setxattr(self, node: NodeId, name: bytes, value: bytes, caller: Caller) -> None:
        """Set an extended attribute; an access ACL sets the mode too."""
        volume = self._xattr_volume(node)
        xattrs.change(volume, ino_of(node), name, value, caller, self._options)
        volume.changed(self._clock())

    def removexattr(self, node: NodeId, name: bytes) -> None:
        """Remove an extended attribute; raises NoAttribute."""
        volume = self._xattr_volume(node)
        if xattrs.remove(volume, ino_of(node), name):
            volume.changed(self._clock())

    # -- background work ----------------------------------------------------------------

    def next_due(self) -> int | None:
        """When (ns) `tick` has something to do: 0 for now, None for not before a change."""
        regions = self.lifecycle.regions
        times = (self._upkeep.next_due(), self._withdrawal.next_due(), regions.next_due())
        return min((time for time in times if time is not None), default=None)

    def tick(self) -> list[Callable[[], object]]:
        """Steps that are due (see `upkeep`)."""
        watched = self._withdrawal.regions()
        return [
            *self._withdrawal.due(),
            *self.lifecycle.regions.due(watched),
            *self._upkeep.due(),
        ]

    # -- inside -------------------------------------------------------------------------

    def _tell(self, forgotten: Forgotten) -> None:
        self.on_stale(forgotten)

    def _place(self, node: NodeId) -> places.Place:
        return self._namespace.place(ino_of(node))

    def _counted_entry(self, volume: Volume, attributes: Attributes) -> Entry:
        volume.lookups.add(attributes.ino)
        volume.changed(self._clock())
        return Entry(node_id(volume.row.number, attributes.ino), attributes)

    def _make(
        self, parent: NodeId, name: bytes, mode: int, caller: Caller, *, rdev: int = 0,
        target: bytes | None = None,
    ) -> Entry:  # fmt: skip
        if not parent >> INO_BITS:
            raise NotPermitted(f"{name!r} can't be made above the images")
        volume = self._volumes[tree_of(parent)]
        overlay = volume.require_changeable()
        directory = overlay.attributes(ino_of(parent))
        mode, gid = rights.owner_of_new(directory, mode, caller)
        mode, inherited = rights.inherited(overlay, ino_of(parent), mode, caller.umask)
        try:
            attributes = overlay.make(
                ino_of(parent), name, mode, caller.uid, gid,
                rdev=rdev, target=target, xattrs=inherited,
            )  # fmt: skip
        except NoSpace:
            volume.require_given_back()
            raise
        return self._counted_entry(volume, attributes)

    def _own_draft(self, entry: Entry, mode: int, caller: Caller) -> Entry:
        """The root of a new draft belongs to whoever made it; clones keep the image's root."""
        if not entry.node >> INO_BITS:
            return entry
        volume = self._volumes[tree_of(entry.node)]
        if volume.row.kind is not Kind.IMAGE:
            return entry
        change = AttributeChange(
            mode=mode & 0o7777 & ~caller.umask, uid=caller.uid, gid=caller.gid, mtime=self._clock()
        )
        return Entry(entry.node, volume.overlay.change_attributes(ROOT_INO, change))

    def _removed(self, volume: Volume, ino: Ino | None) -> None:
        """A name is gone; an inode without names lives until the kernel forgets it."""
        volume.changed(self._clock())
        if ino is not None and volume.overlay.orphan(ino):
            volume.orphans.add(ino)
            volume.discard_orphan(ino)

    def _chmod_image(self, volume: Volume, change: AttributeChange) -> Attributes | None:
        """Seal or unseal by chmod of an image's root; None if it is an ordinary chmod."""
        mode = change.mode or 0
        if volume.row.state is State.SEALED:
            if not mode & stat.S_IWUSR:
                return volume.attributes(ROOT_INO)
            draft = self._volumes.open(self.lifecycle.unseal(volume.row))
            draft.changed(self._clock())  # so that time seals it again
            return draft.attributes(ROOT_INO)
        if volume.superseded:
            # This node was the draft that has just been sealed, here or by its first use.
            return volume.attributes(ROOT_INO)
        if mode & WRITE_BITS:
            return None
        stored = mode | stat.S_IWUSR
        if stat.S_IMODE(volume.overlay.attributes(ROOT_INO).mode) != stored:
            rights.chmod_acl(volume.overlay, ROOT_INO, stored)
            volume.require_changeable().change_attributes(ROOT_INO, AttributeChange(mode=stored))
            volume.changed(self._clock())
        self.lifecycle.require_sealed(volume.row)
        return volume.attributes(ROOT_INO)

    def _xattr_volume(self, node: NodeId) -> Volume:
        """The volume of a node whose extended attribute is to change."""
        if not node >> INO_BITS:
            raise NotPermitted("The directories above the images have no extended attributes")
        return self._volumes[tree_of(node)]


def _nothing(_: Forgotten) -> None:
    """Nobody is told."""
