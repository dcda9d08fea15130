"""Making and opening stores: whole or nothing, and one clear sentence for every refusal."""

from __future__ import annotations

import shutil
import sqlite3
from collections import deque
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from imagefs.disk import Disk
from imagefs.errors import Corrupt, Exists, IOFailure, StoreError
from imagefs.model import ObjectId
from imagefs.store import Store
from tests.store.watched import WatchedDisk


class ForeignDisk(Disk):
    """A disk that belongs to somebody else."""

    def writable(self, path: str | Path) -> bool:
        return False


def put(store: Store, *datas: bytes) -> list[ObjectId]:
    with store.writer() as writer:
        ids = [writer.put(data) for data in datas]
        writer.finish()
    return ids


def test_a_store_is_made_with_its_parents_and_opens_again(tmp_path: Path) -> None:
    path = tmp_path / "some" / "where"
    Store.create(path).close()
    Store.open(path).close()
    assert (path / "format").read_text() == "imagefs store\nversion 1\n"
    assert path.stat().st_mode & 0o777 == 0o700


def test_a_second_store_in_one_place_is_refused(path: Path) -> None:
    Store.create(path).close()
    with pytest.raises(Exists, match="already"):
        Store.create(path)


@pytest.mark.parametrize("change", range(1, 12))
def test_a_crash_while_a_store_is_made_leaves_none_or_a_whole_one(
    path: Path, disk: WatchedDisk, change: int
) -> None:
    disk.fail_at = change
    try:
        Store.create(path, disk).close()
    except IOFailure:
        assert disk.changes == change
    else:
        assert disk.changes < change
    try:
        store = Store.open(path)
    except StoreError:
        store = Store.create(path)
    with store:
        assert store.statistics().objects == 0


def test_what_a_crashed_create_left_is_taken_over(path: Path) -> None:
    (path / "packs").mkdir(parents=True)
    (path / "format.tmp").write_bytes(b"imagefs st")
    Store.create(path).close()
    assert not (path / "format.tmp").exists()


def test_a_directory_with_other_things_is_left_alone(path: Path) -> None:
    path.mkdir()
    (path / "thesis.odt").touch()
    with pytest.raises(StoreError, match=r"not empty .*thesis\.odt"):
        Store.create(path)
    assert [entry.name for entry in path.iterdir()] == ["thesis.odt"]


def test_a_file_in_the_way_is_named(path: Path) -> None:
    path.touch()
    with pytest.raises(StoreError, match="not a directory"):
        Store.create(path)


def test_a_place_where_nothing_can_be_made_is_refused(path: Path) -> None:
    with pytest.raises(StoreError, match=r"not writable for user \d+"):
        Store.create(path / "store", ForeignDisk())
    assert not path.exists()


def spoil_nothing(path: Path) -> None:
    shutil.rmtree(path)


def spoil_format(path: Path) -> None:
    (path / "format").unlink()


def spoil_words(path: Path) -> None:
    (path / "format").write_bytes(b"\xff\xfe something else")


def spoil_version(path: Path) -> None:
    (path / "format").write_text("imagefs store\nversion 2\n")


def spoil_packs(path: Path) -> None:
    (path / "packs").rmdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_nothing, "There is no store at"),
        (spoil_format, "not a store: it has no file named format"),
        (spoil_words, "not a store: .*format says something else"),
        (spoil_version, "version 2, this imagefs knows 1: use a newer imagefs"),
        (spoil_packs, "damaged: directory .*packs is missing"),
    ],
)
def test_what_is_no_store_is_refused_with_the_reason(
    path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    Store.create(path).close()
    spoil(path)
    with pytest.raises((StoreError, Corrupt), match=message) as refusal:
        Store.open(path)
    assert str(path) in str(refusal.value)


def test_a_store_of_somebody_else_is_refused(path: Path) -> None:
    Store.create(path).close()
    with pytest.raises(StoreError, match=r"not writable for user \d+"):
        Store.open(path, ForeignDisk())
    with pytest.raises(StoreError, match=r"not writable for user \d+"):
        Store.create(path.parent / "new", ForeignDisk())


def test_an_index_of_a_newer_version_is_refused(path: Path) -> None:
    Store.create(path).close()
    with closing(sqlite3.connect(path / "index.db")) as connection:
        connection.execute("PRAGMA user_version = 7")
    with pytest.raises(StoreError, match="version 7"):
        Store.open(path)


@pytest.mark.parametrize("damage", [b"not a database at all" * 300, b""])
def test_a_damaged_index_is_named_and_heals_when_it_is_deleted(path: Path, damage: bytes) -> None:
    with Store.create(path) as store:
        (oid,) = put(store, b"some content")
    (path / "index.db").write_bytes(damage)
    if damage:
        with pytest.raises(Corrupt, match=r"index\.db is damaged .* delete"):
            Store.open(path)
        (path / "index.db").unlink()
    with Store.open(path) as store:
        assert store.get(oid) == b"some content"


def test_damage_inside_the_index_is_named_when_it_is_met(path: Path) -> None:
    with Store.create(path) as store:
        ids = put(store, *(b"object %d" % n for n in range(5000)))
    data = bytearray((path / "index.db").read_bytes())
    for page in range(4096 * 5, len(data), 4096):
        data[page : page + 200] = b"\xff" * 200
    (path / "index.db").write_bytes(data)
    with Store.open(path) as store, pytest.raises(Corrupt, match=r"index\.db is damaged"):
        deque(map(store.get, ids))
