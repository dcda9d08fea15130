"""Cleaning a region: what nothing needs goes, and nothing else, whatever happens meanwhile."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from imagefs.errors import Busy, Corrupt, Exists, NotFound
from imagefs.format.region import PackName, encode_descriptor
from imagefs.model import ObjectId
from imagefs.region import layout
from imagefs.region import lease as lease_module
from imagefs.region.bucket import Bucket
from imagefs.region.layout import DeletedKey, ImageName, LeaseBody, LeaseKey, UseKey
from imagefs.region.lease import Lease, LeaseLost, Terms
from imagefs.region.packs import usable_packs
from imagefs.region.region import GcReport
from tests.region.faults import Killed, kill_at, let_live, watch
from tests.region.machines import (
    DAY,
    INDEX_LENGTH,
    Machine,
    broken,
    describe,
    keys,
    peek,
    random_pack,
)
from tests.seed import SEED

ROUNDS = 50


@pytest.fixture
def machine(tmp_path: Path, region_url: str) -> Iterator[Machine]:
    with Machine(tmp_path / "first", region_url) as machine:
        machine.region.prepare()
        yield machine


@pytest.fixture
def other(tmp_path: Path, region_url: str, machine: Machine) -> Iterator[Machine]:
    with Machine(tmp_path / "second", region_url) as other:
        yield other


@pytest.fixture
def bucket(region_url: str) -> Iterator[Bucket]:
    bucket = peek(region_url)
    yield bucket
    bucket.close()


def put_packs(bucket: Bucket, count: int) -> list[PackName]:
    packs = [random_pack() for _ in range(count)]
    for pack, data in packs:
        bucket.put(layout.pack_key(pack), data)
    return [pack for pack, _ in packs]


def packs(bucket: Bucket) -> set[str]:
    return set(keys(bucket, "packs/"))


# -- what goes and what stays -----------------------------------------------------------


def test_what_nothing_needs_goes(machine: Machine, bucket: Bucket) -> None:
    machine.copy("ada", "web")
    needed = packs(bucket)
    put_packs(bucket, 3)
    assert machine.region.gc(0, dry_run=True) == GcReport(3, 3000, 0)
    assert len(packs(bucket)) == 5
    assert machine.region.gc(0) == GcReport(3, 3000, 0)
    assert packs(bucket) == needed
    assert keys(bucket, "condemned/") == keys(bucket, "cleaning/") == []
    assert machine.region.gc(0) == GcReport(0, 0, 0)


def test_what_is_new_stays(machine: Machine, bucket: Bucket) -> None:
    put_packs(bucket, 3)
    assert machine.region.gc(DAY) == GcReport(0, 0, 0)
    assert machine.region.gc(DAY, dry_run=True) == GcReport(0, 0, 0)
    assert len(packs(bucket)) == 3
    assert keys(bucket, "condemned/") == []


def test_a_deleted_image_stays_as_long_as_it_is_retained(machine: Machine, bucket: Bucket) -> None:
    machine.copy("ada", "web")
    machine.region.remove("ada", "web")
    assert machine.region.gc(DAY) == GcReport(0, 0, 0)
    machine.region.undelete("ada", "web")
    machine.region.remove("ada", "web")
    assert machine.region.gc(0, dry_run=True) == GcReport(2, 2000, 1)
    assert len(machine.region.deleted("ada")) == 1
    assert machine.region.gc(0) == GcReport(2, 2000, 1)
    assert keys(bucket) == [layout.MARKER]
    with pytest.raises(NotFound):
        machine.region.undelete("ada", "web")


def test_what_a_store_uses_stays(machine: Machine, other: Machine, bucket: Bucket) -> None:
    image = machine.copy("ada", "web")
    machine.region.listing("ada")
    machine.region.use(ObjectId(image.descriptor.manifest))
    other.region.remove("ada", "web")
    assert other.region.gc(0) == GcReport(0, 0, 1)
    assert len(packs(bucket)) == 2
    machine.region.unuse(set())
    assert other.region.gc(0) == GcReport(2, 2000, 0)


def test_packs_that_images_share_stay_for_the_last(machine: Machine, bucket: Bucket) -> None:
    machine.copy("ada", "one")
    machine.copy("ada", "two", packs=1, reuse=True)
    machine.region.remove("ada", "one")
    machine.region.gc(0)
    assert len(packs(bucket)) == 3
    machine.region.remove("ada", "two")
    machine.region.gc(0)
    assert packs(bucket) == set()


def test_thousands_of_packs(machine: Machine, bucket: Bucket) -> None:
    """More than one page of a listing, and a descriptor that names them."""
    kept = put_packs(bucket, 600)
    put_packs(bucket, 600)
    bucket.put("images/ada/web", encode_descriptor(describe(kept)))
    report = machine.region.gc(0)
    assert (report.packs, report.bytes) == (600, 600_000)
    assert packs(bucket) == {layout.pack_key(pack) for pack in kept}


def test_condemnations_that_are_wrong_are_taken_back(machine: Machine, bucket: Bucket) -> None:
    image = machine.copy("ada", "web")
    for pack in (*image.descriptor.packs, random_pack()[0]):
        bucket.put(layout.condemned_key(pack), b"")
    assert usable_packs(bucket) == {}
    assert machine.region.gc(0) == GcReport(0, 0, 0)
    assert keys(bucket, "condemned/") == []
    assert set(usable_packs(bucket)) == set(image.descriptor.packs)


def test_condemned_long_ago_and_free_goes(machine: Machine, bucket: Bucket) -> None:
    (pack,) = put_packs(bucket, 1)
    bucket.put(layout.condemned_key(pack), b"")
    assert machine.region.gc(DAY, dry_run=True).packs == 1
    assert machine.region.gc(DAY).packs == 1
    assert keys(bucket) == [layout.MARKER]


def test_one_cleans_at_a_time(machine: Machine, other: Machine, bucket: Bucket) -> None:
    store = other.regions._shared.store_id()
    bucket.put(layout.cleaning_key(store), b"")
    with pytest.raises(Busy, match="cleaned by another machine"):
        machine.region.gc(0)
    other.region.gc(0)
    machine.region.gc(0)


# -- copies under way -------------------------------------------------------------------


def test_what_a_copy_counts_on_stays(machine: Machine, other: Machine, bucket: Bucket) -> None:
    put_packs(bucket, 3)
    reports: list[GcReport] = []
    machine.copy("ada", "web", reuse=True, between=lambda _: reports.append(other.region.gc(0)))
    assert reports == [GcReport(0, 0, 0, waiting=5)]
    assert broken(bucket) == []
    assert other.region.gc(0) == GcReport(0, 0, 0)
    assert keys(bucket, "condemned/") == []


def test_what_is_condemned_is_not_counted_on(
    machine: Machine, other: Machine, bucket: Bucket
) -> None:
    """A long copy keeps a gc from deleting; a later one does without what that gc condemned."""
    put_packs(bucket, 3)

    def meanwhile(_: Lease) -> None:
        other.region.gc(0)
        third = machine.region
        with ExitStack() as stack:
            lease = stack.enter_context(third._publication.lease(ImageName("bob", "mail")))
            assert usable_packs(bucket) == {}
            third._publication.publish(lease, ImageName("bob", "mail"), describe([]))

    machine.copy("ada", "web", packs=0, between=meanwhile)
    assert other.region.gc(0).packs == 3
    assert broken(bucket) == []


@pytest.mark.parametrize(
    ("began", "waits"), [(None, True), (-1000, True), (60, True), (3600, False)]
)
def test_a_copy_protects_what_was_condemned_after_it_began(
    machine: Machine, bucket: Bucket, began: int | None, waits: bool
) -> None:
    """`began`: seconds after the condemnation, by the server's clock."""
    (pack,) = put_packs(bucket, 1)
    bucket.put(layout.condemned_key(pack), b"")
    condemned = bucket.head(layout.condemned_key(pack))
    assert condemned is not None
    moment = None if began is None else condemned.modified + began * 10**9
    lease = layout.lease_key(LeaseKey(ImageName("ada", "web"), bytes(16)))
    bucket.put(lease, layout.encode_lease(LeaseBody("x", moment)))
    assert machine.region.gc(0).waiting == (1 if waits else 0)
    assert keys(bucket, "packs/") == ([layout.pack_key(pack)] if waits else [])
    assert keys(bucket, "copies/") == [lease]


