"""Cleaning a region beside whatever others do there, and killed anywhere: what is needed stays."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from imagefs.errors import Busy, Corrupt, Exists, NotFound
from imagefs.model import ObjectId
from imagefs.region import lease as lease_module
from imagefs.region.bucket import Bucket
from imagefs.region.layout import ImageName
from imagefs.region.packs import usable_packs
from imagefs.region.region import GcReport
from tests.region.faults import Killed, WatchedBucket, kill_at, let_live, watch
from tests.region.machines import (
    Machine,
    broken,
    describe,
    keys,
    packs,
    populate,
    put_packs,
    reset,
)
from tests.seed import SEED

ROUNDS = 50


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds a lease taken gives up soon: it is not given back before he has."""
    monkeypatch.setattr(lease_module, "_WAITS", (0.01, 0.02))
    monkeypatch.setattr(lease_module, "_LONGEST_RETREAT", 0.02)


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
                except (Exists, NotFound, Corrupt, Busy) as error:
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
    except (NotFound, Corrupt, Busy):
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


def stride_of(machine: Machine) -> int:
    """Every request in a directory, other ones in each run behind a server, which takes longer."""
    return 1 if machine.url.startswith("file:") else 8


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


def begin_rename(machine: Machine, bucket: Bucket) -> Callable[[], None]:
    """An image gets a name that a listing has passed, and back."""
    try:
        machine.region.rename("ada", "live", "a-live")
    except Busy:
        assert bucket.head("images/ada/live") is not None
        return lambda: None

    def back() -> None:
        try:
            machine.region.rename("ada", "a-live", "live")
        except Busy:
            assert bucket.head("images/ada/a-live") is not None

    return back


@pytest.mark.parametrize("begin", [begin_copy, begin_undelete, begin_use, begin_rename])
def test_at_every_request_of_a_gc_something_begins(
    machine: Machine,
    other: Machine,
    bucket: Bucket,
    begin: Callable[[Machine, Bucket], Callable[[], None]],
) -> None:
    """And ends some requests later: whatever there is in the end has its packs."""
    watched = watch(machine)
    stride = stride_of(machine)
    number = SEED % stride - stride + 1
    while watched.count >= number:
        number += stride
        later = (0, 1, 3, 8)[(number + SEED) % 4]
        reset(bucket)
        populate(bucket)
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


def interleave(
    gc: WatchedBucket, first: int, change: WatchedBucket, second: int, clean: Callable[[], object],
    act: Callable[[], object],
) -> None:  # fmt: skip
    """A gc stops before its request `first`; then the change goes on to its request `second`; then
    the gc goes on to its end, and then the change."""
    stopped, go_on = threading.Event(), threading.Event()
    gc.count = change.count = 0

    def stop(count: int) -> None:
        if count == first:
            stopped.set()
            assert go_on.wait(120)

    gc.before = stop
    with ThreadPoolExecutor(1) as pool:
        cleaning = pool.submit(clean)
        cleaning.add_done_callback(lambda _: stopped.set())

        def finish(count: int) -> None:
            if count == second:
                go_on.set()
                cleaning.result()

        assert stopped.wait(120)
        change.before = finish
        try:
            act()
        finally:
            go_on.set()
            cleaning.result()
            let_live(gc)
            let_live(change)


def copy_that_counts(machine: Machine) -> None:
    machine.copy("bob", "mail", packs=1, reuse=True)


def undelete_old(machine: Machine) -> None:
    begin_undelete(machine, machine.region._bucket)


def delete_and_use(machine: Machine) -> None:
    begin_use(machine, machine.region._bucket)


@pytest.mark.parametrize("act", [copy_that_counts, undelete_old, delete_and_use])
def test_a_gc_that_stops_anywhere_beside_a_change_that_does(
    machine: Machine, other: Machine, bucket: Bucket, act: Callable[[Machine], None]
) -> None:
    """Neither sees the other's requests as one: whatever there is in the end has its packs."""
    gc, change = watch(machine), watch(other)
    stride = stride_of(machine)
    first = SEED % stride - stride + 1
    while gc.count >= first:
        first += stride
        for second in sorted((first * 7 + SEED + 5 * step) % 13 + 1 for step in range(2)):
            reset(bucket)
            populate(bucket)
            other.region._changed()
            interleave(gc, first, change, second, lambda: machine.region.gc(0), lambda: act(other))
            assert broken(bucket) == [], f"seed {SEED}: {first}, {second}"
    assert first > 15


# -- crashes ----------------------------------------------------------------------------


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
        populate(bucket)
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
