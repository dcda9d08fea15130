"""What a store reads from regions: the objects of trees that its own packs lack.

Decoded records are kept in memory, windows of packs on the local disk, and the index of regions
says where to look. Which packs a tree needs is learned when its manifest is asked for: then the
indexes of its packs are fetched, once. Nothing is asked of a region that no tree asks for.

Every method may be called from any thread. Which regions there are, `buckets` says.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from imagefs.disk import Disk
from imagefs.errors import Corrupt, ImagefsError, NotReady
from imagefs.format.record import Record
from imagefs.format.region import Descriptor
from imagefs.model import ObjectId
from imagefs.region.cache import WindowCache, WindowKey
from imagefs.region.index import Place, RegionIndex
from imagefs.region.learning import learn
from imagefs.region.windows import Buckets, PackGone, Windows, bucket_of
from imagefs.store.cache import RecordCache, RecordKey
from imagefs.store.flights import Flights

log = logging.getLogger(__name__)

DEFAULT_MEMORY: Final = 32 * 1024 * 1024
_KEEP: Final = 4
"""Records kept whatever their size: others may have made them as large as can be."""

_MAX_PLACES: Final = 8192
_MAX_FAILURES: Final = 64
_AGAIN: Final = 30.0
"""Seconds until it is tried again to learn a tree of which packs were gone or damaged."""
_LOOK: Final = 1.0
"""Seconds at least between two looks at what others know, for objects that nobody has."""


class UpstreamStatistics(msgspec.Struct, frozen=True):
    """Decoded records and their bytes in memory; windows found on disk, not found there, and
    removed to make room; trees of which it is not known yet where all objects are."""

    cached_records: int
    cached_bytes: int
    windows_hit: int
    windows_missed: int
    windows_evicted: int
    unlearned: int


class RegionUpstream:
    """The regions of one store as its `upstream`; `close` it when none of its methods runs."""

    def __init__(
        self, index: RegionIndex, cache: WindowCache, buckets: Buckets, memory: int = DEFAULT_MEMORY
    ) -> None:
        self.index = index
        self.cache = cache
        self._buckets = buckets
        self._windows = Windows(index, cache, buckets)
        self._records = RecordCache(memory, _KEEP)
        self._places: dict[ObjectId, list[Place]] = {}
        self._failures: dict[ObjectId, ImagefsError] = {}
        self._unreadable: set[tuple[int, int]] = set()
        """Windows that the local disk could not give, and may not be able to remove."""
        self._unlearned: dict[ObjectId, list[str]] = {}
        """Trees that some regions have, of none of which all packs are in the index."""
        self._flights: Flights[ObjectId | None, None] = Flights()
        self._tried: dict[ObjectId, float] = {}
        """Trees that could not be learned completely, and when that is to be tried again."""
        self._known: set[tuple[str, ObjectId]] = set()
        """Regions and trees that this process has seen in the index."""
        self._looked = 0.0
        self._lock = threading.Lock()
        self._look_for_unlearned()

    @classmethod
    def open(
        cls, directory: Path, disk: Disk, buckets: Buckets, *, cache_bytes: int | None = None
    ) -> RegionUpstream:
        """Opens what a store keeps of its regions, in a directory that is made when it is not
        there. `cache_bytes` bounds what is kept on disk (see `WindowCache`)."""
        with suppress(FileExistsError):
            disk.mkdir(directory)
        index, fresh = RegionIndex.make(directory / "index.db", disk)
        try:
            cache = WindowCache(directory / "cache", disk, cache_bytes)
            if fresh:
                cache.clear()
        except BaseException:
            index.close()
            raise
        return cls(index, cache, buckets)

    def close(self) -> None:
        self._windows.close()
        self.index.close()
        self._records.clear()

    def __repr__(self) -> str:
        return f"<RegionUpstream {self._records}, {self._windows}>"

    def statistics(self) -> UpstreamStatistics:
        cache = self.cache.statistics()
        return UpstreamStatistics(
            cached_records=len(self._records),
            cached_bytes=self._records.bytes,
            windows_hit=cache.hits,
            windows_missed=cache.misses,
            windows_evicted=cache.evictions,
            unlearned=len(self._unlearned),
        )

    # -- which trees are where ----------------------------------------------------------

    def remember(self, region: str, descriptors: Sequence[Descriptor]) -> None:
        """Notes that a region holds these trees, so that they can be read. Asks nobody."""
        news = self.index.remember(region, descriptors)
        if news:
            with self._lock:
                for descriptor in descriptors:
                    self._tried.pop(ObjectId(descriptor.manifest), None)
        # What is no news may have been told by another process.
        if news or any((region, found.manifest) not in self._known for found in descriptors):
            self._look_for_unlearned()

    def forget(self, region: str) -> None:
        """Takes out all of a region, its windows on disk too."""
        for pack in self.index.forget(region):
            for offset in self.cache.offsets(pack.id):
                self.cache.drop(WindowKey(pack.id, offset))
        self._renew()

    def learn(self, manifest: ObjectId) -> None:
        """Afterwards it is known where every object of a tree is, as far as regions say. Blocks.

        Nothing is done for a tree that is learned or that nobody remembered. Raises what a region
        raised that did not answer, if no other one helped.
        """
        self._flights.get(manifest, partial(self._learn_tree, manifest))

    def _learn_tree(self, manifest: ObjectId) -> None:
        failure: ImagefsError | None = None
        for region in self._unlearned.get(manifest, ()):
            try:
                if self._learn(region, [manifest]):
                    break
            except ImagefsError as error:
                failure = failure or error
        else:
            if failure is not None:
                raise failure
        self._give_up([manifest])

    def _learn_all(self) -> None:
        by_region: dict[str, list[ObjectId]] = {}
        for manifest, regions in list(self._unlearned.items()):
            by_region.setdefault(regions[0], []).append(manifest)
        for region, manifests in by_region.items():
            self._learn(region, manifests)
            self._give_up(manifests)

    def _learn(self, region: str, manifests: Sequence[ObjectId]) -> bool:
        """Learns some trees of one region; whether all their packs are in the index now."""
        found = [self.index.descriptor(region, manifest) for manifest in manifests]
        descriptors = [descriptor for descriptor in found if descriptor is not None]
        packs = [pack for descriptor in descriptors for pack in descriptor.packs]
        complete = learn(self.index, region, bucket_of(self._buckets, region), packs)
        if complete:
            for descriptor in descriptors:
                self.index.learned(region, descriptor)
        self._places.clear()
        return complete

    def _give_up(self, manifests: Iterable[ObjectId]) -> None:
        """What could not be learned is not tried again for a while."""
        until = time.monotonic() + _AGAIN
        with self._lock:
            for manifest in manifests:
                self._unlearned.pop(manifest, None)
                self._tried[manifest] = until

    def _look_for_unlearned(self) -> None:
        """Finds what there is to learn, also what other processes were told of."""
        images = self.index.images()
        now = time.monotonic()
        learned = {manifest for _, manifest, known in images if known}
        with self._lock:
            self._looked = now
            self._known = {(region, manifest) for region, manifest, _ in images}
            self._tried = {oid: until for oid, until in self._tried.items() if until > now}
            unlearned: dict[ObjectId, list[str]] = {}
            for region, manifest, _ in images:
                if manifest not in learned and manifest not in self._tried:
                    unlearned.setdefault(manifest, []).append(region)
            self._unlearned = unlearned

    def _learn_for(self, oid: ObjectId) -> None:
        """Learns the tree whose manifest this is; for any other object, all trees."""
        if oid in self._unlearned:
            self.learn(oid)
        else:
            self._flights.get(None, self._learn_all)

    def _must_learn(self, oid: ObjectId, places: Sequence[Place]) -> bool:
        """An object that nobody is known to have may be one of a tree that was never learned: its
        manifest may have been read from another pack."""
        if not places and self._looked + _LOOK < time.monotonic():
            self._look_for_unlearned()
        return oid in self._unlearned or (not places and bool(self._unlearned))

    # -- reading ------------------------------------------------------------------------

    def get(self, oid: ObjectId) -> bytes | None:
        """See `store.upstream.Upstream`."""
        places = self._find(oid)
        if self._must_learn(oid, places):
            self._learn_for(oid)
            places = self._find(oid)
        data, failure = self._get_from(oid, places)
        if failure is not None and self._unlearned:
            self._learn_for(oid)
            others = [place for place in self._find(oid) if place not in places]
            data, _ = self._get_from(oid, others)
        if data is None and failure is not None:
            raise failure
        return data

    def _get_from(
        self, oid: ObjectId, places: Iterable[Place]
    ) -> tuple[bytes | None, ImagefsError | None]:
        """The object from the first place that has it, else why the first one has not."""
        failure: ImagefsError | None = None
        for place in places:
            try:
                return self._get_at(oid, place), None
            except PackGone:
                failure = failure or self._gone(oid, place)
            except ImagefsError as error:
                failure = failure or error
        return None, failure

    def get_nowait(self, oid: ObjectId) -> bytes | None:
        """See `store.upstream.Upstream`."""
        places = self._find(oid)
        for place in places:
            data = self._in_place(oid, place)
            if data is not None:
                return data
        failure = self._failures.pop(oid, None)
        if failure is not None:
            raise failure
        if self._must_learn(oid, places):
            raise NotReady(("learn", oid), partial(self._fetch, oid), remote=True)
        if not places:
            return None
        raise self._not_ready(oid, places)

    def missing(self, oids: Iterable[ObjectId]) -> list[NotReady]:
        """See `store.upstream.Upstream`; each window is named once."""
        loads: dict[tuple[int, int], NotReady] = {}
        for oid in oids:
            places = self._find(oid)
            if places and not self._records.holds((places[0].pack, places[0].offset)):
                key = (places[0].pack, places[0].window)
                if key not in loads:
                    loads[key] = self._not_ready(oid, places)
        return list(loads.values())

    def stored_size(self, oids: Iterable[ObjectId]) -> int:
        """Bytes of the records that hold these objects, each record counted once."""
        places = [place for oid in oids for place in self._find(oid)[:1]]
        return sum({(place.pack, place.offset): place.size for place in places}.values())

    # -- inside -------------------------------------------------------------------------

    def _find(self, oid: ObjectId) -> list[Place]:
        places = self._places.get(oid)
        if places is None:
            places = self.index.find(oid)
            if places:
                if len(self._places) >= _MAX_PLACES:
                    self._places.clear()
                self._places[oid] = places
        return places

    def _get_at(self, oid: ObjectId, place: Place) -> bytes:
        key: RecordKey = (place.pack, place.offset)
        try:
            record = self._records.load(key, partial(self._windows.load, place))
        except Corrupt as error:
            self._note_damage(key)
            raise Corrupt(f"Object {oid.hex()}: {error}") from error
        return self._take(oid, place, record)

    def _note_damage(self, key: RecordKey) -> None:
        try:
            self.index.note_damage(*key)
        except ImagefsError as error:
            log.warning("Damage at offset %s of a pack is not recorded: %s", key[1], error)

    def _take(self, oid: ObjectId, place: Place, record: Record) -> bytes:
        data = record.object(place.ordinal, oid)
        if data is None:
            pack = self._windows.pack(place.pack)
            self._note_damage((place.pack, place.offset))
            raise Corrupt(
                f"Object {oid.hex()} is not where the index of pack {pack.name.id.hex()} in region"
                f" {pack.region} says"
            )
        return data

    def _in_place(self, oid: ObjectId, place: Place) -> bytes | None:
        """The object if that takes no waiting; what is wrong is left to the blocking way."""
        key: RecordKey = (place.pack, place.offset)
        record = self._records.get(key)
        if record is None and not self._records.is_loading(key):
            with suppress(PackGone):
                record = self._windows.in_place(place)
            if record is not None:
                self._records.put(key, record)
        return None if record is None else record.object(place.ordinal, oid)

    def _not_ready(self, oid: ObjectId, places: Sequence[Place]) -> NotReady:
        """The work that gets an object: from the local disk if its window is there."""
        place = places[0]
        held = False
        window = (place.pack, place.window)
        if len(places) == 1 and window not in self._unreadable:  # of several, the first may be bad
            with suppress(PackGone):
                held = self._windows.holds(place)
        work = partial(self._fetch_locally, oid, place) if held else partial(self._fetch, oid)
        return NotReady(("window", *window, held), work, remote=not held)

    def _fetch_locally(self, oid: ObjectId, place: Place) -> None:
        """Afterwards the record is in memory, or its bad window is not on disk any more."""
        with suppress(PackGone):
            record = self._windows.local(place)
            if record is None:
                if len(self._unreadable) >= _MAX_FAILURES:
                    self._unreadable.clear()
                self._unreadable.add((place.pack, place.window))
                return
            self._records.put((place.pack, place.offset), record)
            try:
                self._take(oid, place, record)
            except Corrupt as error:
                self._keep_failure(oid, error)

    def _fetch(self, oid: ObjectId) -> None:
        """Afterwards `get_nowait` gives the object, or what is wrong with it.

        Damage is kept for whoever takes the step again, so that the error rises in the step, which
        knows what the object is for; a region that does not answer is an error here.
        """
        try:
            data = self.get(oid)
        except Corrupt as error:
            self._keep_failure(oid, error)
        else:
            if data is None and oid in self._unlearned:
                self._keep_failure(oid, Corrupt(f"Object {oid.hex()} is in no pack of its tree"))

    def _keep_failure(self, oid: ObjectId, error: ImagefsError) -> None:
        if len(self._failures) >= _MAX_FAILURES:
            self._failures.clear()
        self._failures[oid] = error

    # -- what is not as it was ------------------------------------------------------------

    def _gone(self, oid: ObjectId, place: Place) -> Corrupt:
        """Takes out a pack that its region has no longer; returns what to say of it."""
        pack = self.index.pack(place.pack)
        if pack is not None:
            log.warning("Region %s lacks pack %s", pack.region, pack.name.id.hex())
            self.index.drop(place.pack)
        self._renew()
        where = "its region" if pack is None else f"region {pack.region}"
        return Corrupt(f"Object {oid.hex()} is missing: {where} has lost the pack that held it")

    def _renew(self) -> None:
        self._windows.forget()
        self._places.clear()
        self._look_for_unlearned()