def test_a_dead_copy_protects_nothing(
    tmp_path: Path, region_url: str, bucket: Bucket, machine: Machine
) -> None:
    put_packs(bucket, 1)
    lease = layout.lease_key(LeaseKey(ImageName("ada", "web"), bytes(16)))
    bucket.put(lease, layout.encode_lease(LeaseBody("x", None)))
    with Machine(tmp_path / "third", region_url, Terms(dead=-(10**10))) as impatient:
        assert impatient.region.gc(0).packs == 1
    assert keys(bucket) == [layout.MARKER]


def test_a_copy_that_slept_does_not_publish(
    machine: Machine, other: Machine, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_packs(bucket, 2)
    real = lease_module.boottime
    slept = 0
    monkeypatch.setattr(lease_module, "boottime", lambda: real() + slept)

    def sleep(lease: Lease) -> None:
        nonlocal slept
        slept = Terms().trust + 1
        bucket.delete(lease.key)  # others took it for dead
        other.region.gc(0)

    with pytest.raises(LeaseLost):
        machine.copy("ada", "web", reuse=True, between=sleep)
    assert keys(bucket) == [layout.MARKER]


def test_what_was_published_too_late_and_lost_packs_goes(
    machine: Machine, other: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine slept between its last look at the lease and the descriptor's arrival."""
    watched = watch(machine)
    put_packs(watched, 2)
    real = lease_module.boottime
    slept = 0
    monkeypatch.setattr(lease_module, "boottime", lambda: real() + slept)
    create = watched.create

    def late(key: str, data: bytes) -> None:
        nonlocal slept
        for lease in keys(watched, "copies/"):
            watched.delete(lease)
        other.region.gc(0)
        create(key, data)
        slept = Terms().trust + 1

    monkeypatch.setattr(watched, "create", late)
    with pytest.raises(Corrupt, match="gone or about to be"):
        machine.copy("ada", "web", reuse=True)
    assert other.region.listing("ada").images == []


# -- races ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [SEED])
def test_fifty_rounds_beside_copies(
    machine: Machine, other: Machine, bucket: Bucket, seed: int
) -> None:
    """One machine copies, deletes and brings back while another cleans: nothing breaks."""
    random_numbers = random.Random(seed)
    outcomes: list[str] = []
    reports: list[GcReport] = []
    stop = threading.Event()

    def clean() -> None:
        while not stop.is_set():
            try:
                reports.append(other.region.gc(0))
            except Busy:
                outcomes.append("busy")

    with ThreadPoolExecutor(1) as pool:
        cleaning = pool.submit(clean)
        try:
            for number in range(ROUNDS):
                name = f"web-{number % 3}"
                try:
                    machine.copy("ada", name, packs=2, reuse=True)
                    outcomes.append("copied")
                    assert broken(bucket) == []
                    machine.region.remove("ada", name)
                    if random_numbers.random() < 0.5:
                        machine.region.undelete("ada", name)
                        outcomes.append("brought back")
                except (Exists, NotFound, Corrupt) as error:
                    outcomes.append(type(error).__name__)
                    if isinstance(error, Exists):
                        machine.region.remove("ada", name)
                assert broken(bucket) == []
        finally:
            stop.set()
        cleaning.result()
    print(f"seed {seed}: {len(reports)} gcs, {sum(one.packs for one in reports)} packs went,")
    print({outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))})
    assert outcomes.count("copied") >= ROUNDS // 2
    assert sum(report.packs for report in reports) > 0
    assert broken(bucket) == []


