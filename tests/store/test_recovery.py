"""After crashes: what was finished is there, what was torn is gone, nobody has to do anything."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from imagefs.disk import Disk
from imagefs.errors import Corrupt
from imagefs.format.record import DATA, PACK_HEADER_SIZE, encode_record, object_id
from imagefs.model import CHUNK_SIZE, ObjectId
from imagefs.store import Store, StoreWriter
from tests.store.watched import WatchedDisk

ROOT = Path(__file__).parents[2]


def noise(number: int, size: int = CHUNK_SIZE) -> bytes:
    return random.Random(number).randbytes(size)


def put(store: Store, datas: Iterable[bytes]) -> list[ObjectId]:
    with store.writer() as writer:
        ids = [writer.put(data) for data in datas]
        writer.finish()
    return ids


def record(data: bytes) -> bytes:
    return b"".join(encode_record([(object_id(data), data)], DATA))


def pack(path: Path, number: int = 1) -> Path:
    return path / "packs" / f"{number:08d}.pack"


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def wait_until_written(writer: StoreWriter) -> None:
    with writer._state:
        writer._wait_idle()


def check(path: Path, datas: Iterable[bytes]) -> None:
    """Every object is there, and the store takes new ones."""
    with Store.open(path) as store:
        for data in datas:
            assert store.get(object_id(data)) == data
        more = noise(999)
        put(store, [more])
        assert store.get(object_id(more)) == more
    with Store.open(path) as store:
        assert store.get(object_id(more)) == more


# -- tails ------------------------------------------------------------------------------


def test_records_that_were_not_indexed_are_found(path: Path) -> None:
    with Store.create(path) as store:
        put(store, [noise(1)])
    append(pack(path), record(noise(2)) + record(noise(3)))
    with Store.open(path) as store:
        assert store.statistics().objects == 3
    check(path, [noise(1), noise(2), noise(3)])


@pytest.mark.parametrize("kept", [1, 15, 16, 60, 1000, CHUNK_SIZE + 59])
def test_a_torn_record_is_cut(path: Path, kept: int) -> None:
    with Store.create(path) as store:
        put(store, [noise(1)])
    size = pack(path).stat().st_size
    append(pack(path), record(noise(2))[:kept])
    Store.open(path).close()
    assert pack(path).stat().st_size == size
    check(path, [noise(1)])


def test_an_intact_record_behind_a_torn_one_is_found(path: Path) -> None:
    with Store.create(path) as store:
        put(store, [noise(1)])
    append(pack(path), record(noise(2))[:-5] + bytes(5000) + record(noise(3)) + b"torn")
    check(path, [noise(1), noise(3)])
    with Store.open(path) as store:
        assert object_id(noise(2)) not in store


@pytest.mark.parametrize("size", [0, 10, 23])
def test_a_pack_whose_creation_was_cut_short_is_used(path: Path, size: int) -> None:
    with Store.create(path) as store:
        put(store, [noise(1)])
    header = pack(path).read_bytes()[:size]
    pack(path, 2).write_bytes(header)
    check(path, [noise(1)])
    assert pack(path, 2).stat().st_size > CHUNK_SIZE
    assert not pack(path, 3).exists()


@pytest.mark.parametrize("left", [0, 10])
@pytest.mark.parametrize("behind", [b"", bytes(5000), record(noise(2)), record(noise(2))[:500]])
def test_a_header_that_power_loss_took_comes_back(path: Path, left: int, behind: bytes) -> None:
    """A pack of which nothing was synced may keep what was written later, and not its header."""
    with Store.create(path) as store:
        put(store, [noise(1)])
    header = pack(path).read_bytes()[:PACK_HEADER_SIZE]
    pack(path, 2).write_bytes(header[:left] + bytes(PACK_HEADER_SIZE - left) + behind)
    with Store.open(path) as store:
        assert store.check_packs() == []
        assert (object_id(noise(2)) in store) == (behind == record(noise(2)))
    check(path, [noise(1)])
    assert not pack(path, 3).exists()


def test_a_tail_is_synced_before_it_is_indexed(path: Path, disk: WatchedDisk) -> None:
    with Store.create(path) as store:
        put(store, [noise(1)])
    append(pack(path), record(noise(2)))
    Store.open(path, disk).close()
    assert disk.names("fdatasync") == ["00000001.pack"]
    assert disk.names("fsync_dir") == ["packs"]
    disk.calls.clear()
    Store.open(path, disk).close()
    assert {call for call, _ in disk.calls} == {"pread"}  # the format file and nothing else
    assert len(disk.calls) == 1


def test_the_tail_of_a_living_writer_is_left_alone(store: Store, path: Path) -> None:
    with store.writer() as writer:
        ids = [writer.put(noise(n)) for n in range(5)]
        wait_until_written(writer)
        with Store.open(path) as other:
            assert ids[0] not in other
            put(other, [b"beside"])
        writer.finish()
    assert store.statistics().packs == 2
    check(path, [noise(n) for n in range(5)])


def test_a_writer_takes_over_the_pack_of_a_dead_one(store: Store, path: Path) -> None:
    put(store, [noise(1)])
    append(pack(path), record(noise(2)) + record(noise(3))[:777])
    put(store, [noise(4)])
    assert store.statistics().packs == 1
    assert store.get(object_id(noise(2))) == noise(2)
    check(path, [noise(1), noise(2), noise(4)])


def test_a_pack_that_lost_its_end_is_not_appended_to(path: Path) -> None:
    with Store.create(path) as store:
        put(store, [noise(1), noise(2)])
    os.truncate(pack(path), CHUNK_SIZE)
    with Store.open(path) as store:
        put(store, [noise(3)])
        assert store.statistics().packs == 2
        assert pack(path).stat().st_size == CHUNK_SIZE
        assert store.get(object_id(noise(3))) == noise(3)
        with pytest.raises(Corrupt):
            store.get(object_id(noise(2)))


def test_a_pack_with_a_damaged_header_is_read_but_not_appended_to(path: Path) -> None:
    with Store.create(path) as store:
        put(store, [noise(1)])
    data = pack(path).read_bytes()
    pack(path).write_bytes(b"X" + data[1:])
    check(path, [noise(1)])
    assert pack(path).stat().st_size == len(data)


def test_a_file_that_only_is_named_like_a_pack_is_left_alone(path: Path) -> None:
    with Store.create(path) as store:
        put(store, [noise(1)])
    pack(path, 2).write_bytes(
        b"a letter to a friend, with a record in it: " + record(noise(2)) + b"."
    )
    before = pack(path, 2).read_bytes()
    check(path, [noise(1), noise(2)])
    assert pack(path, 2).read_bytes() == before
    (path / "packs" / "notes.txt").touch()
    (path / "packs" / "old.pack").touch()
    check(path, [noise(1)])


# -- the index is lost ------------------------------------------------------------------


def test_a_lost_index_is_rebuilt_and_the_log_says_so(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagefs.store.recovery._BATCH", 7)
    datas = [noise(n) for n in range(5)] + [b"small %d" % n for n in range(50)]
    with Store.create(path) as store, store.writer() as one, store.writer() as two:
        for number, data in enumerate(datas):
            (one, two)[number % 2].put(data)
        one.finish()
        two.finish()
        before = store.statistics()
    (path / "index.db").unlink()
    with caplog.at_level(logging.WARNING), Store.open(path) as store:
        assert store.statistics() == before
    assert "index.db is missing, it is rebuilt from 2 packs" in caplog.text
    check(path, datas)


def test_a_new_store_does_not_complain_about_its_index(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Store.create(path).close()
    assert caplog.text == ""


def test_a_rebuilt_index_leaves_out_damaged_records_only(path: Path) -> None:
    with Store.create(path) as store:
        put(store, [noise(0)])
        put(store, [noise(1)])
        put(store, [noise(2)])
    data = bytearray(pack(path).read_bytes())
    data[24 + CHUNK_SIZE + 60 + 5000] ^= 1
    pack(path).write_bytes(data)
    (path / "index.db").unlink()
    check(path, [noise(0), noise(2)])
    with Store.open(path) as store:
        assert object_id(noise(1)) not in store
        put(store, [noise(1)])
        assert store.get(object_id(noise(1))) == noise(1)


def test_what_belonged_to_the_lost_index_does_not_come_back(path: Path) -> None:
    with Store.create(path) as store:
        put(store, [noise(1)])
        for name in ("index.db-wal", "index.db-shm"):
            shutil.copy(path / name, path / f"{name}.kept")
    (path / "index.db").unlink()
    for name in ("index.db-wal", "index.db-shm"):
        (path / f"{name}.kept").rename(path / name)
    check(path, [noise(1)])


def test_an_interrupted_rebuild_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datas = [noise(n) for n in range(6)]
    with Store.create(path) as store, store.writer() as one, store.writer() as two:
        for number, data in enumerate(datas):
            (one, two)[number % 2].put(data)
        one.finish()
        two.finish()
    (path / "index.db").unlink()
    disk = WatchedDisk()
    disk.fail_at = 3  # the directory and the first pack are synced, the second is not
    with pytest.raises(Exception, match="fails"):
        Store.open(path, disk)
    check(path, datas)


# -- power loss -------------------------------------------------------------------------


class ForgetfulDisk(Disk):
    """Remembers how long each pack was when it was last synced; the rest is lost with power."""

    def __init__(self) -> None:
        self.synced: dict[str, int] = {}

    def fdatasync(self, fd: int) -> None:
        super().fdatasync(fd)
        self.synced[os.readlink(f"/proc/self/fd/{fd}")] = self.size(fd)

    def lose_power(self, directory: Path, torn: int) -> None:
        """Cuts every pack to what was synced and some garbage."""
        for file in directory.iterdir():
            synced = self.synced.get(str(file), 0)
            kept = file.read_bytes()[: synced + torn]
            file.write_bytes(kept[:synced] + bytes(len(kept) - synced))


@pytest.mark.parametrize("torn", [0, 100, 200_000])
def test_power_loss_costs_index_transactions_but_no_finished_object(path: Path, torn: int) -> None:
    disk = ForgetfulDisk()
    old = path.parent / "old"
    with Store.create(path, disk) as store:
        put(store, [noise(1)])
        old.mkdir()
        for name in ("index.db", "index.db-wal"):
            shutil.copy(path / name, old)
        put(store, [noise(2), noise(3)])
        put(store, [noise(4)])
        with store.writer() as writer:
            for number in range(5, 12):
                writer.put(noise(number))
            wait_until_written(writer)
            shutil.copytree(path / "packs", old / "packs")
    disk.synced = {str(old / "packs" / Path(name).name): n for name, n in disk.synced.items()}
    disk.lose_power(old / "packs", torn)
    shutil.copy(path / "format", old)
    check(old, [noise(1), noise(2), noise(3), noise(4)])
    with Store.open(old) as store:
        assert object_id(noise(11)) not in store


# -- kill -9 ----------------------------------------------------------------------------

VICTIM = """
import os, random, signal, sys
from pathlib import Path
from imagefs.store import Store

store = Store.create(Path(sys.argv[1]))
noise = lambda n: random.Random(n).randbytes(131072)
with store.writer() as writer:
    for n in range(5):
        writer.put(noise(n))
    writer.finish()
with store.writer() as writer:
    for n in range(5, 40):
        writer.put(noise(n))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_costs_nothing_that_was_finished(path: Path) -> None:
    victim = subprocess.run(
        [sys.executable, "-c", VICTIM, str(path)], cwd=ROOT, check=False, timeout=60
    )
    assert victim.returncode == -signal.SIGKILL
    check(path, [noise(n) for n in range(5)])
