"""A machine with a store that sends to and reads from one region, and trees to send."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from imagefs.disk import Disk
from imagefs.errors import NotReady
from imagefs.format.region import Descriptor, PackName
from imagefs.model import CHUNK_SIZE, ObjectId
from imagefs.region.bucket import Bucket
from imagefs.region.layout import PACKS, parse_pack
from imagefs.region.sending import Sender
from imagefs.region.upstream import RegionUpstream
from imagefs.store import Store
from imagefs.transfer.import_directory import import_directory
from imagefs.tree import Tree
from imagefs.tree.dump import dump
from imagefs.tree.walk import walk
from tests.tree import samples

REGION = "eu"


class Machine:
    """A store and what it keeps of regions; a context manager."""

    def __init__(self, path: Path, bucket: Bucket, *, cache_bytes: int | None = None) -> None:
        self.path = path
        self.bucket = bucket
        self.store = Store.open(path) if path.exists() else Store.create(path)
        self.upstream = RegionUpstream.open(
            path / "regions", Disk(), self._bucket_of, cache_bytes=cache_bytes
        )
        self.store.upstream = self.upstream
        self.sender = Sender(self.store, self.upstream, REGION, bucket)

    def _bucket_of(self, region: str) -> Bucket | None:
        return self.bucket if region == REGION else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.upstream.close()
        self.store.close()

    # -- trees --------------------------------------------------------------------------

    def keep(self, root: samples.Node) -> ObjectId:
        """Store a tree made of plain values."""
        return keep(self.store, root)

    def imported(self, source: Path) -> ObjectId:
        with self.store.writer() as writer:
            return import_directory(source, writer, self.store.get)

    def dump(self, manifest: ObjectId) -> list[str]:
        """All of a tree as text, after reading all content."""
        tree = Tree(self.store.get, manifest)
        for _, _, entry in walk(tree):
            if entry.is_regular:
                for oid in tree.chunk_ids(entry, 0, entry.size // CHUNK_SIZE):
                    if oid is not None:
                        self.store.get(oid)
        return list(dump(tree))

    def taken(self, oid: ObjectId) -> bytes:
        """An object the way steps get it: again after each piece of work."""
        for _ in range(10):
            try:
                return self.store.get_nowait(oid)
            except NotReady as not_ready:
                work = not_ready.work
            assert work is not None
            work()
        raise AssertionError("The step never succeeds")

    def settle(self) -> None:
        """Return when nothing is being read ahead."""
        for _ in range(1000):
            if self.upstream._windows._waiting == 0:
                return
            time.sleep(0.01)
        raise AssertionError("Reading ahead does not end")

    def forget_contents(self) -> None:
        """Nothing that was fetched is at hand any more; what is known of packs stays."""
        self.settle()
        self.upstream.cache.clear()
        self.upstream._records.clear()

    # -- the region ---------------------------------------------------------------------

    def packs(self) -> dict[PackName, int]:
        """The packs that the region has, and their sizes."""
        found = {parse_pack(one.key): one.size for one in self.bucket.list(PACKS)}
        return {pack: size for pack, size in found.items() if pack is not None}

    def send(
        self,
        manifest: ObjectId,
        base: Descriptor | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Descriptor:
        """Send a tree; its descriptor, which is remembered but not published."""
        needed = self.sender.send(manifest, self.packs(), base=base, cancelled=cancelled)
        root = Tree(self.store.get, manifest).manifest.root
        descriptor = Descriptor(manifest, root.count, root.size, 0, None, needed)
        self.remember(descriptor)
        return descriptor

    def remember(self, descriptor: Descriptor) -> None:
        self.upstream.remember(REGION, [descriptor])


def keep(store: Store, root: samples.Node) -> ObjectId:
    """Put a tree made of plain values into a store."""
    memory = samples.Memory()
    manifest = samples.store(memory, root)
    content = chunks(root)
    with store.writer() as writer:
        for data in memory.objects.values():
            writer.put(data, metadata=data not in content)
        writer.finish()
    return manifest


def chunks(root: samples.Node) -> set[bytes]:
    """The content of all files of a tree."""
    return {chunk for _, node in samples.places(root) for chunk in node.chunks if chunk}


def make_source(source: Path) -> None:
    """A directory of the host with what trees can hold."""
    rng = random.Random(1)
    (source / "etc").mkdir(parents=True)
    for number in range(300):
        (source / f"etc/{number}.conf").write_text(f"setting = {number}\n" * (number % 40))
    (source / "empty").mkdir()
    (source / "empty-file").touch()
    (source / "large").write_bytes(rng.randbytes(3 * CHUNK_SIZE + 100))
    (source / "text").write_bytes(b"all the same " * 60_000)
    with (source / "sparse").open("wb") as file:
        file.seek(400 * CHUNK_SIZE)
        file.write(b"end")
    os.link(source / "large", source / "etc/linked")
    os.link(source / "large", source / "linked-too")
    (source / "link").symlink_to("etc/1.conf")
    os.mkfifo(source / "fifo")
    os.setxattr(source / "text", "user.comment", b"\0\xff")
    os.setxattr(source / "etc", "user.comment", b"of a directory")
    (source / "etc").chmod(0o2750)
    os.utime(source / "text", ns=(0, -1))


def numbered(count: int, size: int, seed: int = 1) -> samples.Node:
    """A directory of files of random bytes."""
    rng = random.Random(seed)
    return samples.directory(
        {b"%05d" % number: samples.regular(rng.randbytes(size)) for number in range(count)}
    )