def begin_copy(machine: Machine, bucket: Bucket) -> Callable[[], None]:
    """Begins a copy that counts on whatever it can; what is returned ends it."""
    image = ImageName("bob", "mail")
    publication = machine.region._publication
    stack = ExitStack()
    lease = stack.enter_context(publication.lease(image))
    publication.require_absent(image)
    counted = list(usable_packs(bucket))

    def end() -> None:
        with stack:
            publication.publish(lease, image, describe([*counted, *put_packs(bucket, 1)]))

    return end


def begin_undelete(machine: Machine, bucket: Bucket) -> Callable[[], None]:
    """Brings back what may be about to go."""
    try:
        machine.region.undelete("ada", "old")
    except (NotFound, Corrupt):
        assert bucket.head("images/ada/old") is None
    return lambda: None


def begin_use(machine: Machine, bucket: Bucket) -> Callable[[], None]:
    """An image is used, and deleted at once; the use holds."""
    machine.region.use(manifest_of(machine))
    machine.region.remove("ada", "live")
    return lambda: None


def manifest_of(machine: Machine) -> ObjectId:
    (image,) = [one for one in machine.region.listing("ada").images if one.name == "live"]
    return ObjectId(image.descriptor.manifest)


class Event:
    """Something that begins at one request of a gc and ends at a later one."""

    def __init__(self, begin: Callable[[], Callable[[], None]], first: int, last: int) -> None:
        self._begin = begin
        self._first = first
        self._last = last
        self._end: Callable[[], None] | None = None

    def __call__(self, count: int) -> None:
        if count == self._first:
            self._end = self._begin()
        if count == self._last:
            self.finish()

    def finish(self) -> None:
        if self._end is not None:
            self._end()
            self._end = None


