"""Machines: stores of their own that know a region. What they copy there is made up, packs of random
bytes, because what is tested with them is who may do what when, not how objects travel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from blake3 import blake3

from imagefs.disk import Disk
from imagefs.errors import NotFound
from imagefs.format.region import Descriptor, PackName, decode_descriptor, encode_descriptor
from imagefs.model import SECOND, ObjectId
from imagefs.region import layout
from imagefs.region.bucket import Bucket, Patience
from imagefs.region.layout import DeletedKey, ImageName, UseKey
from imagefs.region.lease import Lease, Terms
from imagefs.region.packs import usable_packs
from imagefs.region.region import Image, Region, Regions
from imagefs.store.store import Store
from imagefs.tree import Tree

DAY = 86_400 * SECOND
INDEX_LENGTH = 200


def random_pack(size: int = 1000) -> tuple[PackName, bytes]:
    """What stands for a pack: its name is right, its bytes mean nothing."""
    data = os.urandom(size)
    return PackName(blake3(data).digest(), INDEX_LENGTH), data


class Machine:
    """A store with one region, `eu`; a context manager."""

    def __init__(self, folder: Path, url: str, terms: Terms | None = None) -> None:
        self.store = Store.create(folder)
        self.url = url
        self.regions = Regions(
            self.store,
            Disk(),
            terms=terms or Terms(fresh=-60 * SECOND),  # what is not needed goes at once
            patience=Patience(retry=2.0, refused=0.5),
        )
        self.region: Region = self.regions.open("eu", url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.regions.close()
        self.store.close()

    def copy(
        self,
        account: str,
        name: str,
        *,
        packs: int = 2,
        reuse: bool = False,
        between: Callable[[Lease], None] = lambda _: None,
    ) -> Image:
        """Copies an image that needs `packs` new packs and, with `reuse`, all that may be counted on.

        `between` is called when the packs are there and the descriptor is not.
        """
        image = ImageName(account, name)
        publication = self.region._publication
        bucket = self.region._bucket
        with self.region._changing(image), publication.lease(image) as lease:
            publication.require_absent(image)
            counted = list(usable_packs(bucket)) if reuse else []
            for pack, data in (random_pack() for _ in range(packs)):
                bucket.put(layout.pack_key(pack), data)
                counted.append(pack)
            between(lease)
            return publication.publish(lease, image, describe(counted))

    def send(self, account: str, name: str, manifest: ObjectId) -> Image:
        """Copies a tree of the store, really."""
        root = Tree(self.store.get, manifest).manifest.root
        return self.region.send(
            account,
            name,
            manifest,
            entries=root.count,
            size=root.size,
            created=1_700_000_000 * SECOND,
            parent=None,
        )


def describe(packs: Iterable[PackName], manifest: bytes | None = None) -> Descriptor:
    """A descriptor of an image that needs these packs."""
    return Descriptor(
        manifest=os.urandom(32) if manifest is None else manifest,
        entries=3,
        bytes=4096,
        created=1_700_000_000 * SECOND,
        parent="web",
        packs=tuple(sorted(set(packs))),
    )


def keys(bucket: Bucket, prefix: str = "") -> list[str]:
    return [listed.key for listed in bucket.list(prefix)]


def broken(bucket: Bucket) -> list[str]:
    """What is wrong with the images of a region: whatever names packs has all of them, whole.

    What is deleted while this looks is not wrong.
    """
    wrong: list[str] = []
    for prefix in (layout.IMAGES, layout.DELETED, layout.USES):
        for key in keys(bucket, prefix):
            try:
                descriptor = decode_descriptor(bucket.get(key))
            except NotFound:
                continue
            bad = [pack.id.hex() for pack in descriptor.packs if not is_whole(bucket, pack)]
            if bad and bucket.head(key) is not None:
                wrong.append(f"{key} lacks packs {bad}")
    return wrong


def is_whole(bucket: Bucket, pack: PackName) -> bool:
    try:
        return blake3(bucket.get(layout.pack_key(pack))).digest() == pack.id
    except NotFound:
        return False


def put_packs(bucket: Bucket, count: int) -> list[PackName]:
    packs = [random_pack() for _ in range(count)]
    for pack, data in packs:
        bucket.put(layout.pack_key(pack), data)
    return [pack for pack, _ in packs]


def packs(bucket: Bucket) -> set[str]:
    return set(keys(bucket, "packs/"))


def populate(bucket: Bucket) -> None:
    """A region with all that a gc has to do with."""
    live, old = put_packs(bucket, 2), put_packs(bucket, 2)
    used, loose = put_packs(bucket, 1), put_packs(bucket, 2)
    bucket.put(layout.image_key(ImageName("ada", "live")), encode_descriptor(describe(live)))
    deleted = DeletedKey(ImageName("ada", "old"), 5, bytes(8))
    bucket.put(layout.deleted_key(deleted), encode_descriptor(describe([*old, live[0]])))
    use = describe(used)
    bucket.put(layout.use_key(UseKey(bytes(16), use.manifest)), encode_descriptor(use))
    for pack in (live[1], loose[0], PackName(bytes(32), INDEX_LENGTH)):
        bucket.put(layout.condemned_key(pack), b"")


def reset(bucket: Bucket) -> None:
    """Empties the region."""
    for key in keys(bucket):
        if key != layout.MARKER:
            bucket.delete(key)
