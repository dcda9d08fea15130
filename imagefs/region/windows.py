"""Records of packs, through the windows on the local disk; fetched when they are not there.

Every object of a record is compared with its id before the record is given to anybody. Damage on
the local disk is fetched anew, damage that arrives a few times more.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from imagefs.errors import Corrupt, ImagefsError, IOFailure, NotFound, PlaceGone
from imagefs.format.record import MAX_OBJECTS, Record, decode_record, plain_length, record_size
from imagefs.model import CHUNK_SIZE
from imagefs.region.bucket import Bucket
from imagefs.region.cache import WindowCache, WindowKey
from imagefs.region.index import KnownPack, Place, RegionIndex
from imagefs.region.layout import pack_key
from imagefs.region.learning import TRIES
from imagefs.region.readahead import ReadAhead
from imagefs.store.flights import Flights

log = logging.getLogger(__name__)

Buckets = Callable[[str], Bucket | None]
"""The bucket of a region, None when there is no such region any more."""

_IN_PLACE: Final = 2 * CHUNK_SIZE
_MOST_IN_PLACE: Final = 128
"""Objects of a record that are hashed without leaving the loop's thread."""

_WORKERS: Final = 8
_MOST_WAITING: Final = 32
_MOST_PACKS: Final = 4096


class PackGone(Exception):
    """The region has the pack no longer."""


def bucket_of(buckets: Buckets, region: str) -> Bucket:
    """The bucket of a region; raises `IOFailure` when it is not one of this store any more."""
    bucket = buckets(region)
    if bucket is None:
        raise IOFailure(
            f"Region {region} is needed, and not one of this store any more: add it again"
        )
    return bucket


class Windows:
    """Thread-safe; `close` waits for requests under way."""

    def __init__(self, index: RegionIndex, cache: WindowCache, buckets: Buckets) -> None:
        self._index = index
        self._cache = cache
        self._buckets = buckets
        self._flights: Flights[WindowKey, bytes] = Flights()
        self._packs: dict[int, KnownPack] = {}
        self._ahead = ReadAhead()
        self._pool = ThreadPoolExecutor(_WORKERS, "region-ahead")
        self._waiting = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Windows: {len(self._flights)} under way, {self._waiting} ahead, {self._cache}>"

    def close(self) -> None:
        """Gives up what was to be read ahead."""
        self._pool.shutdown(cancel_futures=True)

    def pack(self, number: int) -> KnownPack:
        """The pack with that number; raises `PackGone`."""
        pack = self._packs.get(number)
        if pack is None:
            pack = self._index.pack(number)
            if pack is None:
                raise PackGone
            if len(self._packs) >= _MOST_PACKS:
                self._packs.clear()
            self._packs[number] = pack
        return pack

    def forget(self) -> None:
        """Which packs are in the index is asked for anew."""
        self._packs.clear()

    # -- what is on the local disk ------------------------------------------------------

    def holds(self, place: Place) -> bool:
        """Whether the window is on the local disk, good or not."""
        return self._cache.holds(_key(self.pack(place.pack), place))

    def in_place(self, place: Place) -> Record | None:
        """The record if that takes no waiting; damage is left to the blocking way."""
        if place.size > _IN_PLACE:
            return None
        key = _key(self.pack(place.pack), place)
        data = self._cache.read_nowait(key, place.offset - place.window, place.size)
        if data is None or record_size(data) is None or plain_length(data) > _IN_PLACE:
            return None
        record = _good(data, _MOST_IN_PLACE)
        if record is not None:
            self._notice(place)
        return record

    def local(self, place: Place) -> Record | None:
        """The record if the local disk has it. Blocks. A window with a bad record is removed."""
        key = _key(self.pack(place.pack), place)
        data = self._cache.read(key, place.offset - place.window, place.size)
        if data is None:
            return None
        record = _good(data)
        if record is None:
            self._cache.drop(key)
        return record

    # -- what the region has ------------------------------------------------------------

    def load(self, place: Place) -> Record:
        """The record at a place. Blocks, maybe for long.

        Raises `PackGone`, `Corrupt` when it arrives damaged every time, and what the bucket raises.
        """
        record = self.local(place)
        pack = self.pack(place.pack)
        key = _key(pack, place)
        for _ in range(TRIES):
            if record is not None:
                self._notice(place)
                return record
            try:
                data = self._fetch(pack, key, place.span)
            except Corrupt as error:
                log.info("Fetched again: %s", error)
                continue
            start = place.offset - place.window
            record = _good(data[start : start + place.size])
            if record is None:
                self._cache.drop(key)
        if record is None:
            raise Corrupt(
                f"The record at offset {place.offset} of pack {pack.name.id.hex()} in region"
                f" {pack.region} is damaged"
            )
        return record

    def _fetch(self, pack: KnownPack, key: WindowKey, size: int) -> bytes:
        return self._flights.get(key, partial(self._fetch_now, pack, key, size))

    def _fetch_now(self, pack: KnownPack, key: WindowKey, size: int) -> bytes:
        data = self._cache.read(key, 0, size)  # another thread may have been faster
        if data is not None:
            return data
        bucket = bucket_of(self._buckets, pack.region)
        try:
            data = bucket.get_range(pack_key(pack.name), key.offset, size)
        except PlaceGone:
            raise  # a stick that is not there has lost nothing
        except NotFound as error:
            raise PackGone from error
        self._cache.put(key, data)
        return data

    # -- ahead --------------------------------------------------------------------------

    def _notice(self, place: Place) -> None:
        wanted = self._ahead.seen(place.pack, place.window, place.span)
        if wanted is not None and self._waiting < _MOST_WAITING:
            self._submit(partial(self._go_ahead, place.pack, *wanted))

    def _submit(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._waiting += 1
        try:
            self._pool.submit(self._run, work)
        except RuntimeError:  # closed meanwhile
            self._waiting = 0

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (ImagefsError, PackGone) as error:
            # Whoever needs it gets the error.
            log.info("Reading ahead in a region failed: %s", error)
        finally:
            with self._lock:
                self._waiting -= 1

    def _go_ahead(self, number: int, start: int, end: int) -> None:
        pack = self.pack(number)
        for offset, size in self._index.windows(number, start, _MOST_WAITING):
            if offset >= end:
                break
            key = WindowKey(pack.name.id, offset)
            if key not in self._flights and not self._cache.holds(key):
                self._submit(partial(self._fetch_ahead, pack, key, size))

    def _fetch_ahead(self, pack: KnownPack, key: WindowKey, size: int) -> None:
        self._fetch(pack, key, size)


def _key(pack: KnownPack, place: Place) -> WindowKey:
    return WindowKey(pack.name.id, place.window)


def _good(data: bytes, most: int = MAX_OBJECTS) -> Record | None:
    """The record that these bytes are, if each of its objects has the id that it says and there
    are at most so many."""
    try:
        record = decode_record(data)
    except Corrupt:
        return None
    return record if record.count <= most and record.ids_match() else None
