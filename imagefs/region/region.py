"""The face of regions: all that is above asks `Regions` for a `Region` and that for everything.

All methods but `Regions.open` block, for as long as the server takes (minutes at worst), and are for
worker threads; any number of them. Names come and go unchecked: the caller's grammar decides. All
raise `Unreachable` when the server does not answer, `AccessDenied` without credentials it
accepts, `NotFound` when bucket, directory or region is gone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from imagefs.disk import Disk
from imagefs.errors import NotFound
from imagefs.format.region import Descriptor, PackName
from imagefs.model import ObjectId
from imagefs.region import marker, shares
from imagefs.region.bringing import bring, plan_bringing
from imagefs.region.bucket import Bucket, BucketStatistics, Patience
from imagefs.region.complaints import Complaints
from imagefs.region.descriptors import Descriptors
from imagefs.region.gc import Cleaner, cleaning
from imagefs.region.jobs import beside
from imagefs.region.layout import ImageName, Share, image_key
from imagefs.region.lease import Lease, LeaseLost, Terms
from imagefs.region.listing import listing
from imagefs.region.packs import usable_packs
from imagefs.region.publication import Publication
from imagefs.region.sending import Sender
from imagefs.region.tenant import Tenant
from imagefs.region.upstream import RegionUpstream, UpstreamStatistics
from imagefs.region.url import RegionUrl
from imagefs.region.uses import Uses
from imagefs.region.values import GcReport, Image, Listing, Plan
from imagefs.store.flights import Flights
from imagefs.store.store import Store

__all__ = ["GcReport", "Image", "Listing", "Plan", "Region", "Regions", "Share", "Terms"]

log = logging.getLogger(__name__)

_WORKERS = 8
_ATTEMPTS = 3
"""How often a copy is begun whose lease was lost on the way."""


def _never() -> bool:
    return False


def _nothing(*_: object) -> None:
    pass


class Region:
    """One region as one store sees it. Thread-safe; made by `Regions.open`."""

    def __init__(
        self, name: str, url: str, bucket: Bucket, tenant: Tenant, upstream: RegionUpstream
    ) -> None:
        self.name = name
        self.url = url
        self._bucket = bucket
        self._tenant = tenant
        self._upstream = upstream
        self._sender = Sender(tenant.store, upstream, name, bucket)
        self._pool = ThreadPoolExecutor(_WORKERS, f"region-{name}")
        complaints = Complaints(log, name)
        self._descriptors = Descriptors(bucket, self._pool, complaints)
        self._publication = Publication(
            bucket, name, tenant.store_id, self._descriptors, complaints, tenant.terms,
            self._cleaning,
        )  # fmt: skip
        self._listings: Flights[tuple[str, int], Listing] = Flights()
        self._changes = 0
        self._used: Uses | None = None
        self._seen: dict[ObjectId, Descriptor] = {}
        self._places: dict[ObjectId, set[str]] = {}
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
        found = listing(self._publication, partial(shares.shares, self._bucket), account)
        self._learn(found.images)
        return found

    def deleted(self, account: str) -> list[Image]:
        """The deleted images of an account that can be brought back; the latest comes last."""
        self._ready()
        return self._publication.deleted(account)

    # -- changing -----------------------------------------------------------------------

    def plan(
        self,
        manifest: ObjectId,
        *,
        base: ObjectId | None = None,
        cancelled: Callable[[], bool] = _never,
    ) -> Plan:
        """What the region lacks of a tree, see `send`. Sends nothing; fetches indexes of packs."""
        self._ready()
        return self._sender.plan(
            manifest, self._usable(), base=self._base(base), cancelled=cancelled
        )

    def send(
        self,
        account: str,
        name: str,
        manifest: ObjectId,
        *,
        entries: int,
        size: int,
        created: int,
        parent: str | None,
        base: ObjectId | None = None,
        tell: Callable[[int, int], None] = _nothing,
        cancelled: Callable[[], bool] = _never,
    ) -> Image:
        """Copies a tree to the region and publishes it there: whole or not at all.

        `base` is the manifest of an image of the region that is much like it, if any. `tell` hears
        of bytes done and to do, from any thread. Raises `Exists`, `Busy` while another copies
        to that name, `Cancelled` soon after `cancelled` says so, `Corrupt` when the tree is damaged
        here. What has arrived by then is not sent again by the next attempt.
        """
        image = ImageName(account, name)

        def describe(packs: tuple[PackName, ...]) -> Descriptor:
            return Descriptor(manifest, entries, size, created, parent, packs)

        with self._changing(image):
            for _ in range(_ATTEMPTS - 1):
                try:
                    return self._copy(image, manifest, describe, base, tell, cancelled)
                except LeaseLost as error:
                    log.warning("%s: it begins again", error)
            return self._copy(image, manifest, describe, base, tell, cancelled)

    def _copy(
        self,
        image: ImageName,
        manifest: ObjectId,
        describe: Callable[[tuple[PackName, ...]], Descriptor],
        base: ObjectId | None,
        tell: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> Image:
        with self._publication.lease(image) as lease:
            with beside(partial(self._publication.require_absent, image)):
                usable = self._usable()
            packs = self._sender.send(
                manifest,
                usable,
                base=self._base(base),
                tell=tell,
                cancelled=cancelled,
                alive=lease.keep,
            )
            published = self._publication.publish(lease, image, describe(packs))
        self._learn([published])
        return published

    def _usable(self) -> dict[PackName, int]:
        """The packs that a copy may count on, and their sizes."""
        return {pack: listed.size for pack, listed in usable_packs(self._bucket).items()}

    def _base(self, manifest: ObjectId | None) -> Descriptor | None:
        return None if manifest is None else self._descriptor(manifest)

    def remove(self, account: str, name: str) -> None:
        """Deletes an image. Raises `NotFound`, `Busy` while it is shared or being copied."""
        image = ImageName(account, name)
        with self._changing(image):
            self._publication.remove(image)

    def rename(self, account: str, name: str, new: str) -> Image:
        """Gives an image another name. Raises `NotFound`, `Exists`, `Busy` while it is shared or
        being copied."""
        image = ImageName(account, name)
        with self._changing(image), self._changing(ImageName(account, new)):
            published = self._publication.rename(image, new)
        self._learn([published])
        return published

    def undelete(self, account: str, name: str) -> Image:
        """Brings back what was deleted last under that name. Raises `NotFound`, `Exists`, `Busy`."""
        image = ImageName(account, name)
        with self._changing(image):
            published = self._publication.undelete(image)
        self._learn([published])
        return published

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

    # -- what this store has of it ------------------------------------------------------

    def use(self, manifest: ObjectId) -> None:
        """Says that this store needs a tree that it has seen in the region: a gc keeps it, whatever
        happens to its image. Costs nothing when it was said before.

        Raises `NotFound` when the region has it no longer, or this store never saw it there.
        """
        self._ready()
        descriptor = self._descriptor(manifest)
        if descriptor is None:
            raise NotFound(f"Region {self.name} has no image with the tree {manifest.hex()}")
        with self._lock:
            places = sorted(self._places.get(manifest, ()))
        self._uses().use(descriptor, places)

    def unuse(self, kept: AbstractSet[ObjectId]) -> None:
        """Says that this store needs these trees of the region and no others any more.

        What it began to use a few minutes ago stays: it may not have been known yet when somebody
        found out what is needed. What is needed and was not said, is: the store may have a new id.
        """
        self._ready()
        uses = self._uses()
        put = uses.put()
        gone = [listed for manifest, listed in put.items() if manifest not in kept]
        if gone:
            with self._cleaning() as lease:
                uses.end(gone, lease.now - self._tenant.terms.fresh)
        for manifest in kept - put.keys():
            try:
                self.use(manifest)
            except NotFound as error:
                log.warning("Region %s: tree %s is needed here: %s", self.name, manifest, error)

    def _uses(self) -> Uses:
        with self._lock:
            if self._used is None:
                tenant = self._tenant
                self._used = Uses(self._bucket, tenant.store_id(), tenant.terms.said)
            return self._used

    def _descriptor(self, manifest: ObjectId) -> Descriptor | None:
        """What the region said of a tree, in this process or an earlier one."""
        with self._lock:
            known = self._seen.get(manifest)
        return known or self._upstream.index.descriptor(self.name, manifest)

    def _learn(self, images: Iterable[Image]) -> None:
        """Remembers which trees these images are, so that they can be read, and where they are.

        Of images with one tree and different packs, the one that is known stays: what was fetched
        came from its packs.
        """
        offered: dict[ObjectId, list[Descriptor]] = {}
        with self._lock:
            for image in images:
                manifest = ObjectId(image.descriptor.manifest)
                key = image_key(ImageName(image.account, image.name))
                self._places.setdefault(manifest, set()).add(key)
                offered.setdefault(manifest, []).append(image.descriptor)
            new = {
                manifest: found[0]
                for manifest, found in offered.items()
                if self._seen.get(manifest) not in found
            }
            self._seen.update(new)
        if new:
            self._upstream.remember(self.name, list(new.values()))

    def gc(self, retain: int, *, dry_run: bool = False) -> GcReport:
        """Removes what was deleted, or sent and never published, more than `retain` ns ago.

        Raises `Busy` while another cleans the region, `Corrupt` or `StoreError` when a descriptor
        cannot be read and so nobody knows what it needs. What it has not done then, or when it
        was interrupted, the next one does.
        """
        self._ready()
        cleaner = Cleaner(
            self._bucket, self.name, self._descriptors, self._pool, self._tenant.terms, retain
        )
        if dry_run:
            return cleaner.preview()
        with self._cleaning() as lease:
            return cleaner.run(lease)

    @contextmanager
    def _cleaning(self) -> Iterator[Lease]:
        """The lease to clean the region: of this store, for one process and thread at a time."""
        tenant = self._tenant
        with (
            tenant.cleaning(),
            cleaning(self._bucket, self.name, tenant.store_id(), tenant.terms) as lease,
        ):
            yield lease

    @contextmanager
    def _changing(self, image: ImageName) -> Iterator[None]:
        """While a thread of this store is at work at a name."""
        self._ready()
        busy = f"Image {image.name} is being copied to region {self.name}, or deleted there"
        with self._tenant.claims.claim((self._bucket.url, image), busy):
            try:
                yield
            finally:
                self._changed()

    def _changed(self) -> None:
        """Listings that began before say nothing about now."""
        with self._lock:
            self._changes += 1


class Regions:
    """All regions of one store. Thread-safe; `close` it when none of its methods runs."""

    def __init__(
        self,
        store: Store,
        disk: Disk,
        *,
        cache_bytes: int | None = None,
        terms: Terms | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Touches nothing. With the first region that is opened, `STORE/regions` is, and the store
        reads from regions what its packs lack. `cache_bytes` bounds what is kept there of what was
        fetched; `terms` and `patience` say how long leases last and the network may take."""
        self._disk = disk
        self._cache_bytes = cache_bytes
        self._patience = patience
        self._tenant = Tenant(store, disk, terms or Terms())
        self._regions: dict[str, Region] = {}
        self._upstream: RegionUpstream | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Regions {sorted(self._regions)}>"

    @staticmethod
    def spelled(url: str) -> str:
        """The URL as it is kept: one place has one spelling. Raises `InvalidArgument`."""
        return RegionUrl.parse(url).text

    def open(self, name: str, url: str) -> Region:
        """The region of that name and place; asks nobody. Raises `InvalidArgument` for the URL."""
        with self._lock:
            region = self._regions.get(name)
            if region is not None and region.url == url:
                return region
            place = RegionUrl.parse(url)
            upstream = self._opened()
            if region is not None:  # another place has the name now
                upstream.forget(name)
                region.close()
            bucket = Bucket(place, name=name, disk=self._disk, patience=self._patience)
            region = self._regions[name] = Region(name, url, bucket, self._tenant, upstream)
            return region

    def bring(
        self,
        manifest: ObjectId,
        tell: Callable[[int, int], None] = _nothing,
        cancelled: Callable[[], bool] = _never,
    ) -> int:
        """Makes a tree that a region has be in the store's own packs, durably and whole; returns the
        bytes that they grew by. `tell` hears of bytes done and to do.

        Raises `Corrupt` for a tree that is not whole or no tree, `Cancelled`.
        """
        with self._lock:
            upstream = self._opened()
        return bring(self._tenant.store, upstream, manifest, tell, cancelled)

    def plan_bringing(self, manifest: ObjectId) -> Plan:
        """What `bring` would have to fetch."""
        with self._lock:
            upstream = self._opened()
        return plan_bringing(self._tenant.store, upstream, manifest)

    def forget(self, name: str) -> None:
        """Drops all that is kept here of a region; nothing of it is in use any more."""
        with self._lock:
            region = self._regions.pop(name, None)
            if region is not None or self._disk.is_directory(self._directory):
                self._opened().forget(name)
        if region is not None:
            region.close()

    def statistics(self) -> UpstreamStatistics | None:
        """What is kept here of regions; None when none was opened."""
        upstream = self._upstream
        return None if upstream is None else upstream.statistics()

    def close(self) -> None:
        with self._lock:
            for region in self._regions.values():
                region.close()
            self._regions.clear()
            if self._upstream is not None:
                self._tenant.store.upstream = None
                self._upstream.close()
                self._upstream = None

    @property
    def _directory(self) -> Path:
        return self._tenant.store.path / "regions"

    def _opened(self) -> RegionUpstream:
        """What reads from regions, from now on for the store too."""
        if self._upstream is None:
            self._upstream = RegionUpstream.open(
                self._directory, self._disk, self._bucket_of, cache_bytes=self._cache_bytes
            )
            self._tenant.store.upstream = self._upstream
        return self._upstream

    def _bucket_of(self, name: str) -> Bucket | None:
        region = self._regions.get(name)
        return None if region is None else region._bucket  # noqa: SLF001 - made here
