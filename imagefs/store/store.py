"""The store: objects by id, for everybody above.

`get` blocks and is for worker threads; `get_nowait` never waits for the disk and is for the
loop's thread: what is neither in the cache nor in the host's page cache is asked for with
`NotReady`. Both verify what they read. Several processes may have one store open.

Objects that the packs lack, or have damaged, are asked for upstream when there is one.
Everything else here (what the store contains, what a writer need not store) is about the
store's own packs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from imagefs.disk import Disk
from imagefs.errors import Corrupt, ImagefsError, IOFailure, NotReady
from imagefs.format.record import (
    PACK_HEADER_SIZE,
    Record,
    check_pack_header,
    decode_record,
    plain_length,
    record_size,
)
from imagefs.model import CHUNK_SIZE, ObjectId
from imagefs.store import layout, recovery, reserve
from imagefs.store.cache import RecordCache, RecordKey
from imagefs.store.grouping import is_well_filled
from imagefs.store.index import Index, Location
from imagefs.store.packs import Packs
from imagefs.store.upstream import Upstream
from imagefs.store.writer import StoreWriter

log = logging.getLogger(__name__)

DEFAULT_CACHE = 32 * 1024 * 1024
_IN_PLACE = 2 * CHUNK_SIZE
_MAX_LOCATIONS = 8192
_MAX_FAILURES = 64
_MAX_REPLACED = 1024
_WORKERS = 2


class StoreStatistics(msgspec.Struct, frozen=True):
    """Numbers for status and tests; `objects` counts an object each time it was stored."""

    packs: int
    pack_bytes: int
    objects: int
    damaged_records: int
    cached_records: int
    cached_bytes: int
    cache_hits: int
    loads: int


class StoredRecord(NamedTuple):
    """A record as it lies in a pack, and the objects in it."""

    data: bytes
    kind: int
    objects: tuple[ObjectId, ...]


class Store:
    """An open store. Thread-safe; `close` it when none of its methods is running."""

    def __init__(self, path: Path, packs: Packs, index: Index, cache_bytes: int) -> None:
        self.path = path
        self.upstream: Upstream | None = None
        """Where to ask for what the packs lack."""
        self._packs = packs
        self._index = index
        self._cache = RecordCache(cache_bytes)
        self._locations: dict[ObjectId, Location] = {}
        self._damaged = index.damaged()
        self._failures: dict[ObjectId, Corrupt] = {}
        self._replaced: set[ObjectId] = set()
        self._pool: ThreadPoolExecutor | None = None
        self._pool_lock = threading.Lock()

    # -- opening and closing ------------------------------------------------------------

    @classmethod
    def create(
        cls, path: Path, disk: Disk | None = None, *, cache_bytes: int = DEFAULT_CACHE
    ) -> Store:
        """Makes an empty store and opens it. A crash leaves nothing or a store.

        Raises `Exists` when there is a store, `StoreError` when something else is in the way.
        """
        disk = disk or Disk()
        layout.create(path, disk)
        return cls.open(path, disk, cache_bytes=cache_bytes)

    @classmethod
    def open(
        cls, path: Path, disk: Disk | None = None, *, cache_bytes: int = DEFAULT_CACHE
    ) -> Store:
        """Opens a store, after indexing what a crash left unindexed.

        Raises `StoreError` when it cannot be used; the message says why and what to do.
        """
        disk = disk or Disk()
        layout.check(path, disk)
        reserve.settle(layout.reserve(path), disk)
        packs = Packs(layout.packs(path), disk)
        return cls(path, packs, recovery.open_index(path, packs), cache_bytes)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        self._index.close()
        self._packs.close()
        self._cache.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Store {self.path}, {self._cache}, {len(self._damaged)} records damaged>"

    def statistics(self) -> StoreStatistics:
        sizes = self._packs.sizes()
        return StoreStatistics(
            packs=len(sizes),
            pack_bytes=sum(sizes.values()),
            objects=self._index.object_count(),
            damaged_records=len(self._damaged),
            cached_records=len(self._cache),
            cached_bytes=self._cache.bytes,
            cache_hits=self._cache.hits,
            loads=self._cache.loads,
        )

    def release_reserve(self) -> bool:
        """Frees some space on a full disk, for who has to delete; False when there is none."""
        return reserve.release(layout.reserve(self.path), self._packs.disk)

    # -- reading ------------------------------------------------------------------------

    def __contains__(self, oid: ObjectId) -> bool:
        """Whether the store has an object and does not know its record to be damaged."""
        location = self._index.find(oid)
        return location is not None and (location.pack, location.offset) not in self._damaged

    def get(self, oid: ObjectId) -> bytes:
        """The bytes of an object; blocks. Raises `Corrupt` when it is missing or damaged."""
        location = self._find(oid)
        if location is None:
            return self._get_upstream(oid)
        try:
            return self._get_at(oid, location)
        except Corrupt:
            try:
                return self._get_anew(oid, location)
            except Corrupt as error:
                return self._get_upstream(oid, error)

    def inspect(self, oid: ObjectId) -> bytes:
        """Like `get` for who looks for damage: what upstream has does not make up for it."""
        location = self._find(oid)
        if location is None:
            return self._get_upstream(oid)
        try:
            return self._get_at(oid, location)
        except Corrupt:
            return self._get_anew(oid, location)

    def get_nowait(self, oid: ObjectId) -> bytes:
        """The same without waiting for the disk, else raises `NotReady`; take it again then."""
        location = self._find(oid)
        if location is None:
            return self._get_upstream(oid, wait=False)
        key = (location.pack, location.offset)
        record = self._cache.get(key) or self._read_in_place(key, location)
        data = None if record is None else record.object(location.ordinal, oid)
        if data is not None:
            return data
        failure = self._failures.pop(oid, None)
        if failure is not None:
            return self._get_upstream(oid, failure, wait=False)
        raise NotReady(("record", *key), partial(self._fetch, oid))

    def missing(self, oids: Iterable[ObjectId]) -> list[NotReady]:
        """For reading ahead: what to do so that these objects are in the cache, in order.

        Each record is named once; objects that are there, or that nobody stored, are left out.
        Those to be fetched from upstream come last.
        """
        loads: dict[RecordKey, NotReady] = {}
        elsewhere: list[ObjectId] = []
        for oid in oids:
            location = self._find(oid)
            if location is None:
                elsewhere.append(oid)
                continue
            key = (location.pack, location.offset)
            if key not in loads and not self._cache.holds(key):
                loads[key] = NotReady(("record", *key), partial(self._fetch, oid))
        found = list(loads.values())
        if elsewhere and self.upstream is not None:
            found += self.upstream.missing(elsewhere)
        return found

    def record_at(self, oids: Sequence[ObjectId], start: int) -> StoredRecord | None:
        """The record that holds exactly the objects from `start` on, in their order, as many as it
        has; None when they lie otherwise, or the record is damaged, not well filled or not here.

        Blocks. Every object in it was compared with its id.
        """
        location = self._find(oids[start])
        if location is None or location.ordinal:
            return None
        key = (location.pack, location.offset)
        record = self._cache.get(key)
        if record is not None and not _begins_with(oids, start, record):
            return None
        try:
            data = self._packs.read(location.pack, location.size, location.offset)
            record = decode_record(data)
        except Corrupt:
            return None
        if not _begins_with(oids, start, record) or not record.ids_match():
            self._cache.put(key, record)
            return None
        return StoredRecord(data, record.kind, tuple(oids[start : start + record.count]))

    def stored_size(self, oids: Iterable[ObjectId]) -> int:
        """Bytes of the records that hold these objects, each record counted once."""
        locations = filter(None, map(self._find, oids))
        return sum({(place.pack, place.offset): place.size for place in locations}.values())

    def _find(self, oid: ObjectId) -> Location | None:
        location = self._locations.get(oid)
        if location is None:
            location = self._index.find(oid)
            if location is not None:
                if len(self._locations) >= _MAX_LOCATIONS:
                    self._locations.clear()
                self._locations[oid] = location
        return location

    def _get_upstream(
        self, oid: ObjectId, failure: Corrupt | None = None, *, wait: bool = True
    ) -> bytes:
        """What upstream has; `failure` says how the packs failed, None when they lack it."""
        data = None
        if self.upstream is not None:
            try:
                data = self.upstream.get(oid) if wait else self.upstream.get_nowait(oid)
            except NotReady:
                if failure is not None:
                    self._keep_failure(oid, failure)
                raise
            except ImagefsError as error:
                if failure is None:
                    raise
                raise failure from error
        if data is None:
            raise failure or self._lacking(oid)
        if failure is not None:
            self._tell_replaced(oid, failure)
        return data

    def _tell_replaced(self, oid: ObjectId, failure: Corrupt) -> None:
        """Damage that upstream makes up for is told all the same, once."""
        if oid not in self._replaced:
            if len(self._replaced) >= _MAX_REPLACED:
                self._replaced.clear()
            self._replaced.add(oid)
            log.warning("%s; it is read from a region instead", failure)

    def _lacking(self, oid: ObjectId) -> Corrupt:
        return Corrupt(f"Object {oid.hex()} is missing from store {self.path}")

    def _get_at(self, oid: ObjectId, location: Location) -> bytes:
        key = (location.pack, location.offset)
        try:
            record = self._cache.load(key, partial(self._load, location))
        except Corrupt as error:
            raise _unreadable(oid, location, error) from error
        data = record.object(location.ordinal, oid)
        if data is None:
            wrong = Corrupt("the index points to another object; delete index.db to rebuild it")
            raise _unreadable(oid, location, wrong)
        return data

    def _get_anew(self, oid: ObjectId, location: Location) -> bytes:
        """An object that cannot be read at a location: it may have been stored anew since."""
        self._locations.pop(oid, None)
        newer = self._find(oid)
        return self._get_at(oid, location if newer is None else newer)

    def _read_in_place(self, key: RecordKey, location: Location) -> Record | None:
        """The record if that takes no waiting; damage is left to the blocking way."""
        if location.size > _IN_PLACE or self._cache.is_loading(key):
            return None
        try:
            data = self._packs.read_nowait(location.pack, location.size, location.offset)
            if data is None or record_size(data) is None or plain_length(data) > _IN_PLACE:
                return None
            record = decode_record(data)
        except Corrupt:
            return None
        self._cache.put(key, record)
        return record

    def _load(self, location: Location) -> Record:
        try:
            return decode_record(self._packs.read(location.pack, location.size, location.offset))
        except Corrupt:
            self._note_damage((location.pack, location.offset))
            raise

    def _fetch(self, oid: ObjectId) -> None:
        """The work of `NotReady`: afterwards `get_nowait` gives the object or its damage.

        Damage is not raised here but kept for whoever takes the step again, so that the error
        rises in the step, which knows what the object is for. Upstream is not asked here: that
        is work for other threads.
        """
        location = self._find(oid)
        if location is None:
            return
        try:
            self._get_at(oid, location)
        except Corrupt as error:
            self._locations.pop(oid, None)
            if self._find(oid) == location:
                self._keep_failure(oid, error)

    def _keep_failure(self, oid: ObjectId, error: Corrupt) -> None:
        if len(self._failures) >= _MAX_FAILURES:
            self._failures.clear()
        self._failures[oid] = error

    # -- damage -------------------------------------------------------------------------

    def report_damage(self, oid: ObjectId) -> None:
        """Says that the stored copy of an object is bad: the next put stores it anew."""
        self._locations.pop(oid, None)
        location = self._index.find(oid)
        if location is not None:
            self._cache.drop((location.pack, location.offset))
            self._note_damage((location.pack, location.offset))

    def _note_damage(self, key: RecordKey) -> None:
        if key in self._damaged:
            return
        self._damaged.add(key)
        try:
            self._index.add_damage([key])
        except ImagefsError as error:
            log.warning("Damage at offset %s of pack %s is not recorded: %s", key[1], key[0], error)

    def objects(self) -> int:
        """Objects that can be found, each counted once; reads the whole index."""
        return self._index.stored()

    def check_index(self) -> list[str]:
        """What is wrong with the index as a database, one sentence each. Blocks."""
        try:
            found = self._index.check()
        except Corrupt as error:
            return [str(error)]
        advice = "delete it while no imagefs runs on this store, it is rebuilt from the packs"
        return [f"Index {layout.index(self.path)} is damaged ({line}): {advice}" for line in found]

    def check_packs(self) -> list[str]:
        """What is wrong with packs as files: missing, cut short, no header. Blocks."""
        # In this order, because packs grow before the index says so.
        indexed = self._index.indexed()
        sizes = self._packs.sizes()
        found = [
            f"Pack {self._packs.path(number)} is missing"
            for number, end in indexed.items()
            if number not in sizes and end > PACK_HEADER_SIZE
        ]
        for number, size in sizes.items():
            end = indexed.get(number, 0)
            if size < end:
                found.append(f"Pack {self._packs.path(number)} ends at {size} of {end} bytes")
            elif end:  # what was never indexed nobody counts on
                try:
                    check_pack_header(self._packs.read(number, PACK_HEADER_SIZE, 0))
                except (Corrupt, IOFailure) as error:
                    found.append(f"Pack {self._packs.path(number)} has a damaged header: {error}")
        return found

    # -- writing ------------------------------------------------------------------------

    def writer(self) -> StoreWriter:
        """A writer with packs of its own; several may be at work, in several processes."""
        self._damaged |= self._index.damaged()
        with self._pool_lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_WORKERS, "store")
        return StoreWriter(self._packs, self._index, self._pool, self._damaged)


def _unreadable(oid: ObjectId, location: Location, error: Corrupt) -> Corrupt:
    return Corrupt(
        f"Object {oid.hex()} is damaged in pack {location.pack} at offset {location.offset}: {error}"
    )


def _begins_with(oids: Sequence[ObjectId], start: int, record: Record) -> bool:
    """Whether the objects from `start` on are those of a record that is worth keeping together."""
    if not is_well_filled(len(record.plain)):
        return False
    return [oid for oid, _ in record.objects()] == list(oids[start : start + record.count])
