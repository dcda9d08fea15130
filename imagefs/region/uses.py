"""Which trees of a region the instances of this store stand on: a gc keeps their packs.

A use is put first and what it stands on looked at afterwards, because a gc looks at images first and
at uses last: so one of the two sees the other (docs/durability.md).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from imagefs.errors import Corrupt, NotFound, StoreError
from imagefs.format.region import (
    MAX_DESCRIPTOR,
    Descriptor,
    decode_descriptor,
    encode_descriptor,
)
from imagefs.model import ObjectId
from imagefs.region.bucket import Bucket, Listed
from imagefs.region.layout import UseKey, parse_use, use_key, uses_prefix
from imagefs.region.lease import boottime
from imagefs.region.packs import usable_packs


class Uses:
    """What one store uses in one region. Thread-safe; methods block."""

    def __init__(self, bucket: Bucket, store: bytes, lasting: int) -> None:
        """What was said is said anew after `lasting` ns: another process may have ended it, and
        one that is too old may be ended before anybody knows that it is needed again."""
        self._bucket = bucket
        self._store = store
        self._lasting = lasting
        self._put: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Uses of store {self._store.hex()}, {len(self._put)} put>"

    def use(self, descriptor: Descriptor, images: Iterable[str]) -> None:
        """Says that this store needs a tree; `images` are keys where it may be published.

        The packs that were said before stay, because what was fetched may come from those.
        Raises `NotFound` when the region has the tree no longer.
        """
        with self._lock:
            moment = boottime()
            said = self._put.get(descriptor.manifest)
            if said is not None and moment < said + self._lasting:
                return
            key = use_key(UseKey(self._store, descriptor.manifest))
            places = list(images)
            present = self._present(key, descriptor.manifest)
            for offered in filter(None, (present, descriptor)):
                self._bucket.put(key, encode_descriptor(offered))
                if self._is_kept(offered, places):
                    self._put[descriptor.manifest] = moment
                    return
            self._bucket.delete(key)
        raise NotFound("The image is gone from its region, or about to go")

    def put(self) -> dict[ObjectId, Listed]:
        """What was said, by the trees."""
        found = ((parse_use(one.key), one) for one in self._bucket.list(uses_prefix(self._store)))
        return {ObjectId(use.manifest): one for use, one in found if use is not None}

    def end(self, gone: Iterable[Listed], before: int) -> None:
        """Ends these uses, but for those that were put since `before`, ns by the service's clock."""
        for listed in gone:
            with self._lock:
                now = self._bucket.head(listed.key)
                if now is not None and now.modified < before:
                    use = parse_use(listed.key)
                    assert use is not None
                    self._put.pop(use.manifest, None)
                    self._bucket.delete(listed.key)

    # -- inside -------------------------------------------------------------------------

    def _present(self, key: str, manifest: bytes) -> Descriptor | None:
        """What was put at an earlier time; None when there is nothing that can be used."""
        try:
            descriptor = decode_descriptor(self._bucket.get(key, limit=MAX_DESCRIPTOR))
        except (NotFound, Corrupt, StoreError):
            return None
        return descriptor if descriptor.manifest == manifest else None

    def _is_kept(self, descriptor: Descriptor, places: Iterable[str]) -> bool:
        """Whether no gc that did not see the use took one of its packs, or will."""
        data = encode_descriptor(descriptor)
        if any(self._holds(place, data) for place in places):
            return True
        usable = usable_packs(self._bucket)
        return all(pack in usable for pack in descriptor.packs)

    def _holds(self, place: str, data: bytes) -> bool:
        try:
            return self._bucket.get(place, limit=MAX_DESCRIPTOR) == data
        except (NotFound, Corrupt):
            return False
