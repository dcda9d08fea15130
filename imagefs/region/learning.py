"""Fetching the indexes of packs, so that what they hold is in the index of regions.

A pack that is gone, or whose index is damaged, is left out and told in the log: objects that only
it has are not found then, and nothing else is harmed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from imagefs.errors import Corrupt, NotFound
from imagefs.format.record import PACK_HEADER_SIZE
from imagefs.format.region import MAX_PACK, IndexedRecord, PackName, decode_pack_index
from imagefs.region.bucket import Bucket
from imagefs.region.index import RegionIndex
from imagefs.region.jobs import completed
from imagefs.region.layout import PACKS, pack_key, parse_pack

log = logging.getLogger(__name__)

TRIES: Final = 3
"""How often what arrives damaged is fetched."""

_WORKERS: Final = 8
_AT_ONCE: Final = 64
_BYTES_AT_ONCE: Final = 16 * 1024 * 1024
"""Indexes, and bytes of them, that may be in memory together; one may be larger."""

_ASK_ONE_BY_ONE: Final = 16
"""Up to so many packs are asked for their sizes; for more, all are listed."""


def learn(
    index: RegionIndex,
    region: str,
    bucket: Bucket,
    packs: Iterable[PackName],
    *,
    sizes: Mapping[PackName, int] | None = None,
    alive: Callable[[], None] = lambda: None,
) -> bool:
    """Adds the indexes of those packs that the index lacks; whether all are in it now. Blocks.

    `sizes` are those of packs that were listed. `alive` is called now and then; what it raises ends
    the work, as do `Unreachable` and `AccessDenied`.
    """
    known = index.packs(region)
    unknown = [pack for pack in dict.fromkeys(packs) if pack not in known]
    if not unknown:
        return True
    with ThreadPoolExecutor(_WORKERS, "learn") as pool:
        if sizes is None:
            sizes = _sizes(bucket, unknown, pool)
        there = [pack for pack in unknown if pack in sizes]
        if len(there) < len(unknown):
            log.warning("Region %s lacks %s packs", region, len(unknown) - len(there))
        learned = 0
        for some in _portions(there):
            found = {pack: sizes[pack] for pack in some}
            learned += _learn_some(index, region, bucket, found, pool, alive)
    return learned == len(unknown)


def _portions(packs: Iterable[PackName]) -> Iterator[list[PackName]]:
    """Packs in portions whose indexes may be in memory together."""
    portion: list[PackName] = []
    size = 0
    for pack in packs:
        size += pack.index_length
        if portion and (size > _BYTES_AT_ONCE or len(portion) == _AT_ONCE):
            yield portion
            portion, size = [], pack.index_length
        portion.append(pack)
    if portion:
        yield portion


def _learn_some(
    index: RegionIndex,
    region: str,
    bucket: Bucket,
    packs: Mapping[PackName, int],
    pool: ThreadPoolExecutor,
    alive: Callable[[], None],
) -> int:
    """Adds the indexes of some packs; of how many that went well."""
    learned = 0
    jobs = {pool.submit(fetch_index, bucket, pack, size): pack for pack, size in packs.items()}
    try:
        for job in completed(jobs, alive):
            pack = jobs[job]
            try:
                index.add(region, pack, packs[pack], job.result())
                learned += 1
            except (Corrupt, NotFound) as error:
                log.warning("Pack %s of region %s: %s", pack.id.hex(), region, error)
    finally:
        for job in jobs:
            job.cancel()
    return learned


def fetch_index(bucket: Bucket, pack: PackName, size: int) -> list[IndexedRecord]:
    """What the index of a pack of `size` bytes lists. Raises `Corrupt`, `NotFound`."""
    begin = size - pack.index_length
    if begin < PACK_HEADER_SIZE or size > MAX_PACK:
        raise Corrupt(f"A pack of {size} bytes cannot have an index of {pack.index_length}")
    for _ in range(TRIES - 1):
        try:
            return _fetch_once(bucket, pack, begin)
        except Corrupt as error:
            log.info("The index of pack %s is fetched again: %s", pack.id.hex(), error)
    return _fetch_once(bucket, pack, begin)


def _fetch_once(bucket: Bucket, pack: PackName, begin: int) -> list[IndexedRecord]:
    return decode_pack_index(bucket.get_range(pack_key(pack), begin, pack.index_length), begin)


def _sizes(bucket: Bucket, packs: list[PackName], pool: ThreadPoolExecutor) -> dict[PackName, int]:
    """The sizes of those packs that are there."""
    if len(packs) <= _ASK_ONE_BY_ONE:
        found = zip(packs, pool.map(bucket.head, map(pack_key, packs)), strict=True)
        return {pack: listed.size for pack, listed in found if listed is not None}
    listing = ((parse_pack(listed.key), listed.size) for listed in bucket.list(PACKS))
    return {pack: size for pack, size in listing if pack is not None}
