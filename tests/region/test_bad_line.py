"""Trees travel over a line that fails, lies and loses answers; and are read by many at once."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imagefs.errors import Corrupt, Unreachable
from imagefs.format.record import object_id
from imagefs.format.region import Descriptor
from imagefs.model import CHUNK_SIZE, ObjectId
from imagefs.region.bringing import bring
from imagefs.region.bucket import Bucket, Patience
from imagefs.region.layout import pack_key
from imagefs.region.url import RegionUrl
from imagefs.tree.objects import tree_objects
from tests.faulty_proxy import Cut, FaultyProxy, Flip, Lose, Request, Status
from tests.object_server import ObjectServer
from tests.region.machine import REGION, Machine, numbered
from tests.seed import SEED

QUICK = Patience(connect=2.0, silence=1.0, whole=3.0, retry=0.3, refused=0.3)


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many packs as a larger tree has."""
    monkeypatch.setattr("imagefs.region.packing.PACK_BYTES", 1024 * 1024)


@pytest.fixture
def url(server: ObjectServer, proxy: FaultyProxy, prefix: str) -> str:
    """The region's URL, through the proxy."""
    return server.url(prefix, endpoint=proxy.endpoint)


@pytest.fixture
def here(tmp_path: Path, url: str) -> Iterator[Machine]:
    """The machine that sends."""
    bucket = Bucket(RegionUrl.parse(url), name=REGION)
    with Machine(tmp_path / "here", bucket) as machine:
        yield machine
    bucket.close()


@pytest.fixture
def there(tmp_path: Path, here: Machine) -> Iterator[Machine]:
    """The machine that reads."""
    with Machine(tmp_path / "there", here.bucket) as machine:
        yield machine


def of_packs(request: Request) -> bool:
    return "/packs/" in request.key


def all_of(machine: Machine, manifest: ObjectId) -> list[ObjectId]:
    return [oid for oid, _ in tree_objects(machine.store.get, manifest)]


def test_a_line_that_often_fails_costs_no_more_than_time(
    here: Machine, there: Machine, proxy: FaultyProxy
) -> None:
    manifest = here.keep(numbered(30, CHUNK_SIZE))
    proxy.harm(Status(503), every=4)
    proxy.harm(Lose(), every=5, match=lambda request: request.method == "PUT")
    descriptor = here.send(manifest)
    proxy.clear()
    proxy.harm(Status(500), every=4)
    proxy.harm(Cut(), every=5, match=of_packs)
    there.remember(descriptor)
    assert there.dump(manifest) == here.dump(manifest)


def test_what_arrives_damaged_now_and_then_is_right_in_the_end(
    here: Machine, there: Machine, proxy: FaultyProxy
) -> None:
    manifest = here.keep(numbered(30, CHUNK_SIZE))
    there.remember(here.send(manifest))
    # Also indexes of packs, which are fetched first.
    proxy.harm(Flip(), every=3, match=of_packs)
    bring(there.store, there.upstream, manifest, lambda *_: None)
    there.store.upstream = None
    assert there.dump(manifest) == here.dump(manifest)


def test_a_line_that_always_lies_gives_nothing_wrong(
    here: Machine, there: Machine, proxy: FaultyProxy
) -> None:
    manifest = here.keep(numbered(30, CHUNK_SIZE))
    descriptor = here.send(manifest)
    there.remember(descriptor)
    there.store.get(manifest)
    there.forget_contents()
    oids = all_of(here, manifest)
    proxy.harm(Flip(), match=of_packs)
    right = wrong = 0
    for oid in oids[::5]:
        try:
            # A flipped bit hits one record of a window; the other one may be good.
            assert object_id(there.store.get(oid)) == oid
            right += 1
        except Corrupt:
            wrong += 1
    assert wrong > 0
    proxy.clear()
    assert [object_id(there.store.get(oid)) for oid in oids] == oids


def test_a_region_that_is_gone_is_an_error_until_it_is_back(
    here: Machine, tmp_path: Path, url: str, proxy: FaultyProxy
) -> None:
    manifest = here.keep(numbered(4, CHUNK_SIZE))
    descriptor = here.send(manifest)
    bucket = Bucket(RegionUrl.parse(url), name=REGION, patience=QUICK)
    with Machine(tmp_path / "there", bucket) as there:
        there.remember(descriptor)
        proxy.refuse()
        for get in (there.store.get, there.taken):
            with pytest.raises(Unreachable):
                get(manifest)
        proxy.accept()
        there.store.get(manifest)
        proxy.refuse()
        there.upstream._records.clear()
        # What was fetched is there all the same.
        assert object_id(there.taken(manifest)) == manifest
        with pytest.raises(Unreachable):
            there.store.get(all_of(here, manifest)[-1])
        proxy.accept()
        assert there.dump(manifest) == here.dump(manifest)
    bucket.close()


