"""Leases: one at a time, whoever asks at once; renewed, lost, dead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from imagefs.errors import Busy
from imagefs.model import SECOND
from imagefs.region import lease as lease_module
from imagefs.region.bucket import Bucket
from imagefs.region.layout import (
    CLEANING,
    LeaseBody,
    cleaning_key,
    decode_lease,
    encode_lease,
    parse_cleaning,
)
from imagefs.region.lease import Lease, LeaseLost, Terms

LOW, HIGH = bytes(16), b"\xff" * 16
QUICK = Terms(renew=0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many ns the machine slept, in a list of one."""
    slept = [0]
    real = lease_module.boottime
    monkeypatch.setattr(lease_module, "boottime", lambda: real() + slept[0])
    return slept  # type: ignore[return-value]


def make(bucket: Bucket, store: bytes, terms: Terms = Terms()) -> Lease:  # noqa: B008
    return Lease(bucket, cleaning_key(store), CLEANING, parse_cleaning, terms=terms, busy="Wait")


def keys(bucket: Bucket) -> list[str]:
    return [listed.key for listed in bucket.list(CLEANING)]


def test_a_lease_is_there_as_long_as_it_lasts(bucket: Bucket) -> None:
    with make(bucket, LOW) as lease:
        assert keys(bucket) == [cleaning_key(LOW)]
        assert lease.now >= lease.began > 0
        lease.confirm()
        assert lease.still_mine()
    assert keys(bucket) == []


@pytest.mark.parametrize(("holder", "asker"), [(LOW, HIGH), (HIGH, LOW)])
def test_who_comes_later_is_refused(bucket: Bucket, holder: bytes, asker: bytes) -> None:
    with make(bucket, holder) as lease:
        with pytest.raises(Busy, match="Wait"), make(bucket, asker):
            pytest.fail("Both have it")
        lease.confirm()
        assert keys(bucket) == [cleaning_key(holder)]


def test_what_is_no_lease_keeps_nobody_waiting(bucket: Bucket) -> None:
    bucket.put(f"{CLEANING}somebody", b"x")
    with make(bucket, LOW):
        assert len(keys(bucket)) == 2


def test_of_many_who_ask_at_once_one_gets_it(bucket: Bucket) -> None:
    """And the others once it is free, or never: but never two at a time, and never nobody."""
    inside = 0
    most = 0
    had = 0
    lock = threading.Lock()
    barrier = threading.Barrier(4)

    def ask(number: int) -> None:
        nonlocal inside, most, had
        barrier.wait()
        try:
            with make(bucket, bytes([number * 60]) * 16) as lease:
                with lock:
                    inside += 1
                    most = max(most, inside)
                    had += 1
                lease.confirm()
                with lock:
                    inside -= 1
        except Busy:
            return

    for _ in range(5):
        had = 0
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ask, range(4)))
        assert most == 1
        assert had >= 1
        assert keys(bucket) == []


def test_a_lease_is_renewed_when_that_is_due(bucket: Bucket) -> None:
    with make(bucket, LOW, QUICK) as lease:
        body = decode_lease(bucket.get(lease.key))
        assert body.began is None
        lease.keep()
        assert decode_lease(bucket.get(lease.key)) == LeaseBody(body.token, lease.began)
    with make(bucket, LOW) as lease:
        body = decode_lease(bucket.get(lease.key))
        lease.keep()
        assert decode_lease(bucket.get(lease.key)) == body


def test_one_who_slept_has_lost_it(bucket: Bucket, clock: list[int]) -> None:
    with make(bucket, LOW) as lease:
        clock[0] += Terms().trust + SECOND
        assert not lease.still_mine()
        for ask in (lease.keep, lease.check, lease.confirm, lease.tell_time):
            with pytest.raises(LeaseLost):
                ask()
    assert keys(bucket) == []


def test_a_lease_that_another_attempt_took_is_lost(bucket: Bucket) -> None:
    """A copy of the store, or a process of the same store that was taken for dead."""
    with make(bucket, LOW, QUICK) as lease, make(bucket, LOW) as other:
        for ask in (lease.keep, lease.confirm):
            with pytest.raises(LeaseLost):
                ask()
        other.confirm()


def test_a_lease_that_somebody_removed_is_lost(bucket: Bucket, clock: list[int]) -> None:
    with make(bucket, LOW, QUICK) as lease:
        bucket.delete(lease.key)
        with pytest.raises(LeaseLost):
            lease.keep()
        assert keys(bucket) == []
        clock[0] += Terms().trust + SECOND
        bucket.put(lease.key, encode_lease(LeaseBody("another", None)))
    assert keys(bucket) == [cleaning_key(LOW)]


def test_a_dead_lease_keeps_nobody_waiting(bucket: Bucket) -> None:
    bucket.put(cleaning_key(HIGH), encode_lease(LeaseBody("x", None)))
    listed = bucket.head(cleaning_key(HIGH))
    assert listed is not None
    # So that it is dead after two seconds of the server, whole seconds or not.
    terms = msgspec.structs.replace(Terms(), dead=SECOND)
    deadline = time.monotonic() + 30
    while True:
        try:
            with make(bucket, LOW, terms) as lease:
                assert lease.now > listed.modified
                break
        except Busy:
            assert time.monotonic() < deadline


def test_one_who_dies_takes_up_his_own_lease_again(bucket: Bucket) -> None:
    bucket.put(cleaning_key(LOW), encode_lease(LeaseBody("before the crash", 5)))
    with make(bucket, LOW) as lease:
        lease.confirm()
        assert lease.began > 5
