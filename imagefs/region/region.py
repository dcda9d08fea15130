"""The face of regions: all that is above asks `Regions` for a `Region` and that for everything.

All methods but `Regions.open` block, for as long as the server takes (minutes at worst), and are for
worker threads; any number of them. Names come and go unchecked: the caller's grammar decides. All
raise `Unreachable` when the server does not answer, `AccessDenied` without credentials it
accepts, `NotFound` when bucket, directory or region is gone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from imagefs.disk import Disk
from imagefs.errors import NotFound
from imagefs.format.region import Descriptor
from imagefs.model import ObjectId
from imagefs.region import marker, shares
from imagefs.region.bucket import Bucket, BucketStatistics, Patience
from imagefs.region.claims import Claims
from imagefs.region.complaints import Complaints
from imagefs.region.descriptors import Descriptors
from imagefs.region.gc import Cleaner
from imagefs.region.identity import store_id
from imagefs.region.layout import ImageName, Share, image_key
from imagefs.region.lease import Terms
from imagefs.region.listing import listing
from imagefs.region.publication import Publication
from imagefs.region.url import RegionUrl
from imagefs.region.uses import Uses
from imagefs.region.values import GcReport, Image, Listing, Plan
from imagefs.store.flights import Flights
from imagefs.store.store import Store

__all__ = ["GcReport", "Image", "Listing", "Plan", "Region", "Regions", "Share", "Terms"]

log = logging.getLogger(__name__)

_WORKERS = 8


class Region:
    """One region as one store sees it. Thread-safe; made by `Regions.open`."""

    def __init__(self, name: str, url: str, bucket: Bucket, shared: _Shared) -> None:
        self.name = name
        self.url = url
        self._bucket = bucket
        self._shared = shared
        self._pool = ThreadPoolExecutor(_WORKERS, f"region-{name}")
        complaints = Complaints(log, name)
        self._descriptors = Descriptors(bucket, self._pool, complaints)
        self._publication = Publication(
            bucket, name, shared.store_id, self._descriptors, complaints, shared.terms
        )
        self._listings: Flights[tuple[str, int], Listing] = Flights()
        self._changes = 0
        self._used: Uses | None = None
        self._seen: dict[ObjectId, tuple[Descriptor, set[str]]] = {}
        self._checked = False
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Region {self.name} {self.url}>"

    def close(self) -> None:
        self._bucket.close()
        self._pool.shutdown(cancel_futures=True)

    def statistics(self) -> BucketStatistics:
        return self._bucket.statistics()

    # -- the place itself ---------------------------------------------------------------

    def prepare(self) -> None:
        """Makes an empty place a region; one that is a region already stays as it is.

        Raises `InvalidArgument` when something else lies there, `StoreError` for another version.
        """
        marker.prepare(self._bucket, self.name)
        self._checked = True

    def check(self) -> None:
        """Raises `NotFound` unless there is a region, `StoreError` for one of another version."""
        marker.check(self._bucket, self.name)
        self._checked = True

    def _ready(self) -> None:
        """What the region is was looked at since it was opened."""
        if not self._checked:
            self.check()

    # -- looking ------------------------------------------------------------------------

    def listing(self, account: str) -> Listing:
        """What an account sees: its images, those shared with it or with `public`, those of
        account `public`; and the shares that concern it, its own and those with it.

        Who asks while another thread does gets the same answer. An image that is damaged or of
        a newer version is left out, and the log says so once.
        """
        self._ready()
        return self._listings.get((account, self._changes), lambda: self._list(account))

    def _list(self, account: str) -> Listing:
        found = listing(self._publication, shares.shares(self._bucket), account)
        for image in found.images:
            self._learn(image)
        return found

    def deleted(self, account: str) -> list[Image]:
        """The deleted images of an account that can be brought back; the latest comes last."""
        self._ready()
        return self._publication.deleted(account)

    # -- changing -----------------------------------------------------------------------

    def remove(self, account: str, name: str) -> None:
        """Deletes an image. Raises `NotFound`, `Busy` while it is shared or being copied."""
        image = ImageName(account, name)
        with self._changing(image):
            self._publication.remove(image)

    def undelete(self, account: str, name: str) -> Image:
        """Brings back what was deleted last under that name. Raises `NotFound`, `Exists`, `Busy`."""
        image = ImageName(account, name)
        with self._changing(image):
            return self._publication.undelete(image)

    def share(self, owner: str, name: str, grantees: Iterable[str]) -> None:
        """Shares an image with accounts, or with `public`. Raises `NotFound`."""
        self._ready()
        try:
            shares.share(self._bucket, ImageName(owner, name), grantees)
        finally:
            self._changed()

    def unshare(self, owner: str, name: str, grantees: Iterable[str]) -> None:
        """Ends sharing an image with these; that it was not shared is fine."""
        self._ready()
        try:
            shares.withdraw(self._bucket, [Share(owner, name, grantee) for grantee in grantees])
        finally:
            self._changed()

    def use(self, manifest: ObjectId) -> None:
        """Says that this store needs a tree that it has seen in the region: a gc keeps it, whatever
        happens to its image. Costs nothing when it was said before.

        Raises `NotFound` when the region has it no longer, or this store never saw it there.
        """
        self._ready()
        with self._lock:
            descriptor, places = self._seen.get(manifest, (None, set()))
        if descriptor is None:
            raise NotFound(f"Region {self.name} has no image with the tree {manifest.hex()}")
        self._uses().use(descriptor, sorted(places))

    def unuse(self, kept: AbstractSet[ObjectId]) -> None:
        """Says that this store needs no other trees of the region than these any more."""
        self._ready()
        self._uses().keep_only(kept)

    def _uses(self) -> Uses:
        with self._lock:
            if self._used is None:
                self._used = Uses(self._bucket, self._shared.store_id())
            return self._used

    def _learn(self, image: Image) -> None:
        """Remembers which tree an image is, and where it is published."""
        manifest = ObjectId(image.descriptor.manifest)
        key = image_key(ImageName(image.account, image.name))
        with self._lock:
            _, places = self._seen.get(manifest, (None, set()))
            self._seen[manifest] = (image.descriptor, places | {key})

    def gc(self, retain: int, *, dry_run: bool = False) -> GcReport:
        """Removes what was deleted, or sent and never published, more than `retain` ns ago.

        Raises `Busy` while another cleans the region, `Corrupt` or `StoreError` when a descriptor
        cannot be read and so nobody knows what it needs. What it has not done then, or when it
        was interrupted, the next one does.
        """
        self._ready()
        cleaner = Cleaner(
            self._bucket, self.name, self._descriptors, self._pool, self._shared.terms, retain
        )
        if dry_run:
            return cleaner.preview()
        busy = f"Region {self.name} is being cleaned already: wait until that has ended"
        with self._shared.claims.claim((self._bucket.url, None), busy):
            return cleaner.run(self._shared.store_id())

    @contextmanager
    def _changing(self, image: ImageName) -> Iterator[None]:
        """While a thread of this store is at work at a name."""
        self._ready()
        busy = f"Image {image.name} is being copied to region {self.name}, or deleted there"
        with self._shared.claims.claim((self._bucket.url, image), busy):
            try:
                yield
            finally:
                self._changed()

    def _changed(self) -> None:
        """Listings that began before say nothing about now."""
        with self._lock:
            self._changes += 1


class _Shared:
    """What the regions of one store have in common."""

    def __init__(self, store: Store, disk: Disk, terms: Terms) -> None:
        self.store = store
        self.terms = terms
        self.claims = Claims()
        self._disk = disk
        self._id: bytes | None = None
        self._lock = threading.Lock()

    def store_id(self) -> bytes:
        """The id by which regions know this store."""
        with self._lock:
            if self._id is None:
                self._id = store_id(self.store.path, self._disk)
            return self._id


class Regions:
    """All regions of one store. Thread-safe."""

    def __init__(
        self,
        store: Store,
        disk: Disk,
        *,
        cache_bytes: int | None = None,
        terms: Terms | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._disk = disk
        self._patience = patience
        self._shared = _Shared(store, disk, terms or Terms())
        self._regions: dict[str, Region] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Regions {sorted(self._regions)}>"

    def open(self, name: str, url: str) -> Region:
        """The region of that name and place; asks nobody. Raises `InvalidArgument` for the URL."""
        with self._lock:
            region = self._regions.get(name)
            if region is None or region.url != url:
                bucket = Bucket(
                    RegionUrl.parse(url), name=name, disk=self._disk, patience=self._patience
                )
                self._regions[name] = Region(name, url, bucket, self._shared)
            if region is not None and region is not self._regions[name]:
                region.close()
            return self._regions[name]

    def forget(self, name: str) -> None:
        """Drops what is known of a region here; nothing of it is in use any more."""
        with self._lock:
            region = self._regions.pop(name, None)
        if region is not None:
            region.close()

    def close(self) -> None:
        with self._lock:
            regions = list(self._regions.values())
            self._regions.clear()
        for region in regions:
            region.close()