def test_a_copy_that_met_a_dead_line_goes_on_where_it_was(
    here: Machine, url: str, proxy: FaultyProxy
) -> None:
    manifest = here.keep(numbered(40, CHUNK_SIZE))
    bucket = Bucket(RegionUrl.parse(url), name=REGION, patience=QUICK)
    here.sender._bucket = bucket

    def tell(done: int, total: int) -> None:
        if done:
            proxy.harm(Status(503))

    with pytest.raises(Unreachable):
        here.sender.send(manifest, here.packs(), tell=tell)
    proxy.clear()
    arrived = here.packs()
    proxy.forget()
    needed = here.sender.send(manifest, arrived)
    assert set(arrived) <= set(needed)
    assert proxy.sent("PUT") < 41 * CHUNK_SIZE - sum(arrived.values())
    bucket.close()


# -- many at once -----------------------------------------------------------------------


def reading(machine: Machine, oids: list[ObjectId], rng: random.Random, times: int) -> None:
    for _ in range(times):
        oid = rng.choice(oids)
        assert object_id(machine.store.get(oid)) == oid
        if rng.random() < 0.1:
            machine.upstream._records.clear()


def test_threads_that_want_the_same_ask_once(
    here: Machine, there: Machine, proxy: FaultyProxy
) -> None:
    manifest = here.keep(numbered(20, CHUNK_SIZE))
    descriptor = here.send(manifest)
    there.remember(descriptor)
    oids = all_of(here, manifest)
    # The first range shows how this server answers, and may be asked for twice.
    here.bucket.get_range(pack_key(descriptor.packs[0]), 0, 10)
    proxy.forget()
    barrier = threading.Barrier(8)

    def read() -> None:
        barrier.wait(30)
        for oid in oids:
            assert object_id(there.store.get(oid)) == oid

    with ThreadPoolExecutor(8) as threads:
        for job in [threads.submit(read) for _ in range(8)]:
            job.result(60)
    there.settle()
    windows = {place[:6:4] for oid in oids for place in there.upstream.index.find(oid)}
    packs = len(there.packs())
    assert proxy.requests("GET", "/packs/") == packs + len(windows)


def test_many_readers_with_little_room_and_a_disk_that_is_tampered_with(
    here: Machine, tmp_path: Path
) -> None:
    manifest = here.keep(numbered(60, CHUNK_SIZE))
    descriptor = here.send(manifest)
    oids = all_of(here, manifest)
    path = tmp_path / "there"
    stop = threading.Event()

    def tamper(rng: random.Random) -> None:
        while not stop.wait(0.002):
            found = [
                Path(directory, name)
                for directory, _, names in os.walk(path / "regions/cache")
                for name in names
            ]
            for window in rng.sample(found, len(found) // 4):
                harm_window(window, rng)

    with (
        ThreadPoolExecutor(8) as threads,
        Machine(path, here.bucket, cache_bytes=2**21) as there,
        Machine(path, here.bucket, cache_bytes=2**21) as other,
    ):
        for machine in (there, other):
            machine.remember(descriptor)
        jobs = [
            threads.submit(reading, machine, oids, random.Random(SEED + number), 120)
            for number, machine in enumerate([there, other] * 3)
        ]
        tampering = threads.submit(tamper, random.Random(SEED))
        try:
            for job in jobs:
                job.result(120)
        finally:
            stop.set()
        tampering.result(30)


def harm_window(window: Path, rng: random.Random) -> None:
    try:
        if rng.random() < 0.5:
            window.unlink()
        else:
            with window.open("r+b") as file:
                file.seek(rng.randrange(200_000))
                file.write(b"harm")
    except FileNotFoundError:
        pass


def test_two_machines_that_send_the_same_at_once_both_succeed(
    here: Machine, there: Machine, tmp_path: Path
) -> None:
    root = numbered(30, CHUNK_SIZE)
    manifest = here.keep(root)
    there.keep(root)
    with ThreadPoolExecutor(2) as threads:
        jobs = [threads.submit(machine.send, manifest) for machine in (here, there)]
        descriptors: list[Descriptor] = [job.result(60) for job in jobs]
    for number, descriptor in enumerate(descriptors):
        with Machine(tmp_path / f"reader{number}", here.bucket) as reader:
            reader.remember(descriptor)
            assert reader.dump(manifest) == here.dump(manifest)
