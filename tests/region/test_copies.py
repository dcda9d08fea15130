"""Copies by several machines to one region: of one name one wins, and every image is whole."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imagefs.disk import Disk
from imagefs.errors import Busy, Cancelled, Corrupt, Exists, ImagefsError, NotFound
from imagefs.model import ObjectId
from imagefs.region.bucket import Bucket
from imagefs.region.lease import Terms
from imagefs.region.region import Plan, Regions
from imagefs.store.store import Store
from imagefs.tree.objects import tree_objects
from tests.region.faults import watch
from tests.region.machine import keep, numbered
from tests.region.machines import Machine, broken, keys
from tests.tree import samples

ROUNDS = 10


def tree(number: int) -> samples.Node:
    """Trees that have much in common."""
    return samples.directory(
        {
            b"common": numbered(20, 3000),
            b"own": numbered(5, 3000, seed=number + 100),
            b"big": samples.regular(bytes([number + 1]) * 100_000),
        }
    )


def read_whole(machine: Machine, manifest: ObjectId) -> int:
    """Gets every object of a tree; returns how many there are."""
    return sum(1 for oid, _ in tree_objects(machine.store.get, manifest) if machine.store.get(oid))


# -- one copy ---------------------------------------------------------------------------


def test_a_copy_is_read_on_another_machine(machine: Machine, other: Machine) -> None:
    manifest = keep(machine.store, tree(1))
    heard: list[tuple[int, int]] = []
    image = machine.region.send(
        "ada",
        "web",
        manifest,
        entries=29,
        size=0,
        created=5,
        parent="base",
        tell=lambda done, total: heard.append((done, total)),
    )
    assert heard[0][0] == 0
    assert heard[-1][0] == heard[-1][1] > 0
    (seen,) = other.region.listing("ada").images
    assert (seen.descriptor, seen.descriptor.parent) == (image.descriptor, "base")
    assert read_whole(other, manifest) == read_whole(machine, manifest) > 25


def test_a_plan_says_what_a_copy_will_do(machine: Machine, other: Machine, bucket: Bucket) -> None:
    first = keep(machine.store, tree(1))
    second = keep(other.store, tree(2))
    plan = machine.region.plan(first)
    assert plan.objects == read_whole(machine, first)
    before = keys(bucket)
    assert plan.bytes > 0
    assert keys(bucket) == before
    machine.send("ada", "one", first)
    assert machine.region.plan(first) == Plan(0, 0)
    rest = other.region.plan(second)
    assert 0 < rest.objects < plan.objects
    other.send("ada", "two", second)
    assert other.region.plan(second) == Plan(0, 0)
    assert broken(bucket) == []


def test_a_copy_upon_a_base_sends_what_differs(machine: Machine, other: Machine) -> None:
    first, second = keep(machine.store, tree(1)), keep(machine.store, tree(2))
    machine.send("ada", "one", first)
    alone = machine.region.plan(second)
    upon = machine.region.plan(second, base=first)
    assert alone == upon
    machine.region.send("ada", "two", second, entries=1, size=1, created=1, parent=None, base=first)
    assert len(other.region.listing("ada").images) == 2
    read_whole(other, second)


def test_a_cancelled_copy_publishes_nothing(machine: Machine, bucket: Bucket) -> None:
    manifest = keep(machine.store, tree(1))
    with pytest.raises(Cancelled):
        machine.region.send(
            "ada", "web", manifest, entries=1, size=1, created=1, parent=None,
            cancelled=lambda: True,
        )  # fmt: skip
    assert keys(bucket, "images/") == keys(bucket, "copies/") == []
    machine.send("ada", "web", manifest)


def test_a_copy_of_what_is_damaged_here_publishes_nothing(machine: Machine, bucket: Bucket) -> None:
    with pytest.raises(Corrupt):
        machine.region.send(
            "ada", "web", ObjectId(bytes(32)), entries=1, size=1, created=1, parent=None
        )
    assert keys(bucket, "images/") == keys(bucket, "copies/") == []


def test_one_store_copies_to_a_name_once_at_a_time(machine: Machine) -> None:
    manifest = keep(machine.store, tree(1))
    inside = threading.Event()
    done = threading.Event()

    def tell(_: int, __: int) -> None:
        inside.set()
        assert done.wait(60)

    with ThreadPoolExecutor(1) as pool:
        copy = pool.submit(
            machine.region.send, "ada", "web", manifest,
            entries=1, size=1, created=1, parent=None, tell=tell,
        )  # fmt: skip
        assert inside.wait(60)
        with pytest.raises(Busy, match="being copied"):
            machine.send("ada", "web", manifest)
        with pytest.raises(Busy, match="being copied"):
            machine.region.remove("ada", "web")
        done.set()
        copy.result()


def test_a_copy_whose_lease_was_lost_begins_again(
    machine: Machine, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    """The machine slept: others took it for dead, and a gc took its packs."""
    manifest = keep(machine.store, tree(1))
    watched = watch(machine)
    removed: list[str] = []

    def lose(_: int) -> None:
        if not removed and bucket.list("packs/") and (leases := keys(bucket, "copies/")):
            removed.append(leases[0])
            bucket.delete(leases[0])
            for pack in keys(bucket, "packs/"):
                bucket.delete(pack)

    watched.behind = lose
    machine.send("ada", "web", manifest)
    assert removed
    assert "begins again" in caplog.text
    assert broken(bucket) == []


# -- at once ----------------------------------------------------------------------------


def test_of_two_machines_at_one_name_one_wins(
    machine: Machine, other: Machine, bucket: Bucket
) -> None:
    manifests = {machine: keep(machine.store, tree(1)), other: keep(other.store, tree(2))}
    barrier = threading.Barrier(2)

    def copy(which: Machine, name: str) -> bool:
        barrier.wait()
        try:
            which.send("ada", name, manifests[which])
        except (Exists, Busy):
            return False
        return True

    wins = {machine: 0, other: 0}
    with ThreadPoolExecutor(2) as pool:
        for number in range(ROUNDS):
            name = f"web-{number}"
            results = list(pool.map(copy, (machine, other), (name, name)))
            assert sum(results) == 1
            winner = machine if results[0] else other
            wins[winner] += 1
            (seen,) = [image for image in other.region.listing("ada").images if image.name == name]
            assert seen.descriptor.manifest == manifests[winner]
    assert broken(bucket) == []
    assert keys(bucket, "copies/") == []
    print(f"Wins: {sorted(wins.values())}")


def _copy_in_process(
    store: Path, url: str, number: int, rounds: int, begin: object, results: object
) -> None:
    """One machine as a process: copies to the same names as the other one."""
    with Store.open(store) as opened:
        regions = Regions(opened, Disk(), terms=Terms())
        region = regions.open("eu", url)
        manifest = keep(opened, tree(number))
        for round_ in range(rounds):
            begin.wait(120)  # type: ignore[attr-defined]
            try:
                region.send(
                    "ada", f"web-{round_}", manifest,
                    entries=1, size=1, created=1, parent=None,
                )  # fmt: skip
                results.put((round_, number))  # type: ignore[attr-defined]
            except (Exists, Busy):
                pass
            except ImagefsError as error:
                results.put((round_, str(error)))  # type: ignore[attr-defined]
        regions.close()


def test_of_two_processes_at_one_name_one_wins(
    machine: Machine, other: Machine, bucket: Bucket
) -> None:
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(2)
    results = context.Queue()
    processes = [
        context.Process(
            target=_copy_in_process,
            args=(one.store.path, one.url, number, ROUNDS, begin, results),
        )
        for number, one in enumerate((machine, other))
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    winners = sorted(results.get(timeout=10) for _ in range(ROUNDS))
    assert results.empty()
    assert [round_ for round_, _ in winners] == list(range(ROUNDS))
    manifests = {number: keep(machine.store, tree(number)) for number in range(2)}
    seen = {image.name: image for image in machine.region.listing("ada").images}
    for round_, winner in winners:
        assert seen[f"web-{round_}"].descriptor.manifest == manifests[winner]
    assert broken(bucket) == []


@pytest.mark.parametrize("rounds", [50])
def test_every_image_is_whole_after_gcs_during_copies(
    tmp_path: Path, region_url: str, machine: Machine, other: Machine, bucket: Bucket, rounds: int
) -> None:
    """Copies that count on packs of images that are being deleted, while another machine cleans;
    a third one then reads every object of every image."""
    manifests = [keep(machine.store, tree(number)) for number in range(4)]
    stop = threading.Event()
    removed = 0
    waited = 0

    def clean() -> None:
        nonlocal removed, waited
        while not stop.is_set():
            report = other.region.gc(0)
            removed += report.packs
            waited += report.waiting

    with ThreadPoolExecutor(1) as pool:
        cleaning = pool.submit(clean)
        try:
            for number in range(rounds):
                machine.send("ada", f"web-{number % 2}", manifests[number % 4])
                if number:
                    machine.region.remove("ada", f"web-{(number - 1) % 2}")
                if number % 10 == 9:
                    with Machine(tmp_path / f"reader-{number}", region_url) as reader:
                        for image in reader.region.listing("ada").images:
                            assert read_whole(reader, ObjectId(image.descriptor.manifest)) > 25
                assert broken(bucket) == []
        finally:
            stop.set()
        cleaning.result()
    print(f"{removed} packs went, {waited} times one had to wait for a copy")
    assert removed > rounds // 2
    assert waited > 0


def test_a_copy_that_was_killed_goes_on_where_it_was(
    tmp_path: Path, machine: Machine, bucket: Bucket
) -> None:
    """Packs that arrived are not sent again, and the lease is no one else's."""
    manifest = keep(machine.store, numbered(400, 100_000))
    watched = watch(machine)

    class Stopped(BaseException):
        pass

    def stop(_: int) -> None:
        if len(keys(bucket, "packs/")) >= 2:
            raise Stopped

    watched.before = stop
    with pytest.raises(Stopped):
        machine.send("ada", "web", manifest)
    assert keys(bucket, "images/") == []
    assert len(keys(bucket, "copies/")) == 1
    arrived = keys(bucket, "packs/")
    watched.before = lambda _: None
    sent = machine.region.statistics().sent
    machine.send("ada", "web", manifest)
    again = machine.region.statistics().sent - sent
    total = sum(listed.size for listed in bucket.list("packs/"))
    old = sum(listed.size for listed in bucket.list("packs/") if listed.key in arrived)
    assert again < (total - old) * 1.01 + 100_000
    assert broken(bucket) == []
    assert keys(bucket, "copies/") == []


def test_a_region_that_has_nothing_is_not_made_by_a_copy(tmp_path: Path, region_url: str) -> None:
    with Machine(tmp_path / "first", region_url) as machine:
        manifest = keep(machine.store, tree(1))
        with pytest.raises(NotFound, match="no region"):
            machine.send("ada", "web", manifest)
