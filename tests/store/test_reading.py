"""Reading objects: verified, cached, loaded once, and never waited for on the loop's thread."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imagefs.errors import Corrupt, IOFailure, NotReady
from imagefs.format.record import object_id
from imagefs.model import CHUNK_SIZE, ObjectId
from imagefs.store import Store
from imagefs.store.packs import Packs
from tests.store.watched import WatchedDisk

WAIT = 30.0


def put(store: Store, datas: Iterable[bytes], *, metadata: bool = False) -> list[ObjectId]:
    with store.writer() as writer:
        ids = [writer.put(data, metadata=metadata) for data in datas]
        writer.finish()
    return ids


def chunk(number: int) -> bytes:
    """As large as a chunk, so that it has a record of its own."""
    return (b"%08d" % number) * (CHUNK_SIZE // 8)


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def pack(path: Path) -> Path:
    return path / "packs" / "00000001.pack"


def get_offline(store: Store, oid: ObjectId) -> bytes:
    """Takes a step the way everybody does: again after each piece of work."""
    while True:
        try:
            return store.get_nowait(oid)
        except NotReady as not_ready:
            work = not_ready.work
        assert work is not None
        work()


# -- what is given ----------------------------------------------------------------------


def test_objects_come_back_whatever_their_size(store: Store) -> None:
    datas = [b"", b"x", b"y" * 1000, chunk(1), chunk(2)[:-1], bytes(range(256)) * 4096]
    for oid, data in zip(put(store, datas), datas, strict=True):
        assert oid == object_id(data)
        assert store.get(oid) == data
        assert store.get_nowait(oid) == data
        assert oid in store


def test_an_object_that_is_missing_is_named(store: Store) -> None:
    oid = object_id(b"never stored")
    assert oid not in store
    for get in (store.get, store.get_nowait):
        with pytest.raises(Corrupt, match=f"{oid.hex()} is missing"):
            get(oid)


def test_another_store_object_sees_new_objects_at_once(store: Store, path: Path) -> None:
    with Store.open(path) as other:
        (oid,) = put(store, [b"new"])
        assert other.get(oid) == b"new"


# -- how often the disk is asked --------------------------------------------------------


def test_one_record_is_one_read(store: Store, disk: WatchedDisk) -> None:
    ids = put(store, [b"small %d" % n for n in range(100)])
    disk.calls.clear()
    for oid in ids:
        store.get(oid)
    assert disk.calls == [("pread", "00000001.pack")]


def test_in_the_page_cache_one_record_is_one_read_in_place(store: Store, disk: WatchedDisk) -> None:
    ids = put(store, [b"small %d" % n for n in range(100)])
    disk.calls.clear()
    for oid in ids:
        store.get_nowait(oid)
    assert disk.calls == [("pread_nowait", "00000001.pack")]


def test_what_is_not_in_memory_is_asked_for(store: Store, disk: WatchedDisk) -> None:
    (oid,) = put(store, [b"content"])
    disk.in_memory = False
    with pytest.raises(NotReady) as not_ready:
        store.get_nowait(oid)
    assert "pread" not in disk.names("pread")
    assert not_ready.value.key == ("record", 1, 24)
    assert not_ready.value.work is not None
    assert not_ready.value.finish is None
    not_ready.value.work()
    assert store.get_nowait(oid) == b"content"
    assert len(disk.names("pread")) == 1


def test_a_large_block_is_not_expanded_in_place(store: Store, disk: WatchedDisk) -> None:
    (oid,) = put(store, [bytes(8 * 1024 * 1024)])
    with pytest.raises(NotReady):
        store.get_nowait(oid)
    assert get_offline(store, oid) == bytes(8 * 1024 * 1024)


def test_a_record_that_many_threads_want_is_loaded_once(store: Store, disk: WatchedDisk) -> None:
    ids = put(store, [b"small %d" % n for n in range(8)])
    disk.calls.clear()
    reading, go_on = threading.Event(), threading.Event()

    def stop_first_reader() -> None:
        reading.set()
        assert go_on.wait(WAIT)

    disk.before_pread = stop_first_reader
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(store.get, ids[0])
        assert reading.wait(WAIT)
        others = [threads.submit(store.get, oid) for oid in ids[1:]]
        with pytest.raises(NotReady):
            store.get_nowait(ids[0])  # waits for the load instead of reading beside it
        go_on.set()
        assert first.result(WAIT) == b"small 0"
        assert [other.result(WAIT) for other in others] == [b"small %d" % n for n in range(1, 8)]
    assert disk.calls == [("pread", "00000001.pack")]


def test_threads_that_wait_for_a_load_all_get_its_error(store: Store, disk: WatchedDisk) -> None:
    ids = put(store, [b"small %d" % n for n in range(4)])
    started = threading.Barrier(4)

    def fail() -> None:
        raise IOFailure("The host's disk failed")

    def get(oid: ObjectId) -> bytes:
        started.wait(WAIT)
        return store.get(oid)

    disk.before_pread = fail
    with ThreadPoolExecutor(4) as threads:
        results = [threads.submit(get, oid) for oid in ids]
        for result in results:
            with pytest.raises(IOFailure):
                result.result(WAIT)
    disk.before_pread = lambda: None
    assert store.get(ids[0]) == b"small 0"


def test_reading_ahead_names_each_record_once(store: Store, disk: WatchedDisk) -> None:
    small = put(store, [b"a", b"b"])
    large = put(store, [chunk(1), chunk(2)])
    store.get(large[1])
    loads = store.missing([*small, *large, object_id(b"nowhere")])
    assert len(loads) == 2
    disk.calls.clear()
    for load in loads:
        assert load.work is not None
        load.work()
    assert len(disk.calls) == 2
    assert store.missing([*small, *large]) == []
    assert store.get_nowait(large[0]) == chunk(1)
    assert len(disk.calls) == 2


# -- the cache --------------------------------------------------------------------------


def test_the_cache_stays_within_its_bound(path: Path) -> None:
    limit = 40 * CHUNK_SIZE
    with Store.create(path, cache_bytes=limit) as store:
        ids = put(store, map(chunk, range(100)))
        for oid in ids:
            store.get(oid)
            assert store.statistics().cached_bytes <= limit
        assert store.statistics().cached_records > 30


def test_what_was_used_last_is_kept(path: Path, disk: WatchedDisk) -> None:
    with Store.create(path, disk, cache_bytes=20 * CHUNK_SIZE) as store:
        ids = put(store, map(chunk, range(40)))
        disk.calls.clear()
        for oid in ids:
            store.get(oid)
            store.get(ids[0])
            store.get_nowait(ids[1])
        assert disk.names("pread_nowait") == ["00000001.pack"]
        assert len(disk.names("pread")) == 39
        assert store.statistics().cache_hits == 80
        store.get(ids[2])
        assert len(disk.names("pread")) == 40


def test_without_a_cache_a_step_still_succeeds_after_its_work(
    path: Path, disk: WatchedDisk
) -> None:
    disk.in_memory = False
    with Store.create(path, disk, cache_bytes=0) as store:
        ids = put(store, map(chunk, range(30)))
        disk.calls.clear()
        for number, oid in enumerate(ids):
            assert get_offline(store, oid) == chunk(number)
        assert len(disk.names("pread")) == 30


def test_more_packs_than_may_be_open_are_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagefs.store.packs._MAX_OPEN", 3)
    monkeypatch.setattr(Packs, "full", 1000)
    datas = [bytes([n]) * 70_000 + bytes(range(256)) * 4 for n in range(12)]
    with Store.create(path, cache_bytes=0) as store:
        ids = put(store, datas)
        assert store.statistics().packs > 5
        for _ in range(2):
            assert [store.get(oid) for oid in ids] == datas
        assert "3 open" in repr(store._packs)


# -- damage -----------------------------------------------------------------------------


def test_any_flipped_byte_of_a_pack_is_noticed(path: Path) -> None:
    with Store.create(path) as store:
        (oid,) = put(store, [b"content that is stored"])
    for offset in range(24, pack(path).stat().st_size):
        flip(pack(path), offset)
        with Store.open(path) as store:
            where = f"Object {oid.hex()} is damaged in pack 1 at offset 24: "
            with pytest.raises(Corrupt, match=where):
                store.get(oid)
            with pytest.raises(Corrupt, match=where):
                get_offline(store, oid)
        flip(pack(path), offset)


def test_a_pack_cut_short_or_lost_is_noticed(path: Path) -> None:
    with Store.create(path) as store:
        (oid,) = put(store, [chunk(1)])
    data = pack(path).read_bytes()
    for size in (0, 24, 50, len(data) - 1):
        pack(path).write_bytes(data[:size])
        with Store.open(path) as store, pytest.raises(Corrupt, match=r"damaged in pack 1 at"):
            store.get(oid)
    pack(path).unlink()
    with Store.open(path) as store, pytest.raises(Corrupt, match=r"00000001\.pack is missing"):
        store.get(oid)


def test_damage_costs_the_objects_of_its_record_only(path: Path) -> None:
    with Store.create(path) as store:
        ids = put(store, [chunk(0), chunk(1), chunk(2)])
        sizes = [store.stored_size([oid]) for oid in ids]
    flip(pack(path), 24 + sizes[0] + 30)
    with Store.open(path) as store:
        damaged = []
        for oid in ids:
            try:
                get_offline(store, oid)
            except Corrupt:
                damaged.append(oid)
        assert len(damaged) == 1


def test_the_step_and_not_its_work_raises_what_is_damaged(path: Path, disk: WatchedDisk) -> None:
    with Store.create(path) as store:
        ids = put(store, [b"first", b"second"])
    flip(pack(path), 40)
    disk.in_memory = False
    with Store.open(path, disk) as store:
        for oid in ids:  # each names itself, though both are in one record
            with pytest.raises(NotReady) as not_ready:
                store.get_nowait(oid)
            assert not_ready.value.work is not None
            not_ready.value.work()
            with pytest.raises(Corrupt, match=oid.hex()):
                store.get_nowait(oid)


def test_an_index_that_points_to_another_record_is_not_believed(path: Path) -> None:
    with Store.create(path) as store:
        one, two = put(store, [chunk(1), chunk(2)])
        store._index._writer.execute(
            "UPDATE object SET (pack, offset, size) ="
            " (SELECT pack, offset, size FROM object WHERE id = ?) WHERE id = ?",
            (one, two),
        )
        with pytest.raises(Corrupt, match="another object"):
            store.get(two)
        with pytest.raises(Corrupt, match="another object"):
            get_offline(store, two)


def test_what_is_damaged_is_stored_anew_and_heals_every_reader(path: Path) -> None:
    with Store.create(path) as store:
        ids = put(store, [b"shared", b"lost"])
    flip(pack(path), 40)
    with Store.open(path) as store, Store.open(path) as other:
        with pytest.raises(Corrupt):
            store.get(ids[0])
        with pytest.raises(Corrupt):
            other.get(ids[0])
        assert ids[0] not in store
        assert put(store, [b"shared"]) == [ids[0]]
        assert store.get(ids[0]) == b"shared"
        assert get_offline(other, ids[0]) == b"shared"
        assert ids[0] in store
        assert ids[1] not in store
        assert store.statistics().damaged_records == 1


def test_damage_is_remembered_by_later_writers(path: Path) -> None:
    with Store.create(path) as store:
        ids = put(store, [b"shared"])
        store.report_damage(ids[0])
    with Store.open(path) as store:
        assert ids[0] not in store
        put(store, [b"shared"])
        assert ids[0] in store
        assert store.statistics().objects == 2
        put(store, [b"shared"])
        assert store.statistics().objects == 2


def test_damage_another_process_reported_is_seen_by_the_next_writer(path: Path) -> None:
    with Store.create(path) as store, Store.open(path) as other:
        ids = put(store, [b"shared"])
        other.report_damage(ids[0])
        put(store, [b"shared"])
        assert store.statistics().objects == 2


def test_a_record_in_the_cache_is_given_up_when_it_is_reported(path: Path) -> None:
    with Store.create(path) as store:
        ids = put(store, [b"shared"])
        store.get(ids[0])
        store.report_damage(ids[0])
        assert store.statistics().cached_records == 0


def test_the_size_that_objects_occupy_counts_each_record_once(store: Store, path: Path) -> None:
    ids = put(store, [b"a", b"b", chunk(1)])
    assert store.stored_size(ids) == pack(path).stat().st_size - 24
    assert store.stored_size([*ids, *ids, object_id(b"nowhere")]) == store.stored_size(ids)
    assert store.stored_size(ids[:1]) == store.stored_size(ids[:2])
