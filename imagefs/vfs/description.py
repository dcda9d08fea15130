"""What is told of images and instances: lists, single ones, and the figures of overlays.

Steps, as those of `Lifecycle`, which has one of these. Nothing here changes anything.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import msgspec

from imagefs.catalog import Catalog, Kind, State, TreeRow
from imagefs.errors import Corrupt, IOFailure
from imagefs.region.values import Image
from imagefs.vfs.copying import Copying
from imagefs.vfs.information import (
    ImageInformation,
    Information,
    InstanceInformation,
    Shared,
    describe_foreign_image,
    describe_image,
    describe_instance,
)
from imagefs.vfs.regions import AT_ONCE, LOCAL, RegionalImages
from imagefs.vfs.sharing import Sharing
from imagefs.vfs.volumes import Volumes

log = logging.getLogger(__name__)


class Descriptions:
    """Tells of what one account has and sees."""

    def __init__(
        self,
        catalog: Catalog,
        volumes: Volumes,
        sharing: Sharing,
        regions: RegionalImages,
        account: str,
    ) -> None:
        self._catalog = catalog
        self._volumes = volumes
        self._sharing = sharing
        self._regions = regions
        self._account = account

    def images(self, deleted: bool = False) -> list[ImageInformation]:
        """All images and aliases of the home region, or the deleted images."""
        home = self._regions.home
        self._regions.refresh(home, AT_ONCE)
        gone = self._regions.deleted([home]) if deleted else {}
        listed = self._images_of(home, deleted, gone)
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

    def regional(self, deleted: bool = False) -> list[ImageInformation]:
        """All images of the regions that are not the home region, or the deleted images."""
        places = ["", *(row.name for row in self._catalog.regions())]
        away = [place for place in places if place != self._regions.home]
        self._regions.refresh_all(away)
        gone = self._regions.deleted(away) if deleted else {}
        return [image for place in away for image in self._images_of(place, deleted, gone)]

    def instances(self, deleted: bool = False) -> list[InstanceInformation]:
        """All instances, or the deleted ones."""
        rows = self._catalog.instances(self._account, deleted=deleted)
        return [self.instance(row) for row in rows]

    def shared(self) -> Shared:
        """What others share with this account, and what it shares."""
        self._regions.refresh(self._regions.home, AT_ONCE)
        foreign = [self.image(row) for row in self._sharing.images()]
        return Shared(foreign, self._sharing.shares())

    def describe(self, row: TreeRow) -> Information:
        """What is told about one row."""
        return self.image(row) if row.kind is Kind.IMAGE else self.instance(row)

    def image(self, row: TreeRow) -> ImageInformation:
        """What is told about one image."""
        if self._sharing.is_foreign(row):
            return describe_foreign_image(row, public=self._sharing.is_public(row))
        if row.state is State.SEALED:
            told = describe_image(row, None, None, self._catalog.shared_with(row.number))
        else:
            entries, size, _ = self._figures(row)
            told = describe_image(row, entries, size, [])
            copying = self._regions.copying(row.place, row.name)
            if copying is not None:
                told = msgspec.structs.replace(told, state=copying.state)
        return self._placed(told, row.place)

    def instance(self, row: TreeRow) -> InstanceInformation:
        """What is told about one instance."""
        return describe_instance(row, *self._figures(row))

    # -- inside -------------------------------------------------------------------------

    def _images_of(
        self, region: str, deleted: bool, gone: Mapping[str, Sequence[Image]]
    ) -> list[ImageInformation]:
        rows = self._catalog.images(self._account, deleted=deleted, region=region)
        told = [self.image(row) for row in rows]
        if deleted:
            of_region = map(_describe_deleted, gone.get(region, ()))
            return told + [self._placed(image, region) for image in of_region]
        names = {row.name for row in rows}
        return told + [
            self._placed(self._describe_copy(copying), region)
            for copying in self._regions.copies(region)
            if copying.name not in names
        ]

    def _placed(self, told: ImageInformation, region: str) -> ImageInformation:
        """The same with the reference by which an image of that region is known here."""
        if region == self._regions.home:
            return told
        name = region or LOCAL
        reference = f"regions/{name}/{told.name}"
        return msgspec.structs.replace(told, reference=reference, region=name)

    def _describe_copy(self, copying: Copying) -> ImageInformation:
        """What is told of an image that is on its way to a region."""
        source = copying.source
        return ImageInformation(
            reference=copying.name, name=copying.name, owner=self._account, kind="custom",
            state=copying.state, digest=None, created=source.created if source else 0,
            parent=source.reference if source else None,
            entries=source.entries if source else None, bytes=source.bytes if source else None,
            stored_bytes=None, shared_with=[],
        )  # fmt: skip

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


def _describe_deleted(image: Image) -> ImageInformation:
    described = image.descriptor
    return ImageInformation(
        reference=image.name, name=image.name, owner=image.account, kind="custom",
        state=str(State.SEALED), digest=None, created=described.created, parent=described.parent,
        entries=described.entries, bytes=described.bytes, stored_bytes=None, shared_with=[],
        deleted=image.deleted,
    )  # fmt: skip
