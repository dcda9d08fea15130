"""Which images a region has: listing, publishing, deleting, renaming and bringing back.

An image is its descriptor, which is put last and deleted first, so it is there whole or not at all.
Whoever changes what a name stands for holds the lease of that name. In which order things are
written, and what a crash leaves at each point, is in docs/durability.md.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import Final, TypeVar

from imagefs.errors import Corrupt, Exists, NotFound, StoreError
from imagefs.format.region import (
    MAX_DESCRIPTOR,
    Descriptor,
    decode_descriptor,
    encode_descriptor,
)
from imagefs.region import shares
from imagefs.region.bucket import Bucket, Listed
from imagefs.region.complaints import Complaints
from imagefs.region.descriptors import Descriptors
from imagefs.region.gc import pardon
from imagefs.region.jobs import beside, together
from imagefs.region.layout import (
    RANDOM_SIZE,
    SHARES,
    DeletedKey,
    ImageName,
    LeaseKey,
    deleted_key,
    deleted_prefix,
    image_key,
    images_prefix,
    lease_key,
    leases_prefix,
    parse_deleted,
    parse_image,
    parse_lease,
)
from imagefs.region.lease import Lease, Terms
from imagefs.region.packs import require_packs, usable_packs
from imagefs.region.values import Image

log = logging.getLogger(__name__)

MOST_IMAGES: Final = 100_000
"""Images of one account that are looked at."""

MOST_OWNERS: Final = 1000
"""Accounts that are looked at because they share something."""

_Key = TypeVar("_Key", ImageName, DeletedKey)


class Publication:
    """The images of one region. Thread-safe; methods block."""

    def __init__(
        self,
        bucket: Bucket,
        region: str,
        store: Callable[[], bytes],
        descriptors: Descriptors,
        complaints: Complaints,
        terms: Terms,
        cleaning: Callable[[], AbstractContextManager[Lease]],
    ) -> None:
        """`store` gives the store's id, `cleaning` the lease to clean the region."""
        self._bucket = bucket
        self._region = region
        self._store = store
        self._descriptors = descriptors
        self._complaints = complaints
        self._terms = terms
        self._cleaning = cleaning

    def __repr__(self) -> str:
        return f"<Publication of region {self._region}, {self._descriptors}>"

    # -- looking ------------------------------------------------------------------------

    def images(self, owners: Iterable[str]) -> dict[ImageName, Image]:
        """All images of these accounts, as far as they are not too many to be meant."""
        found: dict[ImageName, Image] = {}
        wanted = sorted(owners)
        if len(wanted) > MOST_OWNERS:
            self._complaints.say(SHARES, f"more than {MOST_OWNERS} accounts share images")
        prefixes = [images_prefix(owner) for owner in wanted[:MOST_OWNERS]]
        listings = together([partial(self._understood, each, parse_image) for each in prefixes])
        for prefix, listed in zip(prefixes, listings, strict=True):
            self._descriptors.keep_only(prefix, (one.key for _, one in listed))
            descriptors = self._descriptors.fetch(one for _, one in listed)
            for name, one in listed:
                if one.key in descriptors:
                    found[name] = Image(*name, descriptors[one.key], one.modified)
        return found

    def deleted(self, account: str, name: str | None = None) -> list[Image]:
        """The deleted images of an account, or those that had one name; the latest comes last."""
        prefix = deleted_prefix(account, name)
        listed = self._understood(prefix, parse_deleted)
        self._descriptors.keep_only(prefix, (one.key for _, one in listed))
        descriptors = self._descriptors.fetch(one for _, one in listed)
        listed.sort(key=lambda pair: (pair[1].modified, pair[0].time))
        return [
            Image(*key.image, descriptors[one.key], one.modified, key.time)
            for key, one in listed
            if one.key in descriptors
        ]

    def _understood(
        self, prefix: str, parse: Callable[[str], _Key | None]
    ) -> list[tuple[_Key, Listed]]:
        found: list[tuple[_Key, Listed]] = []
        for one in self._bucket.list(prefix):
            meaning = parse(one.key)
            if meaning is None:
                self._complaints.say(one.key, "it is no key of an image")
            elif len(found) >= MOST_IMAGES:
                self._complaints.say(prefix, f"there are more than {MOST_IMAGES} images")
                break
            else:
                found.append((meaning, one))
        return found

    # -- changing -----------------------------------------------------------------------

    def lease(self, image: ImageName) -> Lease:
        """The lease to hold while one changes what a name stands for."""
        return Lease(
            self._bucket,
            lease_key(LeaseKey(image, self._store())),
            leases_prefix(image),
            _store_of,
            terms=self._terms,
            busy=f"Image {image.name} is being copied to region {self._region}, or deleted"
            " there, by another machine: wait until it has ended and try again",
        )

    def require_absent(self, image: ImageName) -> None:
        """Raises `Exists` when there is an image of that name."""
        if self._bucket.head(image_key(image)) is not None:
            raise self._exists(image)

    def publish(self, lease: Lease, image: ImageName, descriptor: Descriptor) -> Image:
        """Makes an image be there, whose packs are; the lease was put before they were looked at.

        Raises `Exists` when there is one, `LeaseLost` when others may have thought this copy dead.
        """
        with beside(lease.confirm, partial(self.require_absent, image)):
            left = shares.of_image(self._bucket, image)
        shares.withdraw(self._bucket, left)
        lease.check()
        self._create(image, encode_descriptor(descriptor))
        if not lease.still_mine():
            self._check_late(image, descriptor)
        return self._published(image, descriptor)

    def remove(self, image: ImageName) -> None:
        """Deletes an image; `undelete` brings it back as long as no gc took it.

        Raises `NotFound`, and `Busy` while it is shared.
        """
        with self.lease(image) as lease:
            data = self._read(image)
            shares.refuse_shared(self._bucket, image, self._region)
            moment = DeletedKey(image, time.time_ns(), secrets.token_bytes(RANDOM_SIZE))
            self._bucket.put(deleted_key(moment), data)
            lease.confirm()
            self._bucket.delete(image_key(image))
            self._descriptors.drop([image_key(image)])
        shares.withdraw(self._bucket, shares.of_image(self._bucket, image))

    def rename(self, image: ImageName, name: str) -> Image:
        """Gives an image another name; a crash may leave it with both. Raises `NotFound`,
        `Exists`, and `Busy` while it is shared."""
        new = ImageName(image.account, name)
        with self.lease(image) as old_lease, self.lease(new) as lease:
            descriptor = self._decode(image_key(image), self._read(image))
            shares.refuse_shared(self._bucket, image, self._region)
            self._count_on(image, descriptor)
            published = self.publish(lease, new, descriptor)
            old_lease.confirm()
            self._bucket.delete(image_key(image))
            self._descriptors.drop([image_key(image)])
        return published

    def undelete(self, image: ImageName) -> Image:
        """Brings back the image of that name that was deleted last.

        Raises `NotFound` when there is none, `Exists` when the name is taken.
        """
        with self.lease(image) as lease:
            last, data = self._last_deleted(image)
            descriptor = self._decode(last.key, data)
            if self._is_there(image, data):  # it was brought back and a crash came
                self._bucket.delete(last.key)
                return self._published(image, descriptor)
            self._count_on(image, descriptor)
            published = self.publish(lease, image, descriptor)
            self._bucket.delete(last.key)
        return published

    # -- inside -------------------------------------------------------------------------

    def _last_deleted(self, image: ImageName) -> tuple[Listed, bytes]:
        listed = self._understood(deleted_prefix(*image), parse_deleted)
        listed.sort(key=lambda pair: (pair[1].modified, pair[0].time))
        for _, last in reversed(listed):
            try:
                return last, self._bucket.get(last.key, limit=MAX_DESCRIPTOR)
            except NotFound:  # a gc took it
                continue
        raise NotFound(
            f"There is no deleted image {image.name} of {image.account} in region {self._region}"
        )

    def _count_on(self, image: ImageName, descriptor: Descriptor) -> None:
        """Afterwards the packs of an image may be counted on by who holds the lease for it."""
        usable = usable_packs(self._bucket)
        doubtful = [pack for pack in descriptor.packs if pack not in usable]
        if doubtful:
            with self._cleaning() as lease:
                what = f"Image {image.name} in region {self._region}"
                pardon(self._bucket, lease, doubtful, what)

    def _create(self, image: ImageName, data: bytes) -> None:
        try:
            self._bucket.create(image_key(image), data)
        except Exists:
            # It may have been ours: put, the answer lost, and put again.
            if not self._is_there(image, data):
                raise self._exists(image) from None
        self._descriptors.drop([image_key(image)])

    def _check_late(self, image: ImageName, descriptor: Descriptor) -> None:
        """After a publication that may have come too late: its packs are there, or it goes."""
        try:
            require_packs(descriptor.packs, usable_packs(self._bucket), f"Image {image.name}")
        except Corrupt:
            if self._is_there(image, encode_descriptor(descriptor)):
                self._bucket.delete(image_key(image))
            raise

    def _published(self, image: ImageName, descriptor: Descriptor) -> Image:
        listed = self._bucket.head(image_key(image))
        if listed is None:
            raise NotFound(f"Image {image.name} was deleted from region {self._region} meanwhile")
        return Image(*image, descriptor, listed.modified)

    def _read(self, image: ImageName) -> bytes:
        try:
            return self._bucket.get(image_key(image), limit=MAX_DESCRIPTOR)
        except NotFound:
            raise NotFound(
                f"There is no image {image.name} of {image.account} in region {self._region}"
            ) from None

    def _is_there(self, image: ImageName, data: bytes) -> bool:
        try:
            return self._bucket.get(image_key(image), limit=MAX_DESCRIPTOR) == data
        except (NotFound, Corrupt):
            return False

    def _decode(self, key: str, data: bytes) -> Descriptor:
        try:
            return decode_descriptor(data)
        except (Corrupt, StoreError) as error:
            raise type(error)(f"{key} in region {self._region} cannot be read: {error}") from error

    def _exists(self, image: ImageName) -> Exists:
        return Exists(
            f"There is an image {image.name} in region {self._region} already: choose another"
            " name, or delete that one first"
        )


def _store_of(key: str) -> bytes | None:
    lease = parse_lease(key)
    return None if lease is None else lease.store