@pytest.mark.parametrize("begin", [begin_copy, begin_undelete, begin_use])
def test_at_every_request_of_a_gc_something_begins(
    machine: Machine,
    other: Machine,
    bucket: Bucket,
    begin: Callable[[Machine, Bucket], Callable[[], None]],
) -> None:
    """And ends some requests later: whatever there is in the end has its packs."""
    watched = watch(machine)
    number = 0
    while watched.count >= number:
        number += 1
        later = (0, 1, 3, 8)[(number + SEED) % 4]
        reset(bucket)
        _populate(bucket)
        other.region._changed()
        event = Event(lambda: begin(other, bucket), number, number + later)
        watched.count = 0
        watched.before = event
        machine.region.gc(0)
        let_live(watched)
        event.finish()
        assert broken(bucket) == [], f"seed {SEED}: at request {number}, ended {later} later"
        machine.region.gc(0)
        assert broken(bucket) == []
    assert number > 15


# -- crashes ----------------------------------------------------------------------------


def _populate(bucket: Bucket) -> None:
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


def contents(bucket: Bucket) -> tuple[int, list[str]]:
    """How many packs there are, and all other keys."""
    other = [key for key in keys(bucket) if not key.startswith(("packs/", "uses/"))]
    return len(packs(bucket)), other


@pytest.mark.parametrize("done", [False, True])
def test_a_gc_killed_at_every_request(machine: Machine, bucket: Bucket, done: bool) -> None:
    """`done`: the request at which it is killed arrives, or it does not."""
    watched = watch(machine)
    number = 0
    survived = False
    while not survived:
        number += 1
        reset(bucket)
        _populate(bucket)
        kill_at(watched, number, done=done)
        try:
            machine.region.gc(0)
            survived = True
        except Killed:
            pass
        let_live(watched)
        assert broken(bucket) == []
        machine.region.gc(0)
        assert contents(bucket) == (3, ["imagefs-region", "images/ada/live"])
        assert broken(bucket) == []
    assert number > 25
    print(f"A gc of {number - 1} requests was killed at each")


@pytest.mark.parametrize("done", [False, True])
def test_changes_killed_at_every_request(machine: Machine, bucket: Bucket, done: bool) -> None:
    """Publishing, deleting and bringing back: the image is there whole or not at all, and the same
    again succeeds."""
    watched = watch(machine)
    changes: list[Callable[[], object]] = [
        lambda: machine.copy("ada", "web"),
        lambda: machine.region.remove("ada", "web"),
        lambda: machine.region.undelete("ada", "web"),
    ]
    for change in changes:
        before = {key: bucket.get(key) for key in keys(bucket)}
        number = 0
        survived = False
        while not survived:
            number += 1
            reset(bucket)
            for key, data in before.items():
                bucket.put(key, data)
            kill_at(watched, number, done=done)
            try:
                change()
                survived = True
            except Killed:
                pass
            let_live(watched)
            assert broken(bucket) == []
            present = bucket.head("images/ada/web") is not None
            assert present or change is changes[0] or keys(bucket, "deleted/")
            if not survived:
                try:
                    change()
                except Exists:
                    assert present
                except NotFound:
                    assert not present or change is changes[2]
            assert broken(bucket) == []
        assert number > 5
