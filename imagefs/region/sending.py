"""Sending a tree to a region: finding out what the region lacks, packing and putting that.

Nothing here makes an image visible. Whoever calls holds a lease, says on which packs of the region
he counts, and publishes the tree with the packs that `send` returns. Every object is compared
with its id before it leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from imagefs.errors import Cancelled, Corrupt, StoreError
from imagefs.format.record import DATA, METADATA, object_id
from imagefs.format.region import MAX_PACKS, Descriptor, PackName
from imagefs.model import ObjectId
from imagefs.region.bucket import Bucket
from imagefs.region.lacking import Lacking
from imagefs.region.learning import learn
from imagefs.region.packing import Pack, PackBuilder
from imagefs.region.uploads import Uploads
from imagefs.region.upstream import RegionUpstream
from imagefs.region.values import Plan
from imagefs.store.grouping import Block, Grouping
from imagefs.store.store import Store, StoredRecord
from imagefs.tree.objects import tree_objects

_OFTEN: Final = 256
"""Objects between two signs of life while a tree is looked through."""

_OFTEN_READ: Final = 16
"""The same while objects are read, maybe from another region."""

_MOST_OF_BASE: Final = 10_000
"""Packs of a base up to which it is taken over as it is: beyond, only those that the tree needs
are, so that images that follow each other do not need more and more."""


def _never() -> bool:
    return False


def _nothing(*_: object) -> None:
    pass


class Sender:
    """What is sent to one region from one store."""

    def __init__(self, store: Store, upstream: RegionUpstream, region: str, bucket: Bucket) -> None:
        self._store = store
        self._upstream = upstream
        self._index = upstream.index
        self._region = region
        self._bucket = bucket

    def __repr__(self) -> str:
        return f"<Sender to {self._region}>"

    def plan(
        self,
        manifest: ObjectId,
        packs: Mapping[PackName, int],
        *,
        base: Descriptor | None = None,
        cancelled: Callable[[], bool] = _never,
        alive: Callable[[], None] = _nothing,
    ) -> Plan:
        """What the region lacks of a tree; see `send`. Sends nothing."""
        copy = _Copy(self._store, self._upstream, self._region, cancelled, alive)
        learn(self._index, self._region, self._bucket, packs, sizes=packs, alive=copy.look)
        lacking = copy.compare(manifest, packs, base)
        return Plan(lacking.objects, lacking.bytes)

    def send(
        self,
        manifest: ObjectId,
        packs: Mapping[PackName, int],
        *,
        base: Descriptor | None = None,
        tell: Callable[[int, int], None] = _nothing,
        cancelled: Callable[[], bool] = _never,
        alive: Callable[[], None] = _nothing,
    ) -> tuple[PackName, ...]:
        """Sends what the region lacks of a tree; returns the packs it needs, in order. Blocks.

        `packs` are those that may be counted on, with their sizes. `base` is an image of the region
        that is much like the tree: what stands at the same place is not looked at. `tell` hears of
        bytes done and to do, `alive` is called at least every few seconds and for every pack; what
        it raises ends the work. Raises `Cancelled` soon after `cancelled` says so, `Corrupt`
        when an object is damaged or missing here, and what the bucket raises. What has arrived by
        then is not sent again by the next attempt.
        """
        copy = _Copy(self._store, self._upstream, self._region, cancelled, alive)
        learn(self._index, self._region, self._bucket, packs, sizes=packs, alive=copy.look)
        lacking = copy.compare(manifest, packs, base)
        total = lacking.bytes
        done = 0.0

        def arrived(pack: Pack) -> None:
            nonlocal done
            copy.needed.add(pack.name)
            done += pack.share
            tell(min(int(done), total), total)

        tell(0, total)
        with Uploads(
            self._region, self._bucket, self._index, look=copy.look, arrived=arrived
        ) as uploads:
            for pack in copy.packs(lacking):
                uploads.put(pack)
            uploads.finish()
        tell(total, total)
        if len(copy.needed) > MAX_PACKS:
            raise StoreError(f"The image needs {len(copy.needed)} packs, {MAX_PACKS} are allowed")
        return tuple(sorted(copy.needed))


class _Copy:
    """One attempt; `needed` are the packs that the tree needs, as far as is known."""

    def __init__(
        self,
        store: Store,
        upstream: RegionUpstream,
        region: str,
        cancelled: Callable[[], bool],
        alive: Callable[[], None],
    ) -> None:
        self.needed: set[PackName] = set()
        self._store = store
        self._upstream = upstream
        self._region = region
        self._cancelled = cancelled
        self._alive = alive

    def look(self) -> None:
        """Gives a sign of life; raises `Cancelled` when the work is to end."""
        if self._cancelled():
            raise Cancelled(f"The copy to region {self._region} was cancelled")
        self._alive()

    def compare(
        self, manifest: ObjectId, packs: Mapping[PackName, int], base: Descriptor | None
    ) -> Lacking:
        """The objects that none of the packs holds."""
        if base is not None and (
            len(base.packs) > _MOST_OF_BASE or any(pack not in packs for pack in base.packs)
        ):
            base = None
        index = self._upstream.index
        numbers = {
            number: name for name, number in index.packs(self._region).items() if name in packs
        }
        damaged = index.damaged()
        if base is not None and any(numbers.get(pack) in base.packs for pack, _ in damaged):
            base = None
        if base is not None:
            self.needed.update(base.packs)
        lacking = Lacking(self._size_of)
        old = None if base is None else ObjectId(base.manifest)
        for count, (oid, metadata) in enumerate(tree_objects(self._store.get, manifest, base=old)):
            if count % _OFTEN == 0:
                self.look()
            held = [
                numbers[place.pack]
                for place in index.find(oid)
                if place.pack in numbers and (place.pack, place.offset) not in damaged
            ]
            if not held:
                lacking.add(oid, metadata=metadata)
            elif self.needed.isdisjoint(held):
                self.needed.add(held[0])
        lacking.close()
        return lacking

    def _size_of(self, oids: Sequence[ObjectId]) -> int:
        """Bytes that objects take in the store, or in the region that they come from."""
        near = [oid for oid in oids if oid in self._store]
        size = self._store.stored_size(near)
        if len(near) < len(oids):
            size += self._upstream.stored_size(set(oids).difference(near))
        return size

    def packs(self, lacking: Lacking) -> Iterator[Pack]:
        """Packs of all these objects, read as they are needed."""
        builder = PackBuilder()
        grouping = Grouping()
        share = 0.0
        kind = METADATA
        for batch in lacking.batches():
            if kind == METADATA and not batch.metadata:
                rest = grouping.rest(METADATA)
                if rest is not None:
                    builder.add(rest)
            kind = METADATA if batch.metadata else DATA
            each = batch.bytes / len(batch.objects)
            for objects, block in self._blocks(batch.objects, kind, grouping):
                share += each * objects
                if block is not None:
                    builder.add(block)
                    if builder.full:
                        yield builder.take(share)
                        share = 0.0
        rest = grouping.rest(kind)
        if rest is not None:
            builder.add(rest)
        if builder:
            yield builder.take(share)

    def _blocks(
        self, objects: Sequence[ObjectId], kind: int, grouping: Grouping
    ) -> Iterator[tuple[int, Block | StoredRecord | None]]:
        """How many more objects were taken, and what is to be packed now, if anything is.

        Records of the store go as they are where they hold what is wanted: most content lies in the
        order of a walk, and compressing it again would be most of the work.
        """
        at = count = 0
        while at < len(objects):
            if count % _OFTEN_READ == 0:
                self.look()
            count += 1
            stored = self._store.record_at(objects, at)
            if stored is not None and stored.kind == kind:
                at += len(stored.objects)
                yield len(stored.objects), stored
            else:
                oid = objects[at]
                at += 1
                yield 1, grouping.add(oid, self._read(oid), kind)

    def _read(self, oid: ObjectId) -> bytes:
        data = self._store.get(oid)
        if object_id(data) != oid:
            self._store.report_damage(oid)
            raise Corrupt(
                f"Object {oid.hex()} is damaged in store {self._store.path}: its record is intact"
                " but holds other bytes"
            )
        return data
