"""Cleaning a region: packs that nothing needs go, also while machines copy and delete there.

What must never happen is that a pack goes that an image, a deleted image within the retention or a use
needs, now or in a moment. Those that may come to need a pack are copies, which count on packs that
are there, and who brings an image back or begins to use one.

Order of reads and writes of a gc:

 1. its lease `cleaning/`: one gc at a time; renewed on the way, asked before everything that
    cannot be undone; its Last-Modified is the server's time
 2. leases of copies that are dead are removed
 3. list `condemned/`, then `packs/`
 4. deleted images older than the retention are removed
 5. list and read `images/`, `deleted/`, `uses/`: what they name is needed
 6. what condemns a needed or vanished pack is removed; a pack that is not needed and old enough is
    condemned. **The time of a condemnation is that of its object**
 7. renew the lease; list `copies/` (G): a live lease that began before a condemnation, or little later, or
    does not know when it began, protects that pack until a later gc
 8. list and read `images/`, then `deleted/`, then `uses/`, anew (R): what they name is protected
 9. each condemned pack that nothing protects is deleted, then what condemned it

Order of a copy: its lease (L); list `condemned/`, then `packs/` (C); it counts on the packs that are in
the second and not in the first; the descriptor; the lease goes.

Why nothing that is needed goes. Say step 9 deletes pack P, condemned at time T, and a copy counts on P.
The copy did not see the condemnation at C, so C was before T, or after P's condemnation was removed. In
the first case L was before T. At G the lease was there, live, and protected P; or it was gone
because the copy had ended, then its descriptor was there at R and protected P; or the lease was dead: then
the copy does not trust it any more, and does not publish. In the second case the condemnation was removed
by step 6 or 9 of a gc. After step 9 P is gone, and the copy, which lists packs after
condemnations, does not see it. At step 6 P was needed, and one gc runs at a time, so T is of a later one,
after C: the first case. Bringing back and renaming are copies that send nothing: they hold the lease of the new
name and look at `condemned/` and `packs/` under it; what they need and is condemned they pardon, as step 6 does, holding
the lease `cleaning/`, so no gc is between 6 and 9. Deleting puts `deleted/` before it removes `images/`, so R, which lists them
in this order, sees one of them. A use is put (U) and then looks: it stands when its image is still
there with the same bytes, or else when its packs are there and not condemned. When R listed
`uses/` before U, R had listed `images/` before that; an image that is there after U and needs P was there
then and protected P, or was published since by a copy that counts on P, see above. And packs that
are looked at after U are condemned, if step 9 is going to delete them.

No key of a pack comes back: packs have random bytes in them. So a delete that arrives late hits
nothing. A crash, or an error, after any step leaves: condemnations of packs that are there (the next gc
goes on with them, or removes them when they are needed again), or of packs that are gone (the next
gc removes them); and a lease, dead some minutes later.

An object that should be a descriptor and cannot be read stops a gc before it removes a pack: nobody knows
what it needs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from imagefs.errors import Busy, NotFound
from imagefs.format.region import PackName
from imagefs.region.bucket import Bucket, Listed
from imagefs.region.descriptors import Descriptors
from imagefs.region.layout import (
    CLEANING,
    CONDEMNED,
    COPIES,
    DELETED,
    IMAGES,
    USES,
    cleaning_key,
    condemned_key,
    decode_lease,
    pack_key,
    parse_cleaning,
    parse_deleted,
    parse_image,
    parse_lease,
    parse_use,
)
from imagefs.region.lease import Lease, Terms, boottime, is_live
from imagefs.region.packs import listed_packs, require_packs
from imagefs.region.values import GcReport

log = logging.getLogger(__name__)

_AT_ONCE: Final = 64
_Item = TypeVar("_Item")

_NAMING: Final[tuple[tuple[str, Callable[[str], object]], ...]] = (
    (IMAGES, parse_image),
    (DELETED, parse_deleted),
    (USES, parse_use),
)
"""What names packs, in the order in which it is read."""


def cleaning(bucket: Bucket, region: str, store: bytes, terms: Terms) -> Lease:
    """The lease to hold while one takes out what is condemned, or what condemns."""
    busy = f"Region {region} is being cleaned by another machine: wait until it has ended and try again"
    return Lease(bucket, cleaning_key(store), CLEANING, parse_cleaning, terms=terms, busy=busy)


def pardon(bucket: Bucket, lease: Lease, packs: Collection[PackName], what: str) -> None:
    """Takes back that packs are condemned, because something is about to need them: who holds its
    own lease for that, and the one for cleaning. Raises `Corrupt` when any of them is gone.

    No gc is under way, so none is about to delete them; a later one sees who needs them.
    """
    require_packs(packs, listed_packs(bucket), what)
    for pack in packs:
        lease.keep()
        lease.check()
        bucket.delete(condemned_key(pack))


class Cleaner:
    """One gc of one region; `run` or `preview` it once. Blocks.

    `retain` is in ns: what was deleted, or put and never named, later than that ago is kept.
    """

    def __init__(
        self,
        bucket: Bucket,
        region: str,
        descriptors: Descriptors,
        pool: ThreadPoolExecutor,
        terms: Terms,
        retain: int,
    ) -> None:
        self._bucket = bucket
        self._pool = pool
        self._region = region
        self._descriptors = descriptors
        self._terms = terms
        self._retain = retain

    def __repr__(self) -> str:
        return f"<Cleaner of region {self._region}>"

    def preview(self) -> GcReport:
        """What a gc would remove at most, by the clock of this machine. Changes nothing."""
        now = time.time_ns()
        condemned = listed_packs(self._bucket, CONDEMNED)
        packs = listed_packs(self._bucket)
        old = [one.key for one in self._old_images(now)]
        needed = self._needed(now, without=frozenset(old))
        gone = [
            listed.size
            for pack, listed in packs.items()
            if pack not in needed and (pack in condemned or self._is_old(listed, now))
        ]
        return GcReport(len(gone), sum(gone), len(old))

    def run(self, lease: Lease) -> GcReport:
        """Cleans, holding the lease for it. Raises `LeaseLost` when this machine slept, `Corrupt` or
        `StoreError` when what the region needs cannot be read; what was not done then, the next
        gc does."""
        begun = lease.now
        self._bury(lease)
        condemned = listed_packs(self._bucket, CONDEMNED)
        packs = listed_packs(self._bucket)
        old = self._old_images(lease.now)
        self._each(lease, lambda listed: self._bucket.delete(listed.key), old)
        candidates = self._condemn(lease, condemned, packs, self._needed(begun))
        began = self._oldest_copy(lease.tell_time())
        condemned = listed_packs(self._bucket, CONDEMNED)
        needed = self._needed(begun)
        free = [pack for pack in candidates if pack in condemned and pack not in needed]
        gone = [pack for pack in free if self._is_later(condemned[pack], began)]
        self._each(lease, self._execute, gone)
        size = sum(packs[pack].size for pack in gone)
        return GcReport(len(gone), size, len(old), len(free) - len(gone))

    def _bury(self, lease: Lease) -> None:
        """Removes the leases of copies that are dead."""
        for listed in self._leases():
            if not is_live(listed, lease.now, self._terms):
                log.info("Lease %s in region %s is dead", listed.key, self._region)
                self._bucket.delete(listed.key)

    def _old_images(self, now: int) -> list[Listed]:
        """Deleted images that nobody can ask for any more."""
        return [
            listed
            for listed in self._bucket.list(DELETED)
            if parse_deleted(listed.key) is not None and self._is_old(listed, now)
        ]

    def _needed(self, since: int, without: frozenset[str] = frozenset()) -> set[PackName]:
        """The packs that anything names; what was put after `since` is read again."""
        needed: set[PackName] = set()
        for prefix, parse in _NAMING:
            listed = [
                one
                for one in self._bucket.list(prefix)
                if parse(one.key) is not None and one.key not in without
            ]
            self._descriptors.keep_only(prefix, (one.key for one in listed))
            found = self._descriptors.fetch_surely(listed, since - self._terms.slack)
            for descriptor in found.values():
                needed.update(descriptor.packs)
        return needed

    def _is_old(self, listed: Listed, now: int) -> bool:
        return listed.modified + self._retain <= now

    def _condemn(
        self,
        lease: Lease,
        condemned: dict[PackName, Listed],
        packs: dict[PackName, Listed],
        needed: set[PackName],
    ) -> list[PackName]:
        """Makes condemnations be as they should; returns the packs that are condemned."""
        pardoned = [pack for pack in condemned if pack in needed or pack not in packs]
        self._each(lease, lambda pack: self._bucket.delete(condemned_key(pack)), pardoned)
        free = {pack: listed for pack, listed in packs.items() if pack not in needed}
        new = [
            pack
            for pack, listed in free.items()
            if pack not in condemned and self._is_old(listed, lease.now)
        ]
        self._each(lease, self._condemn_one, new)
        return [*new, *(pack for pack in free if pack in condemned)]

    def _condemn_one(self, pack: PackName) -> None:
        begun = boottime()
        self._bucket.put(condemned_key(pack), b"")
        if boottime() - begun > self._terms.settle:  # its time says nothing about when it was there
            self._bucket.delete(condemned_key(pack))
            raise Busy(f"Region {self._region} is too slow to be cleaned: try again later")

    def _execute(self, pack: PackName) -> None:
        self._bucket.delete(pack_key(pack))
        self._bucket.delete(condemned_key(pack))

    def _each(self, lease: Lease, work: Callable[[_Item], None], items: Sequence[_Item]) -> None:
        """Does what cannot be undone, several at once, as long as the lease lasts."""

        def guarded(item: _Item) -> None:
            lease.check()
            work(item)

        for start in range(0, len(items), _AT_ONCE):
            lease.keep()
            lease.confirm()
            for _ in self._pool.map(guarded, items[start : start + _AT_ONCE]):
                pass

    # -- copies under way ---------------------------------------------------------------

    def _oldest_copy(self, now: int) -> int | None:
        """When the oldest of the copies that are under way began; None when there are none."""
        live = [one for one in self._leases() if is_live(one, now, self._terms)]
        return min((self._began(one) for one in live), default=None)

    def _is_later(self, condemnation: Listed, began: int | None) -> bool:
        """Whether every copy under way, the oldest of which began then, saw a condemnation."""
        return began is None or began > condemnation.modified + self._terms.settle

    def _began(self, listed: Listed) -> int:
        try:
            return decode_lease(self._bucket.get(listed.key)).began or 0
        except NotFound:
            return 0

    def _leases(self) -> Iterator[Listed]:
        for listed in self._bucket.list(COPIES):
            if parse_lease(listed.key) is not None:
                yield listed
