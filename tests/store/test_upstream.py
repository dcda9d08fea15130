"""What a store's own packs lack, or have damaged, comes from upstream; nothing else does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

from imagefs.errors import Corrupt, ImagefsError, IOFailure, NotReady
from imagefs.format.record import object_id
from imagefs.model import ObjectId
from imagefs.store import Store
from imagefs.store.check import ObjectCheck
from tests.store.watched import WatchedDisk


class Elsewhere:
    """An upstream that is another store; counts what it is asked for, fails when told to."""

    def __init__(self, store: Store) -> None:
        self.asked: list[ObjectId] = []
        self.failure: ImagefsError | None = None
        self._store = store
        self._at_hand: set[ObjectId] = set()

    def get(self, oid: ObjectId) -> bytes | None:
        self.asked.append(oid)
        if self.failure is not None:
            raise self.failure
        return self._store.get(oid) if oid in self._store else None

    def get_nowait(self, oid: ObjectId) -> bytes | None:
        if oid not in self._store or oid in self._at_hand:
            return self.get(oid)
        raise NotReady(("elsewhere", oid), partial(self._fetch, oid), remote=True)

    def missing(self, oids: Iterable[ObjectId]) -> list[NotReady]:
        return [
            NotReady(("elsewhere", oid), partial(self._fetch, oid), remote=True)
            for oid in oids
            if oid not in self._at_hand
        ]

    def _fetch(self, oid: ObjectId) -> None:
        self._at_hand.add(oid)


def put(store: Store, *datas: bytes) -> list[ObjectId]:
    with store.writer() as writer:
        ids = [writer.put(data) for data in datas]
        writer.finish()
    return ids


def damage(path: Path) -> None:
    """Flip a byte in the first record."""
    pack = path / "packs" / "00000001.pack"
    data = bytearray(pack.read_bytes())
    data[40] ^= 1
    pack.write_bytes(data)


@pytest.fixture
def elsewhere(tmp_path: Path, store: Store) -> Iterator[Elsewhere]:
    """What the store asks for what it lacks."""
    with Store.create(tmp_path / "other") as other:
        put(other, b"far", b"both")
        store.upstream = Elsewhere(other)
        yield store.upstream


FAR, BOTH, NEAR, NOWHERE = map(object_id, (b"far", b"both", b"near", b"nowhere"))


def test_only_what_the_packs_lack_is_asked_for(
    store: Store, elsewhere: Elsewhere, disk: WatchedDisk
) -> None:
    put(store, b"near", b"both")
    for get in (store.get, store.get_nowait):
        assert get(NEAR) == b"near"
        assert get(BOTH) == b"both"
    disk.in_memory = False
    assert elsewhere.asked == []
    assert store.get(FAR) == b"far"
    assert elsewhere.asked == [FAR]


def test_what_is_far_is_not_in_the_store_all_the_same(store: Store, elsewhere: Elsewhere) -> None:
    store.get(FAR)
    assert FAR not in store
    assert store.stored_size([FAR]) == 0
    assert put(store, b"far") == [FAR]
    assert FAR in store
    assert store.statistics().objects == 1


def test_a_step_says_that_it_waits_for_another_machine(
    store: Store, elsewhere: Elsewhere, disk: WatchedDisk
) -> None:
    put(store, b"near")
    with pytest.raises(NotReady) as not_ready:
        store.get_nowait(FAR)
    assert not_ready.value.remote
    assert not_ready.value.work is not None
    not_ready.value.work()
    assert store.get_nowait(FAR) == b"far"
    disk.in_memory = False
    store._cache.clear()
    with pytest.raises(NotReady) as not_ready:
        store.get_nowait(NEAR)
    assert not not_ready.value.remote


@pytest.mark.parametrize("asks_upstream", [True, False])
def test_what_nobody_has_is_missing(
    store: Store, elsewhere: Elsewhere, *, asks_upstream: bool
) -> None:
    if not asks_upstream:
        store.upstream = None
    for get in (store.get, store.get_nowait, store.inspect):
        with pytest.raises(Corrupt, match=f"{NOWHERE.hex()} is missing"):
            get(NOWHERE)


def test_reading_ahead_asks_for_what_is_far_last(
    store: Store, elsewhere: Elsewhere, disk: WatchedDisk
) -> None:
    put(store, b"near")
    disk.in_memory = False
    found = store.missing([FAR, NEAR])
    assert [reason.remote for reason in found] == [False, True]
    store.upstream = None
    assert len(store.missing([FAR, NEAR])) == 1


# -- damage -----------------------------------------------------------------------------


def test_what_is_damaged_here_is_read_there(
    path: Path, store: Store, elsewhere: Elsewhere, caplog: pytest.LogCaptureFixture
) -> None:
    put(store, b"both")
    damage(path)
    for _ in range(3):
        assert store.get(BOTH) == b"both"
    assert [BOTH.hex() in record.getMessage() for record in caplog.records] == [True]
    with pytest.raises(NotReady) as not_ready:
        store.get_nowait(BOTH)
    for remote in (False, True):
        assert not_ready.value.remote is remote
        assert not_ready.value.work is not None
        not_ready.value.work()
        if not remote:
            with pytest.raises(NotReady) as not_ready:
                store.get_nowait(BOTH)
    assert store.get_nowait(BOTH) == b"both"
    assert store.statistics().damaged_records == 1
    assert BOTH not in store


def test_who_looks_for_damage_finds_it(path: Path, store: Store, elsewhere: Elsewhere) -> None:
    put(store, b"both")
    damage(path)
    with ObjectCheck(store) as check:
        check.check([BOTH, FAR])
        assert "damaged in pack 1" in str(check.verdict(BOTH))
        assert check.verdict(FAR) == len(b"far")


@pytest.mark.parametrize("failure", [None, IOFailure("Nobody answers")])
def test_damage_that_upstream_does_not_help_with_is_told(
    path: Path, store: Store, elsewhere: Elsewhere, failure: ImagefsError | None
) -> None:
    (oid,) = put(store, b"near")
    damage(path)
    elsewhere.failure = failure
    with pytest.raises(Corrupt, match="damaged in pack 1"):
        store.get(oid)
    with pytest.raises(NotReady) as not_ready:
        store.get_nowait(oid)
    assert not_ready.value.work is not None
    not_ready.value.work()
    with pytest.raises(Corrupt, match="damaged in pack 1"):
        store.get_nowait(oid)


def test_a_failure_upstream_is_the_answer_for_what_only_it_has(
    store: Store, elsewhere: Elsewhere
) -> None:
    elsewhere.failure = IOFailure("Nobody answers")
    with pytest.raises(IOFailure, match="Nobody answers"):
        store.get(FAR)
    with pytest.raises(IOFailure, match="Nobody answers"):
        store.get_nowait(NOWHERE)
