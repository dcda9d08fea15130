"""What references mean: images by name, alias, owner and region, and instances.

Steps, as those of `Lifecycle`, which is built on this.
"""

from __future__ import annotations

from imagefs.catalog import Catalog, Kind, State, TreeRow
from imagefs.catalog.reference import ImageReference, InstanceReference, parse
from imagefs.errors import Exists, InvalidName, NotFound, NotPermitted
from imagefs.vfs import places
from imagefs.vfs.regions import AT_ONCE, LATELY, LOCAL, RegionalImages
from imagefs.vfs.sharing import Sharing


class References:
    """Finds what one account calls by a reference. A base class of `Lifecycle`."""

    def __init__(
        self, catalog: Catalog, regions: RegionalImages, sharing: Sharing, account: str
    ) -> None:
        self._catalog = catalog
        self._account = account
        self.regions = regions
        self.sharing = sharing

    # -- looking up ---------------------------------------------------------------------

    def image(self, reference: ImageReference) -> TreeRow:
        """The image that a reference or alias stands for, also another account's that is shared
        with this one; raises NotFound."""
        region = self._region_of(reference)
        self.regions.refresh(region, LATELY)
        if not self._is_own(reference):
            self.regions.refresh(region, AT_ONCE)
            return self.sharing.image(reference)
        row = self._find_image(reference, region)
        if row is None:
            self.regions.refresh(region, AT_ONCE)
            what = "regions" if reference.region else "images"
            if self.regions.is_away(region):
                raise NotFound(
                    f"Image {reference} does not exist as far as is known: region {region} could"
                    " not be listed; `imagefs region ls` says why"
                )
            raise NotFound(
                f"Image {reference} does not exist; `imagefs ls {what}` lists those that do"
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

    # -- inside -------------------------------------------------------------------------

    def _region_of(self, reference: ImageReference) -> str:
        """The region that a reference means; raises NotFound."""
        if reference.region is None:
            return self.regions.home
        return self.regions.named(reference.region)

    def _path(self, row: TreeRow) -> str:
        """Where a tree is in the mount."""
        if row.kind is Kind.INSTANCE:
            return f"{places.INSTANCES.kind.value}{row.reference}"
        if row.place == self.regions.home:
            return f"{places.IMAGES.kind.value}{row.name}"
        return f"{places.REGIONS.kind.value}{row.place or LOCAL}/{row.name}"

    def _typed(self, row: TreeRow) -> str:
        """The reference that names an image of the account in a command."""
        if row.place == self.regions.home:
            return row.name
        return f"regions/{row.place or LOCAL}/{row.name}"

    def _same_in(self, row: TreeRow, region: str) -> TreeRow | None:
        """The image of that name and tree in a region: a copy that ended before it was answered
        for is complete. None while nobody can ask the region."""
        self.regions.refresh(region, AT_ONCE)
        there = self._catalog.image(self._account, row.name, region)
        if there is None or there.manifest != row.manifest or self.regions.is_away(region):
            return None
        return there if there.state is State.SEALED else None

    def _find_image(self, reference: ImageReference, region: str) -> TreeRow | None:
        """An image of the account by name, or by alias where that is told apart."""
        row = self._catalog.image(self._account, reference.name, region)
        if row is None and reference.region is None:
            target = self._catalog.alias(self._account, reference.name)
            row = self._catalog.image(self._account, target, region) if target else None
        return row

    def _is_own(self, reference: ImageReference) -> bool:
        return reference.owner in (None, self._account)

    def _is_alias(self, reference: ImageReference | InstanceReference) -> bool:
        if isinstance(reference, InstanceReference) or not self._is_own(reference):
            return False
        if reference.region is not None:
            return False  # aliases are in images/ alone
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

    def _refuse_taken(self, name: str, region: str) -> None:
        """Say early that a name is taken, before work is done for nothing."""
        self.regions.refresh(region, AT_ONCE)
        self.regions.require_free(region, name)
        taken = self._catalog.image(self._account, name, region)
        if taken or self._catalog.alias(self._account, name):
            raise Exists(f"Image {name} exists already: choose another name")


def image_reference(reference: str) -> ImageReference:
    """A reference that is an image's; raises InvalidName."""
    parsed = parse(reference)
    if not isinstance(parsed, ImageReference):
        raise InvalidName(
            f"{reference} is an instance; the reference of an image is its NAME alone"
        )
    return parsed
