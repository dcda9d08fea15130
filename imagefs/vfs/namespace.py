"""The namespace above the trees: /images /shared /regions /instances.

Translates file operations on places into verbs of the lifecycle. The kernel learns of what
it asked for itself; names that change without its asking are told through `superseded`.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable

import msgspec

from imagefs.catalog import Catalog, Kind, TreeRow
from imagefs.catalog.reference import ImageReference, check_image_name, parse_image
from imagefs.errors import (
    Exists,
    ImagefsError,
    InvalidArgument,
    InvalidName,
    NotADirectory,
    NotFound,
    NotPermitted,
    Stale,
)
from imagefs.model import ROOT_INO, Attributes, Ino
from imagefs.vfs import places
from imagefs.vfs.caller import MountOptions
from imagefs.vfs.lifecycle import Lifecycle
from imagefs.vfs.node import LASTING, NAMESPACE, Entry, Superseded, node_id, tree_of
from imagefs.vfs.places import ALLOWED, Operation, Place, PlaceKind
from imagefs.vfs.regions import AT_ONCE, LATELY, LOCAL
from imagefs.vfs.volumes import Volumes

RENAME_NOREPLACE = 1
_PLACE_TIMEOUT = 1.0
"""Seconds the kernel may keep what other names decide."""
_OWNER_ONLY, _OPEN = 0o700, 0o755

_CHANGING_ELSEWHERE = frozenset(
    {
        PlaceKind.INSTANCES,
        PlaceKind.REGIONS,
        PlaceKind.REGION,
        PlaceKind.SHARED_FROM,
        PlaceKind.SHARED_OWNER,
        PlaceKind.SHARED_TO,
        PlaceKind.SHARED_GRANTEE,
    }
)
"""The places whose names come and go without a request of the kernel in them."""

_PASSING = frozenset(
    {
        PlaceKind.CLONES,
        PlaceKind.REGION,
        PlaceKind.HOME,
        PlaceKind.SHARED_OWNER,
        PlaceKind.SHARED_GRANTEE,
        PlaceKind.SHARED_IMAGE,
    }
)
"""The places that are such names."""


class Namespace:
    """The places of one account's view."""

    def __init__(
        self,
        catalog: Catalog,
        volumes: Volumes,
        lifecycle: Lifecycle,
        account: str,
        options: MountOptions,
        clock: Callable[[], int],
    ) -> None:
        self._catalog = catalog
        self._volumes = volumes
        self._lifecycle = lifecycle
        self._sharing = lifecycle.sharing
        self._regions = lifecycle.regions
        self._account = account
        self._options = options
        self._clock = clock
        self._changed = clock()
        self._dynamic: dict[Ino, Place] = {}
        self._finders: dict[PlaceKind, Callable[[Place, str], Entry | None]] = {
            PlaceKind.IMAGES: self._find_image,
            PlaceKind.REGIONS: self._find_region,
            PlaceKind.REGION: self._find_image,
            PlaceKind.INSTANCES: self._find_clones,
            PlaceKind.CLONES: self._find_instance,
            PlaceKind.SHARED_FROM: self._find_owner,
            PlaceKind.SHARED_OWNER: self._find_shared,
            PlaceKind.SHARED_TO: self._find_grantee,
            PlaceKind.SHARED_GRANTEE: self._find_link,
        }
        self._fixed = {place.ino: place for place in (places.TOP, *places.PARENTS)}

    # -- looking up ---------------------------------------------------------------------

    def place(self, ino: Ino) -> Place:
        """The place with an inode number of tree 0; raises Stale."""
        place = self._fixed.get(ino) or self._dynamic.get(ino)
        if place is None:
            raise Stale(f"Place {ino} is not known to this mount")
        return place

    def lookup(self, parent: Place, name: bytes) -> Entry | None:
        """What a name in a place stands for, None for nothing, which the kernel may remember.

        The lookup of a tree's root counts at its volume. Raises NotFound for nothing that
        must not be remembered: `instances/NAME` comes to be with an image of that name, and
        what is shared changes without the kernel's knowledge.
        """
        entry = self._look(parent, name)
        if entry is None and self._changes_elsewhere(parent):
            raise NotFound(f"There is no image {name!r}")
        return entry

    def _look(self, parent: Place, name: bytes) -> Entry | None:
        fixed = places.FIXED.get(parent)
        if fixed is not None:
            child = fixed.get(name)
            return self.entry(child) if child else None
        try:
            text = name.decode()
        except UnicodeDecodeError:
            return None
        finder = self._finders.get(parent.kind)
        return finder(parent, text) if finder else None

    def peek(self, parent: Place, name: bytes) -> Entry | None:
        """Like `lookup`, counting nothing."""
        entry = self._look(parent, name)
        if entry is not None and tree_of(entry.node) != NAMESPACE:
            self._volumes[tree_of(entry.node)].lookups.subtract(ROOT_INO, 1)
        return entry

    def names(self, place: Place) -> list[bytes]:
        """The names in a place, in order."""
        if place in places.FIXED:
            return list(places.FIXED[place])
        if place.kind in (PlaceKind.IMAGES, PlaceKind.REGION):
            found = self._image_names(place)
        elif place.kind is PlaceKind.REGIONS:
            found = set(self._regions.names())
        elif place.kind is PlaceKind.INSTANCES:
            found = self._image_names(places.IMAGES)
            found |= {row.place for row in self._catalog.instances(self._account)}
            found |= {row.known_as(self._account) for row in self._sharing.images()}
        elif place.kind is PlaceKind.CLONES:
            found = {row.name for row in self._catalog.instances_at(self._account, place.name)}
        else:
            self._regions.refresh(self._regions.home, AT_ONCE)
            found = set(self._shared_names(place))
        return sorted(name.encode() for name in found)

    def entry(self, place: Place) -> Entry:
        """A place as a directory entry (an alias as a symlink).

        `instances/IMAGE` goes with the image and its last instance, and what is shared at any
        time, so these are not kept long.
        """
        return Entry(
            node_id(NAMESPACE, place.ino),
            self.attributes(place),
            _PLACE_TIMEOUT if place.kind in _PASSING else LASTING,
            _PLACE_TIMEOUT,
        )

    def parent(self, place: Place) -> Place:
        """The place above a place; the top is its own parent."""
        return places.ABOVE.get(place.kind) or places.PARENTS.get(place, place)

    def attributes(self, place: Place) -> Attributes:
        """Attributes of a place, owned by whoever owns the view."""
        if place.kind in places.LINKS:
            mode, size, nlink = stat.S_IFLNK | 0o777, len(self.readlink(place)), 1
        else:
            private = place is places.TOP and self._options.enforced
            limited = private and not self._options.open_to_all
            mode, size, nlink = stat.S_IFDIR | (_OWNER_ONLY if limited else _OPEN), 0, 2
        return Attributes(
            ino=place.ino, mode=mode, nlink=nlink, uid=self._options.uid, gid=self._options.gid,
            rdev=0, size=size, blocks=0, atime=self._changed, mtime=self._changed,
            ctime=self._changed,
        )  # fmt: skip

    def readlink(self, place: Place) -> bytes:
        """The target of a symlink; raises InvalidArgument for a directory."""
        if place.kind is PlaceKind.HOME:
            return b"../images"
        if place.kind is PlaceKind.SHARED_IMAGE:
            return places.link_target(place.name.partition("/")[2])
        if place.kind is not PlaceKind.ALIAS:
            raise InvalidArgument(f"{place.kind.value} is not a symlink")
        target = self._catalog.alias(self._account, place.name)
        if target is None:
            raise NotFound(f"Alias {place.name} does not exist any more")
        return target.encode()

    def place_of(self, row: TreeRow) -> Place:
        """The place that holds a row's name."""
        if row.kind is Kind.INSTANCE:
            return self._clones(row.place)
        if self._sharing.is_foreign(row):
            return self._dynamic_place(PlaceKind.SHARED_OWNER, row.account)
        if row.place != self._regions.home:
            return self._dynamic_place(PlaceKind.REGION, row.place or LOCAL)
        return places.IMAGES

    def locate(self, row: TreeRow) -> Superseded:
        """The name above the trees that a row bears."""
        return Superseded(node_id(NAMESPACE, self.place_of(row).ino), row.name.encode())

    def touch(self) -> None:
        """Something above the trees changed."""
        self._changed = self._clock()

    # -- changing -----------------------------------------------------------------------

    def mkdir(self, parent: Place, name: bytes) -> Entry:
        """A draft in images/, a clone in instances/IMAGE/, a directory to share with someone."""
        self._require(parent, Operation.MKDIR, name)
        if parent.kind is PlaceKind.SHARED_TO:
            grantee = self._sharing.check_grantee(name)
            self._catalog.add_grantee(self._account, grantee, self._clock())
            self.touch()
            return self.entry(self._dynamic_place(PlaceKind.SHARED_GRANTEE, grantee))
        if parent.kind in (PlaceKind.IMAGES, PlaceKind.REGION):
            row = self._lifecycle.create_draft(name, self._region_of(parent))
        else:
            (row,) = self._lifecycle.clone_rows(parse_image(parent.name), [name])
        self.touch()
        return self._root_entry(row)

    def rmdir(self, parent: Place, name: bytes) -> None:
        """Delete an image at once, an empty instance, or whom nothing is shared with."""
        self._require(parent, Operation.RMDIR, name)
        if parent.kind is PlaceKind.SHARED_TO:
            self._catalog.remove_grantee(self._account, name.decode(errors="surrogateescape"))
            self.touch()
            return
        if self._was_done("delete", parent, name):
            return
        row = self._row(parent, name)
        if row.kind is Kind.INSTANCE:
            self._volumes.open(row).overlay.require_empty(ROOT_INO)
        self._lifecycle.remove_row(row)
        self.touch()

    def symlink(self, parent: Place, name: bytes, target: bytes) -> Entry:
        """An alias of an image beside it; in shared/to/GRANTEE, what shares an image."""
        self._require(parent, Operation.SYMLINK, name)
        if parent.kind is PlaceKind.SHARED_GRANTEE:
            return self._share(parent, name, target)
        text = check_image_name(name)
        sibling = places.sibling(target)
        home = self._regions.home
        image = self._catalog.image(self._account, sibling, home) if sibling else None
        if image is None:
            raise InvalidArgument(f"Alias {text} must point to an image beside it, not {target!r}")
        self._catalog.set_alias(
            self._account, text, image.name, self._clock(), replace=False, region=home
        )
        self.touch()
        return self.entry(self._dynamic_place(PlaceKind.ALIAS, text))

    def unlink(self, parent: Place, name: bytes) -> None:
        """Remove an alias, or end sharing."""
        self._require(parent, Operation.UNLINK, name)
        if parent.kind is PlaceKind.SHARED_GRANTEE:
            self._lifecycle.unshare_row(self._row(places.IMAGES, name), [parent.name])
            self.touch()
            return
        self._catalog.remove_alias(self._account, name.decode())
        self.touch()

    def rename(
        self, parent: Place, name: bytes, new_parent: Place, new_name: bytes, flags: int
    ) -> None:
        """Rename an image, alias or instance, or turn an instance into an image."""
        self._require(parent, Operation.RENAME, name)
        self._require(new_parent, Operation.RENAME, new_name)
        if flags & ~RENAME_NOREPLACE:
            raise InvalidArgument("Images and instances can't be exchanged")
        if parent.kind is PlaceKind.IMAGES and self._is_alias(name):
            self._rename_alias(new_parent, name, new_name, flags)
        else:
            self._rename_tree(parent, name, new_parent, new_name)
        self.touch()

    # -- inside -------------------------------------------------------------------------

    def _require(self, place: Place, operation: Operation, name: bytes) -> None:
        if operation not in ALLOWED.get(place.kind, ()):
            raise NotPermitted(f"{operation.value} {name!r} is not allowed in {place.kind.value}")

    def _row(self, parent: Place, name: bytes) -> TreeRow:
        text = name.decode(errors="surrogateescape")
        if parent.kind in (PlaceKind.IMAGES, PlaceKind.REGION):
            if parent.kind is PlaceKind.IMAGES and self._is_alias(name):
                raise NotADirectory(f"{text} is an alias")
            row = self._image(parent, text)
        else:
            row = self._catalog.instance(self._account, parent.name, text)
        if row is None:
            raise NotFound(f"{text} does not exist in {parent.kind.value}")
        return row

    def _was_done(self, what: str, parent: Place, *names: bytes) -> bool:
        """Whether a region has just done that: then there is nothing left to be found."""
        if parent.kind not in (PlaceKind.IMAGES, PlaceKind.REGION):
            return False
        texts = [name.decode(errors="surrogateescape") for name in names]
        return self._lifecycle.publishing.taken(what, self._region_of(parent), *texts) is not None

    def _is_alias(self, name: bytes) -> bool:
        try:
            text = name.decode()
        except UnicodeDecodeError:
            return False
        return self._catalog.alias(self._account, text) is not None

    def _rename_alias(self, new_parent: Place, name: bytes, new_name: bytes, flags: int) -> None:
        if new_parent is not places.IMAGES:
            raise NotPermitted(f"Alias {name!r} can't leave images/")
        if flags & RENAME_NOREPLACE and self._is_alias(new_name):
            raise Exists(f"Alias {new_name!r} exists already")
        new = check_image_name(new_name)
        home = self._regions.home
        self._catalog.rename_alias(self._account, name.decode(), new, self._clock(), home)

    def _rename_tree(self, parent: Place, name: bytes, new_parent: Place, new_name: bytes) -> None:
        """The contract's moves; those that would need a copy behind one's back are refused."""
        if parent == new_parent:
            if self._was_done("rename", parent, name, new_name):
                return
            row = self._row(parent, name)
            if row.kind is Kind.IMAGE:
                self._lifecycle.rename_image(row, new_name)
            else:
                self._lifecycle.rename_instance(row, new_name)
        elif parent.kind is PlaceKind.CLONES and new_parent is places.IMAGES:
            text = name.decode(errors="surrogateescape")
            self._lifecycle.promote(parent.name, text, new_name)
        else:
            raise NotPermitted(
                f"{name!r} can't move from {parent.kind.value} to {new_parent.kind.value}:"
                " copy it instead"
            )

    def _root_entry(self, row: TreeRow) -> Entry:
        volume = self._volumes.open(row)
        attributes = volume.attributes(ROOT_INO)
        volume.lookups.add(ROOT_INO)
        # What a region has comes and goes without this mount.
        timeout = _PLACE_TIMEOUT if row.kind is Kind.IMAGE and row.place else LASTING
        return Entry(node_id(row.number, ROOT_INO), attributes, timeout)

    def _find_image(self, parent: Place, name: str) -> Entry | None:
        row = self._image(parent, name)
        if row is not None:
            return self._root_entry(row)
        if parent.kind is PlaceKind.IMAGES and self._catalog.alias(self._account, name) is not None:
            return self.entry(self._dynamic_place(PlaceKind.ALIAS, name))
        return None

    def _find_clones(self, _: Place, name: str) -> Entry | None:
        try:
            reference = parse_image(name)
        except InvalidName:
            return None
        # Instances are here, whatever the region of their image answers, or does not.
        if self._catalog.instances_at(self._account, name) or self._exists(reference):
            return self.entry(self._clones(name))
        return None

    def _find_instance(self, parent: Place, name: str) -> Entry | None:
        row = self._catalog.instance(self._account, parent.name, name)
        return self._root_entry(row) if row is not None else None

    # -- sharing ------------------------------------------------------------------------

    def _shared_names(self, place: Place) -> list[str]:
        if place.kind is PlaceKind.SHARED_FROM:
            return self._sharing.owners()
        if place.kind is PlaceKind.SHARED_OWNER:
            return self._sharing.images_of(place.name)
        if place.kind is PlaceKind.SHARED_TO:
            return self._catalog.grantees(self._account)
        if place.kind is PlaceKind.SHARED_GRANTEE:
            home = self._regions.home
            return [row.name for row in self._catalog.shared_to(self._account, place.name, home)]
        return []

    def _find_owner(self, _: Place, name: str) -> Entry | None:
        if name not in self._sharing.owners():
            return None
        return self.entry(self._dynamic_place(PlaceKind.SHARED_OWNER, name))

    def _find_shared(self, parent: Place, name: str) -> Entry | None:
        self._regions.refresh(self._regions.home, LATELY)
        row = self._catalog.shared_image(self._account, parent.name, name, self._regions.home)
        if row is None:
            return None
        return msgspec.structs.replace(self._root_entry(row), entry_timeout=_PLACE_TIMEOUT)

    def _find_grantee(self, parent: Place, name: str) -> Entry | None:
        if name not in self._shared_names(parent):
            return None
        return self.entry(self._dynamic_place(PlaceKind.SHARED_GRANTEE, name))

    def _find_link(self, parent: Place, name: str) -> Entry | None:
        if name not in self._shared_names(parent):
            return None
        return self.entry(self._dynamic_place(PlaceKind.SHARED_IMAGE, f"{parent.name}/{name}"))

    def _share(self, parent: Place, name: bytes, target: bytes) -> Entry:
        text = check_image_name(name)
        if target.rstrip(b"/") != places.link_target(text):
            raise InvalidArgument(
                f"What shares image {text} must be a symlink to {places.link_target(text).decode()},"
                f" not to {target!r}"
            )
        row = self._image(places.IMAGES, text)
        if row is None:
            raise InvalidArgument(f"There is no image {text} to share")
        self._lifecycle.share_row(row, [parent.name], anew=True)
        self.touch()
        return self.entry(self._dynamic_place(PlaceKind.SHARED_IMAGE, f"{parent.name}/{text}"))

    # -- regions ------------------------------------------------------------------------

    def _region_of(self, place: Place) -> str:
        """The region whose images a place holds."""
        if place.kind is PlaceKind.IMAGES:
            return self._regions.home
        return self._regions.named(place.name)

    def _image(self, place: Place, name: str) -> TreeRow | None:
        """An image in images/ or regions/REGION/, by its own name.

        What is not known to be there may have been published a moment ago.
        """
        region = self._region_of(place)
        self._regions.refresh(region, LATELY)
        row = self._catalog.image(self._account, name, region)
        if row is None:
            self._regions.refresh(region, AT_ONCE)
        return row

    def _image_names(self, place: Place) -> set[str]:
        region = self._region_of(place)
        self._regions.refresh(region, AT_ONCE)
        found = {row.name for row in self._catalog.images(self._account, region=region)}
        if place.kind is PlaceKind.IMAGES:
            found |= self._catalog.aliases(self._account).keys()
        return found

    def _find_region(self, _: Place, name: str) -> Entry | None:
        if name not in self._regions.names():
            return None
        is_home = self._regions.named(name) == self._regions.home
        return self.entry(
            self._dynamic_place(PlaceKind.HOME if is_home else PlaceKind.REGION, name)
        )

    def _changes_elsewhere(self, place: Place) -> bool:
        """Whether names in a place come to be without a request of the kernel in it."""
        if place.kind is PlaceKind.IMAGES:
            return self._regions.home != ""
        return place.kind in _CHANGING_ELSEWHERE

    # -- parts --------------------------------------------------------------------------

    def _exists(self, reference: ImageReference) -> bool:
        try:
            self._lifecycle.image(reference)
        except ImagefsError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True

    def _clones(self, reference: str) -> Place:
        return self._dynamic_place(PlaceKind.CLONES, reference)

    def _dynamic_place(self, kind: PlaceKind, name: str) -> Place:
        number = self._catalog.place_number(f"{kind.name.lower()}/{name}")
        ino = Ino(places.FIRST_DYNAMIC + number)
        place = self._dynamic.get(ino)
        if place is None:
            place = self._dynamic[ino] = Place(kind, ino, name)
        return place
