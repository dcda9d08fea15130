"""Leases: how machines that share nothing but a region keep out of each other's way.

A lease is an object that says "I am at work here". Whoever wants to work puts his own and then lists:
of two that do so at once at least one sees the other. One that sees another's live lease steps
back; the one whose store's id is smaller waits a moment for the other to do so, so that
one of them goes on. A lease is renewed while the work goes on (`keep`), and dead when the server says
that it is much older than what was just put: clocks of machines are never compared. Its owner
stops to trust it long before others take it for dead, by a clock that counts sleep of the
machine, and asks (`confirm`, `still_mine`) right before what cannot be undone.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable
from typing import Self

import msgspec

from imagefs.errors import Busy, ImagefsError, NotFound
from imagefs.model import SECOND
from imagefs.region.bucket import Bucket, Listed
from imagefs.region.layout import LeaseBody, decode_lease, encode_lease

log = logging.getLogger(__name__)

_TOKEN_SIZE = 16
_ATTEMPTS = 5
_WAITS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between looks of who waits for another to step back."""

_LONGEST_RETREAT = 0.3
"""Seconds; who stepped back waits up to so long, and longer each time."""


class Terms(msgspec.Struct, frozen=True):
    """How long leases last, in ns. `slack` is how far times that one server tells may be off: many
    tell whole seconds. `settle` is how much later than its time something put may be there.
    What a store began to use `fresh` ago may be missing in what it knows that it needs; so a use
    counts as said for `said` only, well below that."""

    renew: int = 60 * SECOND
    trust: int = 300 * SECOND
    dead: int = 600 * SECOND
    slack: int = 2 * SECOND
    settle: int = 120 * SECOND
    fresh: int = 600 * SECOND
    said: int = 300 * SECOND


class LeaseLost(Busy):
    """The lease was not renewed in time or is another's now: begin again with a new one."""


class Lease:
    """One store's claim to one piece of work; a context manager that takes and returns it.

    `key` is its own, `prefix` that of all who want the same; `store_of` gives the store that a key
    there belongs to, None for what is no lease. `began` and `now` are times of the server: when it
    was first put, and when it was last renewed. Methods block and may be called from any thread.
    """

    def __init__(
        self,
        bucket: Bucket,
        key: str,
        prefix: str,
        store_of: Callable[[str], bytes | None],
        *,
        terms: Terms,
        busy: str,
    ) -> None:
        self.key = key
        self.began = 0
        self.now = 0
        self._bucket = bucket
        self._prefix = prefix
        self._store_of = store_of
        self._terms = terms
        self._busy = busy
        self._token = secrets.token_hex(_TOKEN_SIZE)
        self._renewed = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Lease {self.key}>"

    # -- taking and returning -----------------------------------------------------------

    def __enter__(self) -> Self:
        """Takes the lease; raises `Busy` when another keeps it."""
        for attempt in range(_ATTEMPTS):
            if self._try():
                return self
            time.sleep(random.uniform(0.1, 1) * _LONGEST_RETREAT * (attempt + 1))  # noqa: S311
        raise Busy(self._busy)

    def __exit__(self, *_: object) -> None:
        try:
            if self.still_mine() or self._is_ours():
                self._bucket.delete(self.key)
        except ImagefsError as error:
            log.warning("Lease %s stays until it is dead: %s", self.key, error)

    def _try(self) -> bool:
        """One attempt; afterwards the lease is there, or not there."""
        self._put()
        taken = self._outlast()
        if not taken:
            self._bucket.delete(self.key)
        return taken

    def _outlast(self) -> bool:
        """Waits for those who have to step back; False when it is we who have to.

        Raises `Busy` when they do not: then they have the lease.
        """
        mine = self._store_of(self.key)
        assert mine is not None
        for wait in (0.0, *_WAITS):
            time.sleep(wait)
            others = self._look()
            if others is None or (others and min(others) < mine):
                return False
            if not others:
                return True
        self._bucket.delete(self.key)
        raise Busy(self._busy)

    def _look(self) -> list[bytes] | None:
        """The other stores with a live lease; None when our own is not there any more."""
        found = self._bucket.list(self._prefix)
        own = next((listed for listed in found if listed.key == self.key), None)
        if own is None:
            return None
        self.began = self.began or own.modified
        self.now = own.modified
        live = [one for one in found if one.key != self.key and is_live(one, self.now, self._terms)]
        return [store for store in map(self._store_of, [one.key for one in live]) if store]

    # -- while it lasts -----------------------------------------------------------------

    def keep(self) -> None:
        """Renews the lease when that is due; to be called often, from whatever goes on.

        Raises `LeaseLost` when it is too late.
        """
        if self._age() >= self._terms.renew and self._lock.acquire(blocking=False):
            try:
                self._renew()
            finally:
                self._lock.release()

    def confirm(self) -> None:
        """Asks whether the lease is still ours; raises `LeaseLost` when it is not."""
        self.check()
        if not self._is_ours():
            raise self._lost()

    def tell_time(self) -> int:
        """Renews the lease; returns the server's time, ns since 1970."""
        with self._lock:
            self._renew()
            listed = self._bucket.head(self.key)
        if listed is None:
            raise self._lost()
        self.now = listed.modified
        return self.now

    def still_mine(self) -> bool:
        """Whether the lease was renewed a short time ago; asks nobody."""
        return self._age() < self._terms.trust

    def check(self) -> None:
        """Raises `LeaseLost` unless it is `still_mine`."""
        if not self.still_mine():
            raise self._lost()

    def _renew(self) -> None:
        self.confirm()
        self._put()

    def _is_ours(self) -> bool:
        """Whether what lies there now is of this attempt: a copy of the store has our key too."""
        try:
            return decode_lease(self._bucket.get(self.key)).token == self._token
        except NotFound:
            return False

    def _put(self) -> None:
        moment = boottime()  # before: by the server's clock it is renewed later than this
        self._bucket.put(self.key, encode_lease(LeaseBody(self._token, self.began or None)))
        self._renewed = moment

    def _age(self) -> int:
        return boottime() - self._renewed

    def _lost(self) -> LeaseLost:
        return LeaseLost(f"{self._busy} (lease {self.key} was lost)")


def is_live(listed: Listed, now: int, terms: Terms) -> bool:
    """Whether a lease that is listed like this is to be heeded; `now` is the server's time."""
    return listed.modified + terms.dead >= now


def boottime() -> int:
    """Nanoseconds by a clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
