"""Cleaning a region: what nothing needs goes, and nothing else, whatever happens meanwhile."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from imagefs.errors import Busy, Corrupt, NotFound
from imagefs.format.region import encode_descriptor
from imagefs.model import ObjectId
from imagefs.region import layout
from imagefs.region import lease as lease_module
from imagefs.region.bucket import Bucket
from imagefs.region.layout import ImageName, LeaseBody, LeaseKey
from imagefs.region.lease import Lease, LeaseLost, Terms
from imagefs.region.packs import usable_packs
from imagefs.region.region import GcReport
from tests.region.faults import watch
from tests.region.machines import (
    DAY,
    Machine,
    broken,
    describe,
    keys,
    packs,
    put_packs,
    random_pack,
)

ROUNDS = 50


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
    store = other.regions._tenant.store_id()
    bucket.put(layout.cleaning_key(store), b"")
    with pytest.raises(Busy, match="cleaned by another machine"):
        machine.region.gc(0)
    other.region.gc(0)
    machine.region.gc(0)


def test_one_process_of_a_store_cleans_at_a_time(machine: Machine) -> None:
    with machine.region._cleaning(), pytest.raises(Busy, match="from here already"):
        machine.region.gc(0)
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
    with pytest.raises(Corrupt, match="gone or about to go"):
        machine.copy("ada", "web", reuse=True)
    assert other.region.listing("ada").images == []
