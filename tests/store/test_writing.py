"""Writing objects: once each, durable before they are indexed, whole or not at all."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagefs.errors import Corrupt, ImagefsError, InvalidArgument, IOFailure, NoSpace
from imagefs.format.record import MAX_BLOCK, object_id
from imagefs.model import CHUNK_SIZE, ObjectId
from imagefs.store import Store
from imagefs.store.index import Index, Row
from imagefs.store.packs import Packs
from tests.store.watched import WatchedDisk


def noise(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


def records(path: Path) -> int:
    """Records in the store, by rebuilding nothing: distinct places in the index."""
    with Store.open(path) as store:
        return len(store._index._query("SELECT DISTINCT pack, offset FROM object"))


def put(store: Store, datas: Iterable[bytes]) -> list[ObjectId]:
    with store.writer() as writer:
        ids = [writer.put(data) for data in datas]
        writer.finish()
    return ids


# -- once each --------------------------------------------------------------------------


def test_an_object_is_stored_once(store: Store) -> None:
    put(store, [b"same", b"same", b"other"])
    put(store, [b"same"])
    with store.writer() as writer:
        assert writer.put(b"same", metadata=True) == object_id(b"same")
        writer.finish()
    assert store.statistics().objects == 2


def test_a_known_id_is_taken_without_hashing(store: Store) -> None:
    with store.writer() as writer:
        writer.put_hashed(object_id(b"known"), b"known")
        writer.finish()
    assert store.get(object_id(b"known")) == b"known"


def test_small_objects_share_records_and_chunks_have_their_own(store: Store, path: Path) -> None:
    put(store, [b"small %d" % n for n in range(200)])
    assert records(path) == 1
    put(store, [noise(n, CHUNK_SIZE) for n in range(3)])
    assert records(path) == 4


def test_content_and_metadata_are_in_different_records(store: Store, path: Path) -> None:
    with store.writer() as writer:
        for number in range(10):
            writer.put(b"content %d" % number)
            writer.put(b"metadata %d" % number, metadata=True)
        writer.finish()
    assert records(path) == 2


def test_very_many_tiny_objects_fit(store: Store) -> None:
    datas = [b"%d" % number for number in range(10_000)]
    ids = put(store, datas)
    assert [store.get(oid) for oid in ids] == datas


def test_an_object_that_is_too_long_is_refused(store: Store) -> None:
    with store.writer() as writer, pytest.raises(InvalidArgument, match="longer than"):
        writer.put(bytes(MAX_BLOCK + 1))


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    datas=st.lists(
        st.one_of(
            st.binary(max_size=50), st.builds(noise, st.integers(0, 9), st.integers(0, 200_000))
        )
    )
)
def test_whatever_is_put_comes_back(
    tmp_path_factory: pytest.TempPathFactory, datas: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("store")
    with Store.create(path) as store:
        ids = put(store, datas)
    with Store.open(path) as store:
        assert [store.get(oid) for oid in ids] == datas
        assert store.statistics().objects == len(set(ids))


# -- threads and writers ----------------------------------------------------------------


def test_many_threads_put_into_one_writer(store: Store) -> None:
    def work(writer_number: int) -> list[ObjectId]:
        return [writer.put(noise(n, 100 * n)) for n in range(200 - writer_number)]

    with store.writer() as writer, ThreadPoolExecutor(4) as threads:
        ids = list(threads.map(work, range(4)))
        writer.finish()
    assert ids[0][:197] == ids[3]
    for number, oid in enumerate(ids[0]):
        assert store.get(oid) == noise(number, 100 * number)


def test_two_writers_append_to_different_packs(store: Store) -> None:
    with store.writer() as one, store.writer() as two:
        first, second = one.put(noise(1, CHUNK_SIZE)), two.put(noise(2, CHUNK_SIZE))
        one.finish()
        two.finish()
    assert store.statistics().packs == 2
    assert store.get(first) == noise(1, CHUNK_SIZE)
    assert store.get(second) == noise(2, CHUNK_SIZE)
    put(store, [b"third"])
    assert store.statistics().packs == 2


def test_a_full_pack_is_followed_by_another(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Packs, "full", 3 * CHUNK_SIZE)
    datas = [noise(n, CHUNK_SIZE) for n in range(10)]
    ids = put(store, datas)
    assert store.statistics().packs == 4
    put(store, [b"one more"])
    assert store.statistics().packs == 4
    assert [store.get(oid) for oid in ids] == datas


def test_a_writer_goes_on_after_finish(store: Store) -> None:
    with store.writer() as writer:
        first = writer.put(b"first")
        writer.finish()
        assert store.get(first) == b"first"
        second = writer.put(b"second")
        writer.finish()
        writer.finish()
        assert store.get(second) == b"second"


def test_many_objects_are_indexed_on_the_way(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagefs.store.writer._CHECKPOINT_ROWS", 10)
    datas = [noise(n, CHUNK_SIZE) for n in range(35)]
    with store.writer() as writer:
        ids = [writer.put(data) for data in datas]
        ids += [writer.put(data) for data in datas]
        writer.finish()
    assert ids[:35] == ids[35:]
    assert store.statistics().objects == 35


# -- order and durability ---------------------------------------------------------------


def test_packs_are_synced_before_they_are_indexed(
    store: Store, disk: WatchedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Index.add

    def watched_add(self: Index, rows: list[Row], ends: dict[int, int]) -> None:
        disk.calls.append(("index", ""))
        add(self, rows, ends)

    monkeypatch.setattr(Index, "add", watched_add)
    put(store, [b"first"])
    assert [call for call, _ in disk.calls] == [
        "pwrite", "pwritev", "fdatasync", "fsync_dir", "index",
    ]  # fmt: skip
    disk.calls.clear()
    put(store, [b"second"])
    assert [call for call, _ in disk.calls if "read" not in call] == [
        "pwritev", "fdatasync", "index",
    ]  # fmt: skip


def test_nothing_new_is_nothing_written(store: Store, disk: WatchedDisk) -> None:
    put(store, [b"known"])
    disk.calls.clear()
    put(store, [b"known"])
    assert disk.calls == []


def test_a_large_import_is_written_back_on_the_way(
    store: Store, disk: WatchedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges: list[tuple[int, int]] = []
    monkeypatch.setattr(
        disk, "start_writeback", lambda fd, offset, length: ranges.append((offset, length))
    )
    put(store, [noise(n, CHUNK_SIZE) for n in range(200)])
    assert ranges[0][0] == 24
    assert [end for start, end in ranges if end < 8 * 1024 * 1024] == []
    assert [start + length for start, length in ranges[:-1]] == [start for start, _ in ranges[1:]]


def test_what_is_not_finished_is_given_back(store: Store, path: Path) -> None:
    kept = put(store, [noise(1, CHUNK_SIZE)])
    size = (path / "packs" / "00000001.pack").stat().st_size
    with store.writer() as writer:
        lost = [writer.put(noise(n, CHUNK_SIZE)) for n in range(2, 9)]
    assert (path / "packs" / "00000001.pack").stat().st_size == size
    assert lost[0] not in store
    assert store.get(kept[0]) == noise(1, CHUNK_SIZE)
    put(store, [noise(2, CHUNK_SIZE)])
    assert store.get(lost[0]) == noise(2, CHUNK_SIZE)


@pytest.mark.parametrize("error", [NoSpace, IOFailure])
@pytest.mark.parametrize(("before", "changes"), [([b"before"], 7), ([], 8)])
def test_every_failing_write_leaves_what_was_there_and_nothing_half(
    path: Path, error: type[ImagefsError], before: list[bytes], changes: int
) -> None:
    """Fails change number N for all N until the import succeeds."""
    with Store.create(path) as store:
        put(store, before)
    datas = [noise(n, CHUNK_SIZE) for n in range(5)] + [b"small"]
    change, failed = 0, True
    descriptors = len(os.listdir("/proc/self/fd"))
    while failed:
        change += 1
        disk = WatchedDisk()
        disk.error, disk.fail_at = error, change
        with Store.open(path, disk) as store:
            try:
                put(store, datas)
                failed = False
            except error:
                assert disk.changes >= change
                assert all(object_id(data) not in store for data in datas)
        assert len(os.listdir("/proc/self/fd")) == descriptors
        with Store.open(path) as store:
            assert [store.get(object_id(data)) for data in before] == before
            for data in datas:
                if object_id(data) in store:
                    assert store.get(object_id(data)) == data
                else:
                    assert failed
    assert change == changes + 1  # six records and a sync, in a new pack its name too


def test_a_failure_is_raised_by_every_later_call(path: Path, disk: WatchedDisk) -> None:
    with Store.create(path, disk) as store, store.writer() as writer:
        disk.fail_at = disk.changes + 3
        writer.put(noise(1, CHUNK_SIZE))
        with pytest.raises(IOFailure):
            writer.finish()
        # A sync that failed may succeed when it is tried again, and mean nothing.
        with pytest.raises(IOFailure):
            writer.finish()
        with pytest.raises(IOFailure):
            writer.put(noise(2, CHUNK_SIZE))


def test_putting_waits_while_the_disk_is_behind(
    store: Store, disk: WatchedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    pwritev = disk.pwritev

    def slow(fd: int, parts: list[bytes], offset: int) -> None:
        assert go_on.wait(30)
        pwritev(fd, parts, offset)

    monkeypatch.setattr(disk, "pwritev", slow)
    count = 0

    def fill(writer: object) -> None:
        nonlocal count
        for number in range(100):
            put_one(noise(number, CHUNK_SIZE))
            count += 1

    with store.writer() as writer:
        put_one = writer.put
        thread = threading.Thread(target=fill, args=(writer,))
        thread.start()
        with writer._state:
            while writer._waiting < 16:
                writer._state.wait(0.01)
        assert count <= 17
        go_on.set()
        thread.join()
        writer.finish()
    assert store.statistics().objects == 100


def test_objects_not_finished_are_unknown_to_readers(store: Store) -> None:
    with store.writer() as writer:
        oid = writer.put(b"soon")
        with pytest.raises(Corrupt, match="missing"):
            store.get(oid)
        assert "1 objects pending" in repr(writer)
        writer.finish()
        assert store.get(oid) == b"soon"
