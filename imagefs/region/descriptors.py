"""Descriptors of a region as they were fetched, so that only new ones are.

An object is new when its key, size or time is. Times may be whole seconds, so what is put in the
same second may look the same. So what was fetched is sure only when the service's clock was known
to be further by `SLACK`, or that time had passed here since it was first listed; else it is fetched
once more after that. Everything fetched is untrusted: what is no descriptor is left out and
complained about.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from imagefs.errors import Corrupt, NotFound, StoreError
from imagefs.format.region import MAX_DESCRIPTOR, Descriptor, PackName, decode_descriptor
from imagefs.model import SECOND
from imagefs.region.bucket import Bucket, Listed
from imagefs.region.complaints import Complaints
from imagefs.region.lease import boottime

log = logging.getLogger(__name__)

SLACK: Final = 2 * SECOND
_PAUSES: Final = (0.05, 0.2, 0.5)
"""Seconds before what is no descriptor is looked at again."""

_MOST_PACK_NAMES: Final = 1_000_000


class _Fetched(msgspec.Struct):
    """What lay at a key: how it was listed, what it was (`descriptor` is None for what is none), by
    `boottime` when it was first listed like this and when it was fetched, and the time `told` by
    the service until then."""

    listed: Listed
    descriptor: Descriptor | None
    seen: int
    fetched: int
    told: int

    def is_sure(self) -> bool:
        return self.fetched - self.seen >= SLACK or self.told - self.listed.modified >= SLACK


class Descriptors:
    """The descriptors of one region. Thread-safe; methods block."""

    def __init__(self, bucket: Bucket, pool: ThreadPoolExecutor, complaints: Complaints) -> None:
        self._bucket = bucket
        self._pool = pool
        self._complaints = complaints
        self._known: dict[str, _Fetched] = {}
        self._packs: dict[PackName, PackName] = {}
        self._told = 0
        """The latest time that the service told, of anything."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Descriptors {len(self._known)}>"

    def fetch(self, listed: Iterable[Listed]) -> dict[str, Descriptor]:
        """The descriptors at these keys, without those that are gone or none."""
        return {key: found for key, found in self._fetch(list(listed)) if found is not None}

    def fetch_surely(self, listed: Iterable[Listed], since: int) -> dict[str, Descriptor]:
        """The same, of each that is there: raises `Corrupt` or `StoreError` for what is none.

        What the server says was put after `since` (its time, ns) is fetched whatever is known.
        """
        wanted = list(listed)
        self.drop(one.key for one in wanted if one.modified >= since)
        found = self._fetch(wanted, strict=True)
        return {key: descriptor for key, descriptor in found if descriptor is not None}

    def drop(self, keys: Iterable[str]) -> None:
        """Forgets what lay at these keys."""
        with self._lock:
            for key in keys:
                self._known.pop(key, None)

    def keep_only(self, prefix: str, keys: Iterable[str]) -> None:
        """Forgets what lay below a prefix, other than at these keys."""
        kept = set(keys)
        with self._lock:
            gone = [key for key in self._known if key.startswith(prefix) and key not in kept]
            for key in gone:
                del self._known[key]

    # -- inside -------------------------------------------------------------------------

    def _lookup(self, listed: Listed) -> _Fetched | None:
        with self._lock:
            known = self._known.get(listed.key)
        return known if known is not None and known.listed == listed else None

    def _fetch(
        self, wanted: Sequence[Listed], *, strict: bool = False
    ) -> list[tuple[str, Descriptor | None]]:
        with self._lock:
            self._told = max([self._told, *(one.modified for one in wanted)])
        known = [self._lookup(one) for one in wanted]
        missing = [
            (one, found)
            for one, found in zip(wanted, known, strict=True)
            if found is None or not found.is_sure() or (strict and found.descriptor is None)
        ]
        futures = [self._pool.submit(self._get, one, old, strict) for one, old in missing]
        try:
            fetched = {one.key: f.result() for (one, _), f in zip(missing, futures, strict=True)}
        finally:
            for future in futures:
                future.cancel()
        old = {one.key: found.descriptor for one, found in zip(wanted, known, strict=True) if found}
        return list({**old, **fetched}.items())

    def _get(self, listed: Listed, old: _Fetched | None, strict: bool) -> Descriptor | None:
        moment, told = boottime(), self._told
        descriptor: Descriptor | None = None
        try:
            descriptor = self._patiently(listed)
        except NotFound:
            return None
        except (Corrupt, StoreError) as error:
            if strict:
                raise type(error)(f"{listed.key} cannot be read: {error}") from error
            self._complaints.say(listed.key, str(error))
        seen = moment if old is None else old.seen
        with self._lock:
            self._known[listed.key] = _Fetched(listed, descriptor, seen, moment, told)
        return descriptor

    def _patiently(self, listed: Listed) -> Descriptor:
        """What is at a key. Some services show an object before all of it is there (rclone's): what
        is no descriptor is looked at again a moment later."""
        for pause in _PAUSES:
            try:
                return self._decode(self._read(listed))
            except Corrupt:
                time.sleep(pause)
            now = self._bucket.head(listed.key)
            if now is None:
                raise NotFound(f"{listed.key} is gone")
            listed = now
        return self._decode(self._read(listed))

    def _read(self, listed: Listed) -> bytes:
        """What is there now, as far as it was listed to reach; nothing when that cannot be one."""
        if not 1 <= listed.size <= MAX_DESCRIPTOR:
            return b""
        try:
            return self._bucket.get_range(listed.key, 0, listed.size)
        except Corrupt:  # it has become shorter
            return b""

    def _decode(self, data: bytes) -> Descriptor:
        descriptor = decode_descriptor(data)
        # Images of a region share most packs: one value for each saves most of the memory.
        with self._lock:
            if len(self._packs) > _MOST_PACK_NAMES:
                self._packs.clear()
            packs = tuple(self._packs.setdefault(pack, pack) for pack in descriptor.packs)
        return msgspec.structs.replace(descriptor, packs=packs)
