"""What survives: kill -9 after any operation, power loss after a sync, failing disks."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imagefs.errors import IOFailure, NoSpace
from imagefs.model import CHUNK_SIZE, ROOT_INO, AttributeChange
from imagefs.overlay import Overlay
from imagefs.overlay.naming import EXCHANGE
from imagefs.store import Store
from tests.overlay.workbench import Bench, empty_tree, facts
from tests.store.watched import WatchedDisk

DIR = 0o40755
BIG = os.urandom(2 * CHUNK_SIZE + 100)


class SyncedDisk(WatchedDisk):
    """Notes when holes are punched, too."""

    def punch_hole(self, fd: int, offset: int, length: int) -> None:
        self._change("punch_hole", fd)
        super().punch_hole(fd, offset, length)

    def open(self, path: str | Path, flags: int, mode: int = 0o600) -> int:
        if flags & os.O_CREAT:
            self._change("create", path)
        return super().open(path, flags, mode)


@pytest.fixture
def disk() -> SyncedDisk:
    return SyncedDisk()


@pytest.fixture
def bench(tmp_path: Path, store: Store, disk: SyncedDisk) -> Iterator[Bench]:
    """An overlay over a small tree, changed a little."""
    below = Bench(tmp_path / "below", store, empty_tree(store))
    below.make(b"base", DIR)
    below.make(b"base/large", content=BIG)
    below.overlay.link(below.make(b"base/one", content=b"linked"), ROOT_INO, b"two")
    made = Bench(tmp_path / "overlay", store, below.commit(), disk)
    below.overlay.close()
    yield made
    disk.fail_at = None
    made.overlay.close()


def prepare(bench: Bench) -> None:
    bench.make(b"d", DIR)
    bench.make(b"d/file", content=b"content")
    bench.make(b"d/big", content=BIG)
    bench.make(b"empty", DIR)


def unlink(bench: Bench, path: bytes) -> None:
    parent, name = bench.place(path)
    ino = bench.run(bench.overlay.unlink, parent, name)
    if bench.overlay.orphan(ino):
        bench.overlay.discard(ino)


def rename(bench: Bench, old: bytes, new: bytes, flags: int = 0) -> None:
    bench.run(bench.overlay.rename, *bench.place(old), *bench.place(new), flags)


def change(bench: Bench, path: bytes, **fields: int) -> None:
    bench.run(bench.overlay.change_attributes, bench.ino(path), AttributeChange(**fields))


def write(bench: Bench, path: bytes, offset: int, data: bytes) -> None:
    bench.run(bench.overlay.write, bench.ino(path), offset, data)


def link(bench: Bench, path: bytes, new: bytes) -> None:
    bench.run(bench.overlay.link, bench.ino(path), *bench.place(new))


OPERATIONS: dict[str, Callable[[Bench], Any]] = {
    "create": lambda bench: bench.make(b"d/new"),
    "mkdir": lambda bench: bench.make(b"base/new", DIR),
    "write small": lambda bench: write(bench, b"d/file", 3, b"abc"),
    "write grows": lambda bench: write(bench, b"d/file", 5000, b"abc"),
    "write large": lambda bench: write(bench, b"empty-file", CHUNK_SIZE - 10, BIG),
    "write over": lambda bench: write(bench, b"d/big", 100, BIG),
    "write base": lambda bench: write(bench, b"base/large", CHUNK_SIZE + 1, b"abc"),
    "cut": lambda bench: change(bench, b"d/big", size=CHUNK_SIZE + 10),
    "cut to nothing": lambda bench: change(bench, b"d/big", size=0),
    "cut base": lambda bench: change(bench, b"base/large", size=10),
    "grow": lambda bench: change(bench, b"d/file", size=CHUNK_SIZE * 3),
    "chmod": lambda bench: change(bench, b"base/one", mode=0o600),
    "unlink": lambda bench: unlink(bench, b"d/big"),
    "unlink base": lambda bench: unlink(bench, b"base/large"),
    "unlink linked": lambda bench: unlink(bench, b"base/one"),
    "link": lambda bench: link(bench, b"d/file", b"base/again"),
    "link base": lambda bench: link(bench, b"two", b"base/again"),
    "rmdir": lambda bench: bench.run(bench.overlay.rmdir, ROOT_INO, b"empty"),
    "rename": lambda bench: rename(bench, b"d/file", b"base/moved"),
    "rename over": lambda bench: rename(bench, b"d/file", b"d/big"),
    "rename base over base": lambda bench: rename(bench, b"base/one", b"base/large"),
    "rename directory": lambda bench: rename(bench, b"base", b"d/base"),
    "exchange": lambda bench: rename(bench, b"base/large", b"d/file", EXCHANGE),
    "xattr": lambda bench: bench.run(bench.overlay.set_xattr, bench.ino(b"two"), b"user.a", b"1"),
}
FIRST = [
    "mkdir", "write base", "cut base", "chmod", "unlink base", "unlink linked", "link base",
    "rename base over base", "xattr",
]  # fmt: skip
"""Those that need nothing but the base."""


def contradiction(bench: Bench) -> list[str]:
    return bench.overlay.check(bench.store.get)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_kill_loses_nothing_that_returned(bench: Bench, operation: str) -> None:
    prepare(bench)
    bench.make(b"empty-file")
    OPERATIONS[operation](bench)
    expected = facts(bench)
    bench.kill()
    assert facts(bench) == expected
    assert contradiction(bench) == []


def fail_every_change(bench: Bench, disk: SyncedDisk, operation: str) -> None:
    """Whichever of its changes to the disk fails, the operation has not happened."""
    before = facts(bench)
    for number in range(1, 100):
        disk.fail_at = disk.changes + number
        try:
            OPERATIONS[operation](bench)
        except IOFailure:
            disk.fail_at = None
        else:
            break
        after = facts(bench)
        assert after.keys() == before.keys()
        for path, fact in after.items():
            # A write in place may have come through although its row did not.
            assert len(fact.content) == len(before[path].content)
            assert fact._replace(content=b"") == before[path]._replace(content=b"")
        assert contradiction(bench) == []
    disk.fail_at = None
    after = facts(bench)
    bench.reopen()
    assert facts(bench) == after != before
    assert contradiction(bench) == []


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_disk_that_fails_once_changes_nothing(
    bench: Bench, disk: SyncedDisk, operation: str
) -> None:
    prepare(bench)
    bench.make(b"empty-file")
    fail_every_change(bench, disk, operation)


@pytest.mark.parametrize("operation", FIRST)
def test_nor_does_it_when_the_overlay_is_made(
    bench: Bench, disk: SyncedDisk, operation: str
) -> None:
    fail_every_change(bench, disk, operation)


class FailingStatement:
    """The N-th statement of a database fails as SQLite does on a full disk."""

    def __init__(self, bench: Bench, number: int, code: int) -> None:
        database = bench.overlay._layer.database()
        assert database is not None
        self._database = database
        self._execute = database.execute
        self._left = number
        self._code = code
        database.execute = self

    def __call__(self, statement: str, *values: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            error = sqlite3.OperationalError("simulated")
            error.sqlite_errorcode = self._code
            raise error
        return self._execute(statement, *values)

    def restore(self) -> None:
        self._database.execute = self._execute


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_statement_that_fails_takes_the_operation_back(bench: Bench, operation: str) -> None:
    prepare(bench)
    bench.make(b"empty-file")
    before = facts(bench)
    for number in range(1, 100):
        failing = FailingStatement(bench, number, sqlite3.SQLITE_FULL)
        try:
            OPERATIONS[operation](bench)
        except NoSpace:
            failing.restore()
        else:
            failing.restore()
            break
        if number % 3 == 0:
            bench.reopen()
        after = facts(bench)
        assert after.keys() == before.keys()
        same = {path for path in before if after[path] == before[path]}
        # Only bytes that were written in place may differ.
        assert before.keys() - same <= {b"d/file", b"d/big"}, number
        assert contradiction(bench) == []
    after = facts(bench)
    bench.reopen()
    assert facts(bench) == after != before


def test_errors_of_sqlite_are_told_by_kind(bench: Bench) -> None:
    prepare(bench)
    for code, kind in ((sqlite3.SQLITE_FULL, NoSpace), (sqlite3.SQLITE_IOERR, IOFailure)):
        failing = FailingStatement(bench, 1, code)
        with pytest.raises(kind, match=r"meta\.db"):
            bench.overlay.make(ROOT_INO, b"x", 0o100644, 0, 0)
        failing.restore()


def test_a_sync_writes_data_first_rows_second_and_gives_space_back_last(
    bench: Bench, disk: SyncedDisk
) -> None:
    prepare(bench)
    bench.overlay.sync()
    bench.make(b"new", content=b"new")
    unlink(bench, b"d/big")
    disk.calls.clear()
    bench.overlay.sync()
    assert disk.calls == [
        ("fdatasync", "heap"),
        ("fdatasync", "meta.db-wal"),
        ("punch_hole", "heap"),
    ]


def test_a_sync_that_failed_is_not_believed_when_it_is_tried_again(
    bench: Bench, disk: SyncedDisk
) -> None:
    prepare(bench)
    disk.fail_at = disk.changes + 1
    for _ in range(2):
        with pytest.raises(IOFailure):
            bench.overlay.sync()
    with pytest.raises(IOFailure):
        bench.overlay.close()
    assert bench.read(b"d/file") == b"content"
    bench.overlay.sync()
    assert contradiction(bench) == []


def test_the_first_sync_makes_the_files_themselves_durable(bench: Bench, disk: SyncedDisk) -> None:
    bench.make(b"new")
    disk.calls.clear()
    bench.overlay.sync()
    assert set(disk.calls) == {
        ("fdatasync", "heap"),
        ("fdatasync", "meta.db-wal"),
        ("fdatasync", "meta.db"),
        ("fsync_dir", bench.directory.name),
        *(("fsync_dir", above.name) for above in bench.directory.parents[:3]),
    }
    disk.calls.clear()
    bench.make(b"again")
    bench.overlay.sync()
    assert disk.calls == [("fdatasync", "meta.db-wal")]


def test_the_first_sync_of_a_session_makes_the_name_of_its_wal_durable(
    bench: Bench, disk: SyncedDisk
) -> None:
    bench.make(b"new")
    bench.reopen()
    bench.make(b"again")
    disk.calls.clear()
    bench.overlay.sync()
    assert ("fsync_dir", bench.directory.name) in disk.calls


def test_released_neighbours_are_given_back_together(bench: Bench, disk: SyncedDisk) -> None:
    for number in range(20):
        bench.make(b"%02d" % number, content=b"x" * 5000)
    for number in [*range(1, 20, 2), *range(18, 0, -2)]:
        unlink(bench, b"%02d" % number)
    bench.overlay.sync()
    assert disk.names("punch_hole") == ["heap"]
    assert bench.read(b"00") == b"x" * 5000


def test_syncing_in_another_thread_disturbs_nothing(bench: Bench) -> None:
    """A worker syncs all the time while files come, change and go."""
    prepare(bench)
    ended = threading.Event()
    failures: list[BaseException] = []

    def sync() -> None:
        try:
            while not ended.is_set():
                bench.overlay.sync()
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    thread = threading.Thread(target=sync)
    thread.start()
    kept: dict[bytes, bytes] = {}
    try:
        for number in range(300):
            name, content = b"file %d" % number, b"%d" % number * (1 + number * 97 % 9000)
            bench.make(name, content=content)
            if number % 3:
                unlink(bench, name)
            else:
                kept[name] = content
    finally:
        ended.set()
        thread.join()
    assert failures == []
    for name, content in kept.items():
        assert bench.read(name) == content
    assert contradiction(bench) == []


def test_what_is_abandoned_waits_for_no_disk(bench: Bench, disk: SyncedDisk) -> None:
    prepare(bench)
    assert bench.overlay.is_open
    disk.calls.clear()
    bench.overlay.abandon()
    assert [call for call, _ in disk.calls if call == "fdatasync"] == []
    Overlay.delete(bench.directory, disk)


def after_power_loss(bench: Bench, rows: Path) -> Bench:
    """What is found when the rows are as they were and the heap is as it is."""
    other = bench.directory.with_name("after")
    shutil.copytree(rows, other)
    shutil.copy(bench.directory / "heap", other / "heap")
    return Bench(other, bench.store, bench.manifest)


def test_power_loss_brings_back_no_file_without_its_data(bench: Bench) -> None:
    """However early holes reach the disk and however late rows do."""
    prepare(bench)
    bench.overlay.sync()
    rows = bench.directory.with_name("rows")
    shutil.copytree(bench.directory, rows)
    bench.make(b"d/new", content=b"replacement")
    rename(bench, b"d/new", b"d/file")
    unlink(bench, b"d/big")
    write(bench, b"base/large", 0, b"x")
    found = after_power_loss(bench, rows)
    assert found.read(b"d/file") == b"content"
    assert found.read(b"d/big") == BIG
    assert contradiction(found) == []
    found.overlay.close()


def test_bytes_of_a_file_that_power_loss_took_show_in_no_other(bench: Bench) -> None:
    """The heap may have what was written last while the rows that named it are gone."""
    prepare(bench)
    bench.reopen()
    rows = bench.directory.with_name("rows")
    shutil.copytree(bench.directory, rows)
    bench.make(b"secret", content=b"secret" * 1000)
    found = after_power_loss(bench, rows)
    write_at = found.make(b"other")
    found.overlay.write(write_at, 5000, b"x")
    assert found.read(b"other") == bytes(5000) + b"x"
    found.overlay.close()


def test_power_loss_while_the_overlay_is_made_leaves_an_unchanged_one(bench: Bench) -> None:
    bench.make(b"new", content=b"new")
    bench.overlay.close()
    # What an ext4 finds of a file whose bytes it did not write in time.
    (bench.directory / "meta.db").write_bytes(b"")
    bench.open()
    assert not bench.overlay.changed
    assert bench.names(ROOT_INO) == [b"base", b"two"]
    ino = bench.make(b"again", content=b"x")
    change(bench, b"again", size=10)
    assert bench.content(ino) == b"x" + bytes(9)


def test_files_open_without_a_name_are_gone_after_a_kill(bench: Bench) -> None:
    ino = bench.make(b"temporary")
    bench.overlay.unlink(ROOT_INO, b"temporary")
    bench.overlay.write(ino, 0, BIG)
    other = bench.make(b"other", content=BIG)
    bench.overlay.unlink(ROOT_INO, b"other")
    assert bench.content(other) == BIG
    bench.kill()
    assert bench.names(ROOT_INO) == [b"base", b"two"]
    assert contradiction(bench) == []
    assert bench.overlay.changed_bytes == 0
    # What they left in the heap goes when this session ends.
    heap = bench.directory / "heap"
    assert heap.stat().st_blocks > 0
    bench.make(b"stays", content=b"x")
    bench.reopen()
    assert heap.stat().st_blocks * 512 <= 2 * 4096
    assert bench.read(b"stays") == b"x"


def test_after_a_kill_the_next_session_makes_durable_what_it_found(bench: Bench) -> None:
    bench.make(b"new", content=b"new")
    killed = bench.directory.with_name("killed")
    shutil.copytree(bench.directory, killed)
    disk = SyncedDisk()
    found = Bench(killed, bench.store, bench.manifest, disk)
    assert found.read(b"new") == b"new"
    assert ("fdatasync", "heap") in disk.calls
    assert ("fdatasync", "meta.db-wal") in disk.calls
    assert ("fsync_dir", "killed") in disk.calls
    found.overlay.close()


def test_closing_leaves_nothing_to_recover(bench: Bench, disk: SyncedDisk) -> None:
    prepare(bench)
    unlink(bench, b"d/big")
    bench.overlay.close()
    assert sorted(os.listdir(bench.directory)) == ["heap", "meta.db"]
    disk.calls.clear()
    bench.open()
    assert bench.read(b"d/file") == b"content"
    bench.overlay.close()
    assert [call for call, _ in disk.calls if call in {"fdatasync", "punch_hole"}] == []


def test_a_closed_overlay_opens_again_when_it_is_used(bench: Bench) -> None:
    prepare(bench)
    bench.overlay.close()
    bench.overlay.close()
    assert bench.read(b"d/file") == b"content"
    bench.make(b"more")
    bench.overlay.close()
    assert b"more" in bench.names(ROOT_INO)


def test_deleting_removes_the_files(bench: Bench, disk: SyncedDisk) -> None:
    Overlay.delete(bench.directory, disk)
    prepare(bench)
    bench.overlay.close()
    Overlay.delete(bench.directory, disk)
    assert not bench.directory.exists()


def test_a_full_heap_is_no_space_and_loses_nothing(bench: Bench, disk: SyncedDisk) -> None:
    prepare(bench)
    ino = bench.ino(b"d/file")
    disk.error = NoSpace
    disk.fail_at = disk.changes + 1
    with pytest.raises(NoSpace):
        bench.overlay.write(ino, 0, BIG)
    disk.fail_at = None
    assert bench.content(ino) == b"content"
    bench.overlay.write(ino, 0, BIG)
    assert bench.content(ino) == BIG
    # What the failed write had taken was given back.
    bench.overlay.sync()
    heap = bench.directory / "heap"
    assert heap.stat().st_blocks * 512 <= 6 * CHUNK_SIZE + 4 * 4096


@pytest.mark.parametrize("how", ["kill", "close"])
def test_an_orphan_whose_rows_cannot_be_removed_goes_when_the_session_ends_or_the_next_begins(
    bench: Bench, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    ino = bench.make(b"big", content=BIG)
    bench.overlay.unlink(ROOT_INO, b"big")
    failing = FailingStatement(bench, 2, sqlite3.SQLITE_FULL)
    bench.overlay.discard(ino)
    failing.restore()
    assert "Data of removed inode" in caplog.text
    if how == "kill":
        bench.kill()
    else:
        bench.reopen()
    assert contradiction(bench) == []
    assert bench.overlay.changed_bytes == 0
