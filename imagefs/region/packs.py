"""Which packs a region has, and on which of them may be counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from imagefs.errors import Corrupt
from imagefs.format.region import PackName
from imagefs.region.bucket import Bucket, Listed
from imagefs.region.layout import CONDEMNED, PACKS, parse_pack


def listed_packs(bucket: Bucket, prefix: str = PACKS) -> dict[PackName, Listed]:
    """The packs below `packs/` or, with that prefix, those below `condemned/`."""
    found = ((parse_pack(listed.key), listed) for listed in bucket.list(prefix))
    return {pack: listed for pack, listed in found if pack is not None}


def usable_packs(bucket: Bucket) -> dict[PackName, Listed]:
    """The packs that are there and not condemned: who put a lease before may count on them.

    In this order: a gc removes the pack first and then what condemns it.
    """
    condemned = listed_packs(bucket, CONDEMNED)
    return {pack: at for pack, at in listed_packs(bucket).items() if pack not in condemned}


def require_packs(needed: Iterable[PackName], usable: Mapping[PackName, Listed], what: str) -> None:
    """Raises `Corrupt` unless all packs that something needs are among those that may be used."""
    lacking = [pack for pack in needed if pack not in usable]
    if lacking:
        raise Corrupt(
            f"{what} needs {len(lacking)} packs that are gone or about to go, among them"
            f" {lacking[0].id.hex()}"
        )
