"""What can happen to images and instances as wholes: clone, seal, commit, reset, delete.

Each method is a step (see `NotReady`): file operations, the control socket and the offline
command all call these. `superseded` is called for every name above the trees that stands
for something else afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

from imagefs.catalog import Catalog, Kind, State, TreeRow
from imagefs.catalog.reference import (
    ImageReference,
    InstanceReference,
    check_image_name,
    check_name,
    parse,
)
from imagefs.catalog.regional import forgotten, is_out_of_reach
from imagefs.catalog.rows import Sealed
from imagefs.errors import (
    Busy,
    Exists,
    InvalidArgument,
    NotFound,
    NotPermitted,
    NotReady,
    ReadOnly,
)
from imagefs.model import ROOT_INO, NodeId, ObjectId
from imagefs.region.values import Plan
from imagefs.vfs.copying import Copying
from imagefs.vfs.description import Descriptions
from imagefs.vfs.information import ImageInformation, Information, InstanceInformation
from imagefs.vfs.inspection import Inspection
from imagefs.vfs.node import node_id
from imagefs.vfs.publishing import Publishing
from imagefs.vfs.references import References, image_reference
from imagefs.vfs.regions import AT_ONCE, RegionalImages
from imagefs.vfs.sharing import Sharing
from imagefs.vfs.volumes import Volumes, root_has

Clock = Callable[[], int]


class Lifecycle(References):
    """The images and instances of one account."""

    def __init__(
        self,
        catalog: Catalog,
        volumes: Volumes,
        regions: RegionalImages,
        account: str,
        clock: Clock,
    ) -> None:
        sharing = Sharing(catalog, account, clock, regions.home)
        super().__init__(catalog, regions, sharing, account)
        self._volumes = volumes
        self._clock = clock
        self.regions.changed = self._changed_elsewhere
        self.publishing = Publishing(catalog, regions, account, clock)
        self.descriptions = Descriptions(catalog, volumes, self.sharing, regions, account)
        self._results: dict[Hashable, Any] = {}
        self.inspection = Inspection(catalog, volumes, account)
        self.superseded: Callable[[TreeRow], None] = _nothing
        self.alias_removed: Callable[[str], None] = _nothing

    # -- telling ------------------------------------------------------------------------

    def show(self, reference: str) -> Information:
        """One image or instance."""
        return self.descriptions.describe(self.row(reference))

    # -- images -------------------------------------------------------------------------

    def create_draft(self, name: bytes | str, region: str) -> TreeRow:
        """A new empty draft, to be published in a region; raises InvalidName, Exists."""
        name = check_image_name(name)
        self.regions.refresh(region, AT_ONCE)
        self.regions.require_free(region, name)
        self._volumes.tree(None)
        return self._catalog.create_draft(self._account, name, self._clock(), region)

    def publish(self, name: str, manifest: bytes, stored: int = 0) -> ImageInformation:
        """Make a tree that is complete in the store the image `name`; raises Exists."""
        name = check_image_name(name)
        manifest_id = ObjectId(manifest)
        root = self._volumes.tree(manifest_id).entry(ROOT_INO)
        sealed = Sealed(manifest_id, root.count, root.size, stored)
        key = ("publish", name, manifest_id)
        if key in self._results:
            return self.descriptions.image(self._results.pop(key))
        now, home = self._clock(), self.regions.home

        def done() -> None:
            row = self._catalog.publish(self._account, name, sealed, None, now, home)
            self._results[key] = row
            self.superseded(row)

        self._refuse_taken(name, home)
        if home:
            copying = self.regions.sending(None, home, name, now, None)
            raise self.regions.carry_out(key, copying, sealed, done)
        done()
        return self.descriptions.image(self._results.pop(key))

    def seal(self, reference: str) -> ImageInformation:
        """Make a draft an image that never changes and is durable; raises Busy."""
        row = self.image(image_reference(reference))
        self.require_sealed(row)
        return self.descriptions.image(row)

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

        copying = self._copying(row, row.place, row.name, row.created, row.parent)
        raise self._volumes.commit(volume, "seal", done, copying)

    def unseal(self, row: TreeRow) -> TreeRow:
        """Turn an image that was never used back into a draft; raises ReadOnly, Busy."""
        self.sharing.require_own(row, "made a draft")
        # The kernel may have looked the image up before it was used.
        row = self._catalog.tree(row.number) or row
        if row.used or row.place:
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
        name = check_image_name(name)
        self.regions.require_free(row.place, name)
        if not _is_published(row) or name == row.name:
            self._renamed(row, name)
            return
        self._refuse_taken(name, row.place)

        def done(renamed: TreeRow) -> None:
            volume = self._volumes.in_use(row.number)
            if volume is not None and renamed.number == row.number:
                volume.row = renamed
            elif volume is not None:
                self._volumes.supersede(volume, remove=False, successor=renamed)

        raise self.publishing.rename(row, name, done)

    def copy(self, reference: str, region: str) -> ImageInformation:
        """Copy an image of one's own to a region, or from one to the store itself, sealing it
        first; returns once it is complete there. Raises Exists, NotFound, NotPermitted, Busy."""
        row, place = self._to_be_copied(reference, region)
        self.require_sealed(row)
        key = ("copy", row.number, place)
        if key in self._results:
            return self.descriptions.image(self._results.pop(key))
        if (there := self._same_in(row, place)) is not None:
            return self.descriptions.image(there)
        self._refuse_taken(row.name, place)
        assert row.manifest is not None
        figures = Sealed(row.manifest, row.entries or 0, row.bytes or 0, 0)

        def done() -> None:
            self._results[key] = new = self._catalog.publish(
                self._account, row.name, figures, row.parent, row.created, place
            )
            self._catalog.mark_used(row)
            self.superseded(new)

        copying = self._copying(row, place, row.name, row.created, row.parent)
        if copying is None:
            raise InvalidArgument(f"Image {row.name} is in {region} already")
        raise self.regions.carry_out(key, copying(), figures, done)

    def plan_copy(self, reference: str, region: str) -> Plan:
        """What such a copy would have to carry. Changes nothing: raises Busy for a draft."""
        row, place = self._to_be_copied(reference, region)
        if row.state is not State.SEALED:
            raise Busy(
                f"Image {row.name} is a draft, of which nobody knows what it will be:"
                f" `imagefs seal {reference}` first"
            )
        return self.regions.plan(row, place)

    # -- instances ----------------------------------------------------------------------

    def clone(self, image: str, names: Sequence[str]) -> list[InstanceInformation]:
        """Make instances of an image, all or none; raises Exists, NotFound, NotPermitted."""
        rows = self.clone_rows(image_reference(image), names, durable=True)
        for row in rows:
            self.superseded(row)
        return [self.descriptions.instance(row) for row in rows]

    def clone_rows(
        self, reference: ImageReference, names: Sequence[str | bytes], *, durable: bool = False
    ) -> list[TreeRow]:
        """Like `clone`, for names the kernel is not to be told of."""
        if reference.region is not None:
            raise NotPermitted(
                f"Instances are made of images of the home region, not of {reference}: `imagefs"
                f" copy {reference} local`, or mount with `--region {reference.region}`"
            )
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
        self.publishing.use(image)
        place = str(reference)
        now = self._clock()
        return self._catalog.clone(image, self._account, place, checked, now, durable=durable)

    def commit(self, instance: str, name: str) -> ImageInformation:
        """Store the present state of an instance as the sealed image `name`; raises Exists."""
        row = self._instance_row(instance)
        name = check_image_name(name)
        key = ("commit", row.number, name)
        if key in self._results:
            return self.descriptions.image(self._results.pop(key))
        now, home = self._clock(), self.regions.home
        self._refuse_taken(name, home)

        def done(sealed: Sealed) -> None:
            new = self._catalog.publish(self._account, name, sealed, row.reference, now, home)
            self._results[key] = new
            self.superseded(new)

        copying = self._copying(row, home, name, now, row.reference)
        raise self._volumes.commit(self._volumes.open(row), f"commit {name}", done, copying)

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
        now, home = self._clock(), self.regions.home
        self._refuse_taken(image, home)
        volume = self._volumes.open(row)
        volume.require_no_writers("turned into an image")

        def done(sealed: Sealed) -> None:
            new = self._catalog.promote(row, image, sealed, now, home)
            self._results[key] = new
            self._volumes.supersede(volume, remove=True, successor=new)
            self.superseded(new)

        copying = self._copying(row, home, image, now, row.reference)
        raise self._volumes.commit(volume, f"promote {image}", done, copying)

    def reset(self, instance: str) -> InstanceInformation:
        """Put an instance back to the state of its image; raises Busy."""
        row = self._instance_row(instance)
        self._withdraw(row, "reset")
        self._volumes.tree(row.manifest)
        new = self._catalog.reset(row, self._clock())
        self._superseded_volume(row, new)
        self.superseded(new)
        return self.descriptions.instance(new)

    def rename_instance(self, row: TreeRow, name: bytes | str) -> None:
        """Give an instance another name below the same image; raises InvalidName, Exists."""
        self._renamed(row, check_name(name))

    # -- both ---------------------------------------------------------------------------

    def remove(self, reference: str) -> None:
        """Delete an image or instance, whatever it holds; raises Busy, NotFound."""
        parsed = parse(reference)
        if isinstance(parsed, ImageReference) and self._is_own(parsed):
            gone = self.publishing.taken("delete", self._region_of(parsed), parsed.name)
            if gone is not None:
                self.superseded(gone)
                return
        if self._is_alias(parsed):
            self._catalog.remove_alias(self._account, parsed.name, durable=True)
            self.alias_removed(parsed.name)
            return
        row = self.row(reference)
        self.remove_row(row, durable=True)
        self.superseded(row)

    def remove_row(self, row: TreeRow, *, durable: bool = False) -> None:
        """Like `remove`, for a name the kernel is not to be told of. `publishing.taken` says that a
        published image was deleted: ask that first."""
        self.sharing.require_own(row, "deleted")
        self._withdraw(row, "deleted")
        self._refuse_shared(row)
        self.regions.require_not_copied(row)
        if _is_published(row):
            raise self.publishing.delete(row, self._superseded_volume)
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
            kind, place, name = Kind.IMAGE, self._region_of(parsed), parsed.name
            back = self.publishing.taken("undelete", place, name)
            if back is not None:
                return self.descriptions.image(back)
        row = self._catalog.last_deleted(kind, self._account, place, name)
        if row is None and kind is Kind.IMAGE and place:
            self._refuse_taken(name, place)
            raise self.publishing.undelete(place, name, self.superseded)
        if row is None:
            raise NotFound(
                f"Nothing deleted bears the name {reference}; `imagefs ls --deleted` lists what does"
            )
        self._require_reachable(row)
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
        return self.descriptions.describe(row)

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
        top = f"{self._path(row)}/".encode()
        paths = volume.overlay.paths(volume.writers)
        return [(top + path, node_id(row.number, ino)) for ino, path in paths.items()]

    # -- sharing ------------------------------------------------------------------------

    def share(self, reference: str, grantees: Sequence[str]) -> ImageInformation:
        """Share an image of one's own with accounts, sealing it first; raises Busy."""
        row = self.image(image_reference(reference))
        self.share_row(row, grantees)
        return self.descriptions.image(row)

    def share_row(self, row: TreeRow, grantees: Sequence[str], *, anew: bool = False) -> None:
        """Like `share`; `anew`: raises Exists when one of these has it already."""
        self.sharing.require_own(row, "shared")
        checked = [self.sharing.check_grantee(grantee) for grantee in grantees]
        self.require_sealed(row)
        if self.publishing.taken("share", row.place, row.name, tuple(checked)):
            return
        if anew:
            self.sharing.refuse_shared(row, checked)
        if row.place:
            raise self.publishing.share(row, checked)
        self.sharing.share(row, checked)

    def unshare(self, reference: str, grantees: Sequence[str]) -> ImageInformation:
        """End sharing an image with accounts; what they made of it stays."""
        row = self.image(image_reference(reference))
        self.unshare_row(row, grantees)
        return self.descriptions.image(row)

    def unshare_row(self, row: TreeRow, grantees: Sequence[str]) -> None:
        """Like `unshare`."""
        self.sharing.require_own(row, "shared")
        if self.publishing.taken("unshare", row.place, row.name, tuple(grantees)):
            return
        if row.place:
            self.sharing.require_shared(row, grantees)
            raise self.publishing.unshare(row, grantees)
        self.sharing.unshare(row, grantees)

    # -- inside -------------------------------------------------------------------------

    def _changed_elsewhere(self, rows: Sequence[TreeRow]) -> None:
        """Images of a region came or went, or are shared otherwise."""
        for row in rows:
            if self._catalog.tree(row.number) is None:
                self._superseded_volume(row)
            self.superseded(row)
        self.sharing.changed_here()

    def _copying(
        self, row: TreeRow, region: str, name: str, created: int, parent: str | None
    ) -> Callable[[], Copying] | None:
        """What makes the copy that is needed so that the tree of `row`, which the store has or can
        read, becomes an image of a region; None where none is."""
        if region:
            return partial(self.regions.sending, row, region, name, created, parent)
        if row.region:
            return partial(self.regions.bringing, row, name)
        return None

    def _to_be_copied(self, reference: str, region: str) -> tuple[TreeRow, str]:
        """The image that a copy is of, and the region it goes to."""
        row = self.image(image_reference(reference))
        self.sharing.require_own(row, "copied")
        place = self.regions.named(region)
        if place == row.place:
            raise InvalidArgument(f"Image {row.name} is in region {region}: it needs no copy there")
        return row, place

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

    def _require_reachable(self, row: TreeRow) -> None:
        """Raise NotFound for an instance whose region was forgotten: nobody has its image."""
        if is_out_of_reach(row):
            url = row.origin.removeprefix(forgotten(""))
            raise NotFound(
                f"Instance {row.reference} needs the region at {url}, which is not known any more:"
                f" `imagefs region add NAME {url}` first"
            )

    def _refuse_shared(self, row: TreeRow) -> None:
        """Raise Busy while an image is shared: others count on it."""
        grantees = self._catalog.shared_with(row.number)
        if grantees:
            raise Busy(
                f"Image {row.reference} can't be deleted while it is shared with"
                f" {', '.join(grantees)}: `imagefs unshare {self._typed(row)} {' '.join(grantees)}`"
                " first"
            )


def _is_published(row: TreeRow) -> bool:
    """Whether an image is there for all machines that use its region."""
    return row.kind is Kind.IMAGE and row.place != "" and row.state is State.SEALED


def _nothing(_: object) -> None:
    """Nobody is told."""
