"""Bringing a tree from regions into the packs of the store, so that it is there without them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, NamedTuple

from imagefs.errors import Cancelled, Corrupt
from imagefs.model import ObjectId
from imagefs.region.lacking import Lacking
from imagefs.region.upstream import RegionUpstream
from imagefs.region.values import Plan
from imagefs.store.check import ObjectCheck
from imagefs.store.store import Store
from imagefs.tree.check import TreeCheck
from imagefs.tree.objects import tree_objects

_WORKERS: Final = 8
_AT_ONCE: Final = 8
"""Objects that a thread gets at a time: neighbours share windows."""


class _Part(NamedTuple):
    """Some objects that travel one behind the other, and how many bytes they stand for."""

    objects: list[ObjectId]
    metadata: bool
    share: float


def bring(
    store: Store,
    upstream: RegionUpstream,
    manifest: ObjectId,
    tell: Callable[[int, int], None],
    cancelled: Callable[[], bool] = lambda: False,
) -> int:
    """Makes every object of a tree durable in the store's own packs; returns the bytes that were
    added to them. `tell` hears of bytes done and to do. Blocks.

    Raises `Corrupt` for a tree that is not whole, or not what a tree has to be: then nothing
    may name it, though some of its objects are in the packs. Raises `Cancelled` soon after
    `cancelled` says so, and what regions raise that do not answer.
    """
    lacking = _lacking(store, upstream, manifest, cancelled)
    total = lacking.bytes
    done = 0.0
    tell(0, total)
    with store.writer() as writer, ThreadPoolExecutor(_WORKERS, "bring") as pool:
        for part, contents in _fetched(store, lacking, pool):
            for oid, data in zip(part.objects, contents, strict=True):
                writer.put_hashed(oid, data, metadata=part.metadata)
            done += part.share
            tell(min(int(done), total), total)
            _look(cancelled)
        writer.finish()
        added = writer.stored_bytes
    _require_whole(store, manifest)
    tell(total, total)
    return added


def plan_bringing(store: Store, upstream: RegionUpstream, manifest: ObjectId) -> Plan:
    """What `bring` would have to fetch: the store's packs lack it, though some of it may be in the
    cache. Fetches directories and maps of chunks to find out."""
    lacking = _lacking(store, upstream, manifest, lambda: False)
    return Plan(lacking.objects, lacking.bytes)


def _lacking(
    store: Store, upstream: RegionUpstream, manifest: ObjectId, cancelled: Callable[[], bool]
) -> Lacking:
    upstream.learn(manifest)
    lacking = Lacking(upstream.stored_size)
    for oid, metadata in tree_objects(store.get, manifest):
        if oid not in store:
            _look(cancelled)
            lacking.add(oid, metadata=metadata)
    lacking.close()
    return lacking


def _look(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Cancelled("Fetching an image from a region was cancelled")


def _fetched(
    store: Store, lacking: Lacking, pool: ThreadPoolExecutor
) -> Iterator[tuple[_Part, list[bytes]]]:
    """The bytes of all objects in their order, some parts being got at the same time."""
    parts = _parts(lacking)
    jobs: deque[tuple[_Part, Future[list[bytes]]]] = deque()
    try:
        while True:
            for part in islice(parts, _WORKERS - len(jobs)):
                jobs.append((part, pool.submit(_get_all, store, part.objects)))
            if not jobs:
                return
            part, job = jobs.popleft()
            yield part, job.result()
    finally:
        for _, job in jobs:
            job.cancel()


def _parts(lacking: Lacking) -> Iterator[_Part]:
    for batch in lacking.batches():
        each = batch.bytes / len(batch.objects)
        for start in range(0, len(batch.objects), _AT_ONCE):
            objects = batch.objects[start : start + _AT_ONCE]
            yield _Part(objects, batch.metadata, each * len(objects))


def _get_all(store: Store, oids: list[ObjectId]) -> list[bytes]:
    return [store.get(oid) for oid in oids]


def _require_whole(store: Store, manifest: ObjectId) -> None:
    """Raises `Corrupt` unless all of a tree is there and fits together."""
    with ObjectCheck(store) as objects:
        for problem in TreeCheck(objects, lambda *_: None).check(manifest):
            path = problem.path.decode("utf-8", "replace")
            raise Corrupt(f"The image {manifest.hex()} is not whole: /{path}: {problem.message}")
