"""What can happen to images and instances as wholes: clone, seal, commit, reset, delete.

Each method is a step (see `NotReady`): file operations, the control socket and the offline
command all call these. `superseded` is called for every name above the trees that stands
for something else afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from imagefs.catalog import Catalog, Kind, State, TreeRow
from imagefs.catalog.reference import (
    ImageReference,
    InstanceReference,
    check_image_name,
    check_name,
    parse,
)
from imagefs.catalog.rows import Sealed
from imagefs.errors import (
    Busy,
    Corrupt,
    Exists,
    InvalidName,
    IOFailure,
    NotFound,
    NotPermitted,
    NotReady,
    ReadOnly,
)
from imagefs.model import ROOT_INO, NodeId, ObjectId
from imagefs.vfs import places
from imagefs.vfs.information import (
    ImageInformation,
    Information,
    InstanceInformation,
    Shared,
    describe_foreign_image,
    describe_image,
    describe_instance,
)
from imagefs.vfs.inspection import Inspection
from imagefs.vfs.node import node_id
from imagefs.vfs.sharing import Sharing
from imagefs.vfs.volumes import Volumes, root_has

log = logging.getLogger(__name__)

Clock = Callable[[], int]


class Lifecycle:
    """The images and instances of one account."""

    def __init__(self, catalog: Catalog, volumes: Volumes, account: str, clock: Clock) -> None:
        self._catalog = catalog
        self._volumes = volumes
        self._account = account
        self._clock = clock
        self.sharing = Sharing(catalog, account, clock)
        self._results: dict[Hashable, Any] = {}
        self.inspection = Inspection(catalog, volumes, account)
        self.superseded: Callable[[TreeRow], None] = _nothing
        self.alias_removed: Callable[[str], None] = _nothing

    # -- looking up ---------------------------------------------------------------------

    def image(self, reference: ImageReference) -> TreeRow:
        """The image that a reference or alias stands for, also another account's that is shared
        with this one; raises NotFound."""
        if not self._is_own(reference):
            return self.sharing.image(reference)
        row = self._catalog.image(self._account, reference.name)
        if row is None:
            target = self._catalog.alias(self._account, reference.name)
            row = self._catalog.image(self._account, target) if target else None
        if row is None:
            raise NotFound(
                f"Image {reference} does not exist; `imagefs ls images` lists those that do"
            )
        return row

    def instance(self, reference: InstanceReference) -> TreeRow:
        """The instance that a reference stands for; raises NotFound."""
        row = self._catalog.instance(self._account, str(reference.image), reference.name)
        if row is None:
            raise NotFound(
                f"Instance {reference} does not exist; `imagefs ls instances` lists those that do"
            )
        return row

    def row(self, reference: str) -> TreeRow:
        """The image or instance of a reference; raises NotFound, InvalidName."""
        parsed = parse(reference)
        if isinstance(parsed, InstanceReference):
            return self.instance(parsed)
        return self.image(parsed)

    # -- telling ------------------------------------------------------------------------

    def images(self, deleted: bool = False) -> list[ImageInformation]:
        """All images and aliases, or the deleted images."""
        rows = self._catalog.images(self._account, deleted=deleted)
        listed = [self._describe_image(row) for row in rows]
        if not deleted:
            listed += [
                ImageInformation(
                    reference=name, name=name, owner=self._account, kind="alias", state="alias",
                    digest=None, created=0, parent=None, entries=None, bytes=None,
                    stored_bytes=None, shared_with=[], alias=target,
                )
                for name, target in self._catalog.aliases(self._account).items()
            ]  # fmt: skip
        return sorted(listed, key=lambda information: information.name)

    def instances(self, deleted: bool = False) -> list[InstanceInformation]:
        """All instances, or the deleted ones."""
        rows = self._catalog.instances(self._account, deleted=deleted)
        return [self._describe_instance(row) for row in rows]

    def show(self, reference: str) -> Information:
        """One image or instance."""
        return self.describe(self.row(reference))

    def describe(self, row: TreeRow) -> Information:
        """What is told about one row."""
        if row.kind is Kind.IMAGE:
            return self._describe_image(row)
        return self._describe_instance(row)

    # -- images -------------------------------------------------------------------------

    def create_draft(self, name: bytes | str) -> TreeRow:
        """A new empty draft; raises InvalidName, Exists."""
        name = check_image_name(name)
        self._volumes.tree(None)
        return self._catalog.create_draft(self._account, name, self._clock())

    def publish(self, name: str, manifest: bytes, stored: int = 0) -> ImageInformation:
        """Make a tree that is complete in the store the image `name`; raises Exists."""
        name = check_image_name(name)
        manifest_id = ObjectId(manifest)
        root = self._volumes.tree(manifest_id).entry(ROOT_INO)
        sealed = Sealed(manifest_id, root.count, root.size, stored)
        row = self._catalog.publish(self._account, name, sealed, None, self._clock())
        self.superseded(row)
        return self._describe_image(row)

    def seal(self, reference: str) -> ImageInformation:
        """Make a draft an image that never changes and is durable; raises Busy."""
        row = self.image(_image_reference(reference))
        self.require_sealed(row)
        return self._describe_image(row)

    def require_sealed(self, row: TreeRow) -> None:
        """Raise NotReady with the work that seals a draft; nothing to do for a sealed image."""
        if row.state is State.SEALED:
            return
        volume = self._volumes.open(row)
        volume.require_no_writers("sealed")

        def done(sealed: Sealed) -> None:
            new = self._catalog.seal(row, sealed)
            self._volumes.supersede(volume, remove=True, successor=new)
            self.superseded(new)

        raise self._volumes.commit(volume, "seal", done)

    def unseal(self, row: TreeRow) -> TreeRow:
        """Turn an image that was never used back into a draft; raises ReadOnly, Busy."""
        self.sharing.require_own(row, "made a draft")
        if row.used:
            raise ReadOnly(f"Image {row.reference} was used and stays sealed")
        volume = self._volumes.in_use(row.number)
        if volume is not None:
            volume.require_closed("made a draft again")
        self._volumes.tree(row.manifest)
        new = self._catalog.unseal(row)
        if volume is not None:
            self._volumes.supersede(volume, remove=False, successor=new)
        self.superseded(new)
        return new

    def rename_image(self, row: TreeRow, name: bytes | str) -> None:
        """Give an image another name; raises InvalidName, Exists."""
        self._renamed(row, check_image_name(name))

    # -- instances ----------------------------------------------------------------------

    def clone(self, image: str, names: Sequence[str]) -> list[InstanceInformation]:
        """Make instances of an image, all or none; raises Exists, NotFound, NotPermitted."""
        rows = self.clone_rows(_image_reference(image), names, durable=True)
        for row in rows:
            self.superseded(row)
        return [self._describe_instance(row) for row in rows]

    def clone_rows(
        self, reference: ImageReference, names: Sequence[str | bytes], *, durable: bool = False
    ) -> list[TreeRow]:
        """Like `clone`, for names the kernel is not to be told of."""
        image = self.image(reference)
        checked = [check_name(name) for name in names]
        self.require_sealed(image)
        tree = self._volumes.tree(image.manifest)
        for name in checked:
            if root_has(tree, name.encode()) is not None:
                raise NotPermitted(
                    f"Instance name {name} is the name of an entry of image {reference};"
                    " choose another (a copy of an image can't be made here)"
                )
        place = str(reference)
        now = self._clock()
        return self._catalog.clone(image, self._account, place, checked, now, durable=durable)

    def commit(self, instance: str, name: str) -> ImageInformation:
        """Store the present state of an instance as the sealed image `name`; raises Exists."""
        row = self._instance_row(instance)
        name = check_image_name(name)
        key = ("commit", row.number, name)
        if key in self._results:
            return self._describe_image(self._results.pop(key))
        self._refuse_taken(name)

        def done(sealed: Sealed) -> None:
            now = self._clock()
            new = self._catalog.publish(self._account, name, sealed, row.reference, now)
            self._results[key] = new
            self.superseded(new)

        raise self._volumes.commit(self._volumes.open(row), f"commit {name}", done)

    def promote(self, place: str, name: str, image: bytes | str) -> TreeRow:
        """Turn the instance `place`/`name` into the sealed image `image`; raises Exists, Busy."""
        image = check_image_name(image)
        key = ("promote", place, name, image)
        if key in self._results:
            new: TreeRow = self._results.pop(key)
            return new
        row = self._catalog.instance(self._account, place, name)
        if row is None:
            raise NotFound(f"Instance {place}/{name} does not exist")
        self._refuse_taken(image)
        volume = self._volumes.open(row)
        volume.require_no_writers("turned into an image")

        def done(sealed: Sealed) -> None:
            new = self._catalog.promote(row, image, sealed, self._clock())
            self._results[key] = new
            self._volumes.supersede(volume, remove=True, successor=new)
            self.superseded(new)

        raise self._volumes.commit(volume, f"promote {image}", done)

    def reset(self, instance: str) -> InstanceInformation:
        """Put an instance back to the state of its image; raises Busy."""
        row = self._instance_row(instance)
        self._withdraw(row, "reset")
        self._volumes.tree(row.manifest)
        new = self._catalog.reset(row, self._clock())
        self._superseded_volume(row, new)
        self.superseded(new)
        return self._describe_instance(new)

    def rename_instance(self, row: TreeRow, name: bytes | str) -> None:
        """Give an instance another name below the same image; raises InvalidName, Exists."""
        self._renamed(row, check_name(name))

    # -- both ---------------------------------------------------------------------------

    def remove(self, reference: str) -> None:
        """Delete an image or instance, whatever it holds; raises Busy, NotFound."""
        parsed = parse(reference)
        if self._is_alias(parsed):
            self._catalog.remove_alias(self._account, parsed.name, durable=True)
            self.alias_removed(parsed.name)
            return
        row = self.row(reference)
        self.remove_row(row, durable=True)
        self.superseded(row)

    def remove_row(self, row: TreeRow, *, durable: bool = False) -> None:
        """Like `remove`, for a name the kernel is not to be told of."""
        self.sharing.require_own(row, "deleted")
        self._withdraw(row, "deleted")
        self._refuse_shared(row)
        now = self._clock()
        self._volumes.freeing(lambda: self._catalog.delete(row, now, durable=durable))
        self._superseded_volume(row)

    def undelete(self, reference: str) -> Information:
        """Bring back what was deleted last under this reference; raises NotFound, Exists."""
        parsed = parse(reference)
        if isinstance(parsed, InstanceReference):
            kind, place, name = Kind.INSTANCE, str(parsed.image), parsed.name
        else:
            self._require_own_name(parsed)
            kind, place, name = Kind.IMAGE, "", parsed.name
        row = self._catalog.last_deleted(kind, self._account, place, name)
        if row is None:
            raise NotFound(
                f"Nothing deleted bears the name {reference}; `imagefs ls --deleted` lists what does"
            )
        self._volumes.tree(row.manifest)
        try:
            row = self._catalog.undelete(row)
        except Exists as error:
            raise Exists(
                f"{reference} can't be brought back while its name is taken: rename what has it"
            ) from error
        if self._volumes.in_use(row.number) is not None:
            self._volumes.open(row)
        self.superseded(row)
        return self.describe(row)

    def manifest(self, reference: str) -> bytes:
        """The manifest id of the present state of an image or instance, stored completely."""
        row = self.row(reference)
        if row.state is State.SEALED and row.manifest is not None:
            return row.manifest
        key = ("manifest", row.number)
        if key in self._results:
            stored: bytes = self._results.pop(key)
            return stored

        def done(sealed: Sealed) -> None:
            self._results[key] = sealed.manifest

        raise self._volumes.commit(self._volumes.open(row), "manifest", done)

    def writable(self, reference: str) -> list[tuple[bytes, NodeId]]:
        """The files of an image or instance that are open for writing: the path of each in the
        mount, and its node. Those without a name are left out."""
        row = self.row(reference)
        volume = self._volumes.in_use(row.number)
        if volume is None or not volume.writers:
            return []
        place = places.INSTANCES if row.kind is Kind.INSTANCE else places.IMAGES
        top = f"{place.kind.value}{row.reference}/".encode()
        paths = volume.overlay.paths(volume.writers)
        return [(top + path, node_id(row.number, ino)) for ino, path in paths.items()]

    # -- sharing ------------------------------------------------------------------------

    def shared(self) -> Shared:
        """What others share with this account, and what it shares."""
        foreign = [self._describe_image(row) for row in self.sharing.images()]
        return Shared(foreign, self.sharing.shares())

    def share(self, reference: str, grantees: Sequence[str]) -> ImageInformation:
        """Share an image of one's own with accounts, sealing it first; raises Busy."""
        row = self.image(_image_reference(reference))
        self.sharing.require_own(row, "shared")
        self.require_sealed(row)
        self.sharing.share(row, grantees)
        return self._describe_image(row)

    def unshare(self, reference: str, grantees: Sequence[str]) -> ImageInformation:
        """End sharing an image with accounts; what they made of it stays."""
        row = self.image(_image_reference(reference))
        self.sharing.unshare(row, grantees)
        return self._describe_image(row)

    # -- inside -------------------------------------------------------------------------

    def _is_own(self, reference: ImageReference) -> bool:
        return reference.owner in (None, self._account)

    def _is_alias(self, reference: ImageReference | InstanceReference) -> bool:
        if isinstance(reference, InstanceReference) or not self._is_own(reference):
            return False
        return self._catalog.alias(self._account, reference.name) is not None

    def _require_own_name(self, reference: ImageReference) -> None:
        """Raise NotPermitted for the name of another account's image, shared or not."""
        if not self._is_own(reference):
            raise NotPermitted(
                f"Image {reference} belongs to {reference.owner}: only that account can bring it"
                " back"
            )

    def _instance_row(self, reference: str) -> TreeRow:
        parsed = parse(reference)
        if not isinstance(parsed, InstanceReference):
            raise InvalidName(
                f"{reference} is an image; the reference of an instance is IMAGE/INSTANCE"
            )
        return self.instance(parsed)

    def _withdraw(self, row: TreeRow, what: str) -> None:
        """Raise Busy unless the volume may go."""
        volume = self._volumes.in_use(row.number)
        if volume is None:
            return
        volume.require_closed(what)
        if volume.committing is not None:
            raise Busy(f"{row.kind.capitalize()} {row.reference} is being stored: try again")

    def _superseded_volume(self, row: TreeRow, successor: TreeRow | None = None) -> None:
        volume = self._volumes.in_use(row.number)
        if volume is not None:
            self._volumes.supersede(volume, remove=False, successor=successor)

    def _renamed(self, row: TreeRow, name: str) -> None:
        volume = self._volumes.in_use(row.number)
        if volume is not None and volume.committing is not None:
            # It is about to become another row, under the name it has now.
            raise NotReady(volume.committing, None)
        new = self._catalog.rename(row, name)
        if volume is not None:
            volume.row = new

    def _refuse_taken(self, name: str) -> None:
        """Say early that a name is taken, before work is done for nothing."""
        if self._catalog.image(self._account, name) or self._catalog.alias(self._account, name):
            raise Exists(f"Image {name} exists already: choose another name")

    def _refuse_shared(self, row: TreeRow) -> None:
        """Raise Busy while an image is shared: others count on it."""
        grantees = self._catalog.shared_with(row.number)
        if grantees:
            raise Busy(
                f"Image {row.reference} can't be deleted while it is shared with"
                f" {', '.join(grantees)}: `imagefs unshare {row.reference} {' '.join(grantees)}`"
                " first"
            )

    def _describe_image(self, row: TreeRow) -> ImageInformation:
        if self.sharing.is_foreign(row):
            return describe_foreign_image(row, public=self.sharing.is_public(row))
        if row.state is State.SEALED:
            return describe_image(row, None, None, self._catalog.shared_with(row.number))
        entries, size, _ = self._figures(row)
        return describe_image(row, entries, size, [])

    def _describe_instance(self, row: TreeRow) -> InstanceInformation:
        return describe_instance(row, *self._figures(row))

    def _figures(self, row: TreeRow) -> tuple[int | None, int | None, int | None]:
        """Entries, bytes and changed bytes of an overlay; nothing is known of one that was
        deleted, or is damaged: one bad overlay must not keep the others from being listed."""
        if row.deleted is not None:
            return None, None, None
        volume = self._volumes.open(row)
        try:
            overlay = volume.overlay
            return overlay.entries, overlay.bytes, overlay.changed_bytes
        except (Corrupt, IOFailure) as error:
            log.error("%s %s cannot be read: %s", row.kind.capitalize(), row.reference, error)
            return None, None, None
        finally:
            self._volumes.release(volume)


def _nothing(_: object) -> None:
    """Nobody is told."""


def _image_reference(reference: str) -> ImageReference:
    parsed = parse(reference)
    if not isinstance(parsed, ImageReference):
        raise InvalidName(
            f"{reference} is an instance; the reference of an image is its NAME alone"
        )
    return parsed
