"""Checking objects: each is read once, and what is bad is said to everybody who asks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from imagefs.errors import Corrupt
from imagefs.format.record import object_id
from imagefs.store import Store
from imagefs.store.check import ObjectCheck
from imagefs.store.known import KnownIds
from tests.store.watched import WatchedDisk


def test_known_ids_are_what_was_put() -> None:
    rng = random.Random(1)
    known = KnownIds()
    expected: dict[bytes, int] = {}
    for _ in range(20_000):
        # Few different bytes, so that buckets fill and ids turn up across the borders of rows.
        key = bytes(rng.choices(b"\0\1", k=32))
        expected.setdefault(key, value := rng.randrange(2**32))
        known.put(key, value)
    assert len(known) == len(expected)
    assert all(known.get(key) == value for key, value in expected.items())
    assert known.get(b"x" * 32) is None
    assert known.get(b"\0\1" * 16) == expected.get(b"\0\1" * 16)


def test_every_object_is_read_once(path: Path) -> None:
    with Store.create(path) as store, store.writer() as writer:
        small = [writer.put(b"small %d" % n) for n in range(100)]
        large = [writer.put(bytes([n]) * 100_000 + b"x") for n in range(8)]
        writer.finish()
    disk = WatchedDisk()
    with Store.open(path, disk) as store, ObjectCheck(store) as objects:
        for _ in range(2):
            objects.check(small + large + small)
        assert objects.verdict(small[7]) == len(b"small 7")
        assert objects.objects == 108
        assert objects.bytes == sum(len(b"small %d" % n) for n in range(100)) + 8 * 100_001
        reads = [call for call in disk.calls if call[0] == "pread"]
        assert len(reads) <= 8 + 2, "one record an object, small ones share one"


def test_bad_objects_are_told(store: Store, path: Path) -> None:
    with store.writer() as writer:
        oid = writer.put(b"good" * 20_000)
        writer.finish()
    pack = path / "packs/00000001.pack"
    data = bytearray(pack.read_bytes())
    data[-20] ^= 1
    pack.write_bytes(data)
    lost = object_id(b"lost")
    with ObjectCheck(store) as objects:
        objects.check([oid, lost])
        assert "damaged in pack 1 at offset 24: the checksum is wrong" in str(objects.verdict(oid))
        assert "is missing from store" in str(objects.verdict(lost))
        for bad in (oid, lost):
            with pytest.raises(Corrupt):
                objects.read(bad)
        assert objects.bytes == 0
