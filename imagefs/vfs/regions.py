"""One account's side of regions: what they list, and what is copied, published and deleted there.

The methods are steps, like those of `Lifecycle`, which has one of these. What they ask of a region
is work for worker threads (`NotReady`); what they know of it is in the catalog, so that names
can be looked up without asking, and while it does not answer. An empty name of a region stands
for the store itself, which users call `local`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from imagefs.catalog import Catalog, TreeRow
from imagefs.catalog.reference import check_name
from imagefs.catalog.rows import RegionRow, Sealed
from imagefs.disk import Disk
from imagefs.errors import (
    Busy,
    Exists,
    ImagefsError,
    InvalidArgument,
    NotFound,
    NotPermitted,
    NotReady,
)
from imagefs.model import SECOND
from imagefs.region.complaints import Complaints
from imagefs.region.values import GcReport, Image, Listing, Plan
from imagefs.store import Store
from imagefs.vfs.copying import Copying
from imagefs.vfs.listed import images_of, shares_of

if TYPE_CHECKING:
    from imagefs.region.region import Region, Regions

log = logging.getLogger(__name__)

T = TypeVar("T")

LOCAL = "local"
"""What users call the store itself among the regions."""

AT_ONCE = SECOND
"""How old (ns) a listing may be that says that something is not there."""

LATELY = 10 * SECOND
"""How old (ns) a listing may be that says that something is there."""

RETRY_AFTER = 30 * SECOND
"""After what time (ns) a region that did not answer is asked again, in the background."""


class RegionInformation(msgspec.Struct, frozen=True):
    """One region. `refreshed` is when (ns) its images were listed last, `failure` why they could
    not be since; `home` says whether `images/` shows them."""

    name: str
    url: str
    home: bool
    refreshed: int | None
    failure: str | None


class _Look(msgspec.Struct, frozen=True):
    """When (ns) a region was asked for its images last, how long (ns) that took, and whether it
    answered."""

    at: int
    took: int
    failed: bool


class RegionalImages:
    """The regions that the store knows, as one account sees them.

    `home` is the region whose images `images/` shows. `changed` hears of rows that came or went.
    """

    def __init__(
        self,
        catalog: Catalog,
        store: Store,
        disk: Disk,
        account: str,
        now: Callable[[], int],
        home: str,
    ) -> None:
        self.home = home
        self.changed: Callable[[Sequence[TreeRow]], None] = _nothing
        self._catalog = catalog
        self.store = store
        self._disk = disk
        self._account = account
        self._now = now
        self._regions: Regions | None = None
        self._looks: dict[str, _Look] = {}
        self._wanted: set[str] = set()
        """Regions that did not answer the last time, and were needed since."""
        self._changes = 0
        self._changed: dict[tuple[str, str], int] = {}
        """Region and name of images that this account changed, and the number of the change."""
        self._results: dict[Hashable, Any] = {}
        self._copies: dict[tuple[str, str], Copying] = {}
        self._ending = False
        self._complaints: dict[str, Complaints] = {}
        if catalog.regions():
            self._all()

    def __repr__(self) -> str:
        return f"<RegionalImages of {self._account}: {len(self._copies)} copies under way>"

    def close(self) -> None:
        """End what is under way, and let go of every region."""
        self.cancel()
        if self._regions is not None:
            self._regions.close()

    # -- which there are ----------------------------------------------------------------

    def named(self, name: str) -> str:
        """The region that users call so; raises NotFound."""
        if name == LOCAL:
            return ""
        if self._catalog.region(name) is None:
            raise NotFound(f"There is no region {name}; `imagefs region ls` lists those there are")
        return name

    def names(self) -> list[str]:
        """What users call the regions there are, the store itself among them."""
        return [LOCAL, *(row.name for row in self._catalog.regions())]

    def all(self) -> list[RegionInformation]:
        """All regions but the store itself."""
        return [
            RegionInformation(row.name, row.url, row.name == self.home, row.refreshed, row.failure)
            for row in self._catalog.regions()
        ]

    def add(self, name: str, url: str) -> None:
        """Get to know a region, which is made where there is nothing yet.

        Raises InvalidName, InvalidArgument, Exists, and what `Region.prepare` raises.
        """
        name = check_name(name)
        if name == LOCAL:
            raise InvalidArgument(
                f"{LOCAL} is what the store itself is called: choose another name"
            )
        key = ("region add", name, url)
        if self._is_done(key):
            return
        if self._catalog.region(name) is not None:
            raise Exists(f"Region {name} exists already: choose another name")
        regions = self._all()
        region = regions.open(name, regions.spelled(url))

        def finish(failure: ImagefsError | None) -> None:
            if failure is not None:
                regions.forget(name)
                raise failure
            self._catalog.add_region(name, region.url, self._now())
            self._results[key] = None

        raise NotReady(key, partial(_failure_of, region.prepare), finish, remote=True)

    def remove(self, name: str) -> None:
        """Forget a region; what is in it stays there. Raises NotFound, Busy."""
        if self.named(name) == "":
            raise InvalidArgument(f"{LOCAL} is the store itself: it cannot be forgotten")
        for copying in self._copies.values():
            if name in (copying.region, copying.origin):
                raise Busy(f"Image {copying.name} is being copied to or from region {name}")
        self._catalog.remove_region(name)
        self._looks.pop(name, None)
        self._wanted.discard(name)
        self._all().forget(name)

    # -- what they list -----------------------------------------------------------------

    def refresh(self, region: str, within: int) -> None:
        """Raise NotReady until the images of a region were listed less than `within` ns ago.

        Does not fail: while a region does not answer the catalog has what was known of it.
        """
        if not region:
            return
        look = self._looks.get(region)
        if look is not None and look.failed:
            # Whoever needs a name that is known must not wait each time until it fails again.
            self._wanted.add(region)
        elif look is None or look.at + within <= self._now():
            raise self._ask(region)

    def is_away(self, region: str) -> bool:
        """Whether a region did not answer when it was asked last."""
        look = self._looks.get(region)
        return look is not None and look.failed

    def refresh_all(self, regions: Sequence[str]) -> None:
        """Raise NotReady until what is known of all of these is about as new as it can be."""
        # What was asked first is as old by the end as asking all the others takes.
        looks = [self._looks[region] for region in regions if region in self._looks]
        within = AT_ONCE + 2 * sum(look.took for look in looks)
        for region in regions:
            self.refresh(region, within)

    def changed_names(self, region: str, names: Iterable[str]) -> None:
        """To be told of images that this account changed: what a region lists that began to do so
        before says nothing about them."""
        self._changes += 1
        if region:  # nobody lists the store itself
            self._changed |= {(region, name): self._changes for name in names}

    def next_due(self) -> int | None:
        """When (ns) `due` has something; None for not before a region is needed."""
        return min((self._looks[region].at + RETRY_AFTER for region in self._wanted), default=None)

    def due(self, watched: Iterable[str] = ()) -> list[Callable[[], None]]:
        """Steps that ask regions again that did not answer when they were needed, and those
        `watched`, of which others' images are in use."""
        lasts = dict.fromkeys(filter(None, watched), LATELY)
        lasts |= dict.fromkeys(self._wanted, RETRY_AFTER)
        return [
            partial(self._ask_if_older, region, lasting)
            for region, lasting in lasts.items()
            if self._is_older(region, lasting)
        ]

    def _is_older(self, region: str, lasting: int) -> bool:
        look = self._looks.get(region)
        return look is None or look.at + lasting <= self._now()

    def _ask_if_older(self, region: str, lasting: int) -> None:
        if self._catalog.region(region) is None:  # another process has forgotten it
            self._wanted.discard(region)
        elif self._is_older(region, lasting):
            raise self._ask(region)

    def _ask(self, region: str) -> NotReady:
        asked = self.open(region)
        listing = partial(_result_of, partial(asked.listing, self._account))
        finish = partial(self._listed, asked, self._now(), self._changes)
        return NotReady(("refresh", region), listing, finish, remote=True)

    def deleted(self, regions: Iterable[str]) -> dict[str, list[Image]]:
        """The account's images that were deleted in each of these regions and can be brought
        back."""
        keys = {region: ("deleted", region) for region in regions if region}
        # None is taken before all are there: else they would be asked for anew.
        for region, key in keys.items():
            if key not in self._results:
                self.once(key, partial(self.open(region).deleted, self._account))
        return {region: self._results.pop(key) for region, key in keys.items()}

    def _listed(
        self, asked: Region, began: int, changes: int, listing: Listing | ImagefsError
    ) -> None:
        region, now = asked.name, self._now()
        known = self._catalog.region(region)
        if known is None or known.url != asked.url:
            return  # it was forgotten meanwhile
        before = self._looks.get(region)
        self._wanted.discard(region)
        failed = isinstance(listing, ImagefsError)
        self._looks[region] = _Look(now, max(0, now - began), failed)
        if isinstance(listing, ImagefsError):
            if before is None or not before.failed:
                log.warning("Region %s cannot be listed: %s", region, listing)
            self._catalog.note_refreshed(region, None, str(listing))
            return
        complaints = self._complaints.setdefault(region, Complaints(log, region))
        rows = self._catalog.mirror(
            region, self._account, images_of(listing, complaints), shares_of(listing, complaints),
            now, changed=self._changed_since(region, changes),
        )  # fmt: skip
        if rows:
            self.changed(rows)
        if _is_news(known, now):
            self._catalog.note_refreshed(region, now, None)

    def _changed_since(self, region: str, changes: int) -> set[str]:
        """The images of a region that were changed after so many changes; those before are
        forgotten, because one listing at a time is under way."""
        for key, change in list(self._changed.items()):
            if key[0] == region and change <= changes:
                del self._changed[key]
        return {name for where, name in self._changed if where == region}

    # -- what is done to them -----------------------------------------------------------

    def clean(self, name: str, retain: int, *, dry_run: bool) -> GcReport:
        """Remove from a region what was deleted longer than `retain` ns ago and nothing needs."""
        place = self.named(name)
        if not place:
            raise NotPermitted(f"{LOCAL} is the store itself: regions alone are cleaned this way")
        region = self.open(place)

        def work() -> GcReport:
            if not dry_run:
                # As late as can be: this may have waited for long.
                region.unuse(self._catalog.manifests_needed_now(place))
            return region.gc(retain, dry_run=dry_run)

        return self.once(("gc", place, retain, dry_run), work, lasting=True)

    # -- copies -------------------------------------------------------------------------

    def plan(self, image: TreeRow, destination: str) -> Plan:
        """What a copy of a sealed image to a region would have to bring there."""
        assert image.manifest is not None
        plan: Callable[..., Plan] = (
            self.open(destination).plan if destination else self._all().plan_bringing
        )
        work = partial(plan, image.manifest)
        return self.once(("plan", image.number, destination), work, lasting=True)

    def sending(
        self, source: TreeRow | None, region: str, name: str, created: int, parent: str | None
    ) -> Copying:
        """A copy to a region, to be run by a worker thread once the tree is stored.

        `source` is what the tree is made from, None for something new. Registers the copy:
        `Copying.over` is to be called on the loop's thread in the end.
        """
        based = source is not None and source.region == region
        base = source.manifest if source is not None and based else None
        there = self.open(region)

        def send(copying: Copying, sealed: Sealed) -> None:
            try:
                there.send(
                    self._account, name, sealed.manifest, entries=sealed.entries,
                    size=sealed.bytes, created=created, parent=parent, base=base,
                    tell=copying.tell, cancelled=copying.is_cancelled,
                )  # fmt: skip
            except Exists:
                # It may be this one: published, and then came a crash, or the answer was lost.
                if not _has(there.listing(self._account), self._account, name, sealed, created):
                    raise

        return self._register(source, region, name, send)

    def bringing(self, source: TreeRow, name: str) -> Copying:
        """A copy from a region to the store itself, like `sending`."""
        regions = self._all()

        def bring(copying: Copying, sealed: Sealed) -> None:
            regions.bring(sealed.manifest, copying.tell, copying.is_cancelled)

        return self._register(source, "", name, bring)

    def carry_out(
        self, key: Hashable, copying: Copying, sealed: Sealed, done: Callable[[], None]
    ) -> NotReady:
        """The work that makes a copy of a stored tree; `done` follows on the loop's thread."""

        def work() -> Exception | None:
            try:
                copying.run(sealed)
            except Exception as error:  # noqa: BLE001 - handed on to `finish`, which raises it
                return error
            return None

        def finish(failure: Exception | None) -> None:
            copying.over()
            if failure is not None:
                raise failure
            done()

        return NotReady(key, work, finish, lasting=True)

    def copying(self, region: str, name: str) -> Copying | None:
        """The copy under way to that name in a region."""
        return self._copies.get((region, name))

    def require_free(self, region: str, name: str) -> None:
        """Raise Busy while a copy to that name is under way."""
        if (region, name) in self._copies:
            raise Busy(f"Image {name} is being copied to {region or LOCAL} already")

    def copies(self, region: str) -> list[Copying]:
        """The copies under way to a region."""
        return [copying for copying in self._copies.values() if copying.region == region]

    def require_not_copied(self, row: TreeRow) -> None:
        """Raise Busy while an image is being copied."""
        for copying in self._copies.values():
            if copying.source is not None and copying.source.number == row.number:
                raise Busy(
                    f"Image {row.name} can't be deleted while it is copied to"
                    f" {copying.region or LOCAL}: wait for that, or end it"
                )

    def progress(self, name: str, image: str) -> tuple[int, int] | None:
        """Bytes that have arrived, and how many there are to be, of the copy under way to that
        name in a region; None if there is none. Any thread."""
        copying = self.copying("" if name == LOCAL else name, image)
        return None if copying is None else (copying.done, copying.total)

    def end(self, name: str, image: str) -> None:
        """End the copy under way to that name in a region, if there is one. Any thread."""
        copying = self.copying("" if name == LOCAL else name, image)
        if copying is not None:
            copying.cancel()

    def cancel(self) -> None:
        """End all copies that are under way, and those that would begin from now on."""
        self._ending = True
        for copying in list(self._copies.values()):
            copying.cancel()

    def _register(
        self, source: TreeRow | None, region: str, name: str,
        run: Callable[[Copying, Sealed], None],
    ) -> Copying:  # fmt: skip
        key = (region, name)
        self.require_free(region, name)

        def over() -> None:
            del self._copies[key]
            self.changed_names(region, [name])

        copying = self._copies[key] = Copying(source, region, name, run, over)
        if self._ending:
            copying.cancel()
        return copying

    # -- parts --------------------------------------------------------------------------

    def open(self, name: str) -> Region:
        """The region of that name; raises NotFound."""
        row = self._catalog.region(name)
        if row is None:
            raise NotFound(f"There is no region {name} any more")
        return self._all().open(name, row.url)

    def once(self, key: Hashable, work: Callable[[], T], *, lasting: bool = False) -> T:
        """The result of work that takes a region, and changes nothing that a listing tells of:
        raises NotReady with it first."""
        if key in self._results:
            result: T = self._results.pop(key)
            return result
        finish = partial(self._results.__setitem__, key)
        raise NotReady(key, work, finish, remote=True, lasting=lasting)

    def _is_done(self, key: Hashable) -> bool:
        done = key in self._results
        self._results.pop(key, None)
        return done

    def _all(self) -> Regions:
        """All regions as the store reads from them; opened when one is first known."""
        if self._regions is None:
            from imagefs.region.region import Regions  # noqa: PLC0415 - 30 modules

            self._regions = Regions(self.store, self._disk)
            for row in self._catalog.regions():
                self._regions.open(row.name, row.url)
        return self._regions


def _has(listing: Listing, account: str, name: str, sealed: Sealed, created: int) -> bool:
    wanted = (account, name, sealed.manifest, created)
    return any(
        (image.account, image.name, image.descriptor.manifest, image.descriptor.created) == wanted
        for image in listing.images
    )


def _is_news(row: RegionRow, now: int) -> bool:
    """Whether it is worth a transaction to say that a region answered."""
    return row.failure is not None or row.refreshed is None or row.refreshed + LATELY < now


def _result_of(work: Callable[[], T]) -> T | ImagefsError:
    try:
        return work()
    except ImagefsError as error:
        return error


def _failure_of(work: Callable[[], None]) -> ImagefsError | None:
    return _result_of(work)


def _nothing(_: object) -> None:
    """Nobody is told."""
