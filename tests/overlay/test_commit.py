"""Commit: the same tree gives the same digest, and only what changed is stored."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagefs.errors import NoSpace
from imagefs.model import CHUNK_SIZE, ROOT_INO, AttributeChange, ObjectId
from imagefs.overlay import commit as commit_module
from imagefs.overlay.bookkeeping import Bookkeeping
from imagefs.overlay.inodes import Inode
from imagefs.overlay.sealing import Stored
from imagefs.store import Store
from imagefs.tree import Tree
from imagefs.tree.walk import walk
from tests.overlay.workbench import Bench, empty_tree, facts
from tests.store.watched import WatchedDisk

DIR = 0o40755


def counted_commit(bench: Bench, fetch: Callable[[ObjectId], bytes] | None = None) -> list[bytes]:
    """Commit; returns what was put."""
    put: list[bytes] = []
    with bench.store.writer() as writer:
        original = writer.put

        def noting(data: bytes, *, metadata: bool = False) -> ObjectId:
            put.append(data)
            return original(data, metadata=metadata)

        writer.put = noting  # type: ignore[method-assign]
        _, bookkeeping = bench.overlay.commit(writer, fetch or bench.store.get)
        writer.finish()
    bench.overlay.committed(bookkeeping)
    return put


def over(bench: Bench, name: str = "upper") -> Bench:
    return Bench(bench.directory.with_name(name), bench.store, bench.commit())


def wide(bench: Bench, directories: int, files: int) -> None:
    for i in range(directories):
        directory = bench.make(b"d%03d" % i, DIR)
        for j in range(files):
            ino = bench.run(bench.overlay.make, directory, b"f%03d" % j, 0o100644, 0, 0).ino
            bench.overlay.write(ino, 0, b"%d %d" % (i, j))


def test_the_order_of_changes_leaves_no_trace(tmp_path: Path, store: Store) -> None:
    made = []
    for names in ([b"a", b"b", b"c"], [b"c", b"a", b"b"]):
        bench = Bench(tmp_path / names[0].decode(), store, empty_tree(store))
        for name in [b"gone", *names]:
            bench.make(name, content=name * 50000)
        bench.overlay.discard(bench.overlay.unlink(ROOT_INO, b"gone"))
        for name in [*names, b""]:
            change = AttributeChange(mtime=5, mode=0o700)
            bench.overlay.change_attributes(bench.ino(name), change)
        made.append(bench.commit())
        bench.overlay.close()
    assert made[0] == made[1]


def test_a_second_commit_stores_no_content_again(tmp_path: Path, store: Store) -> None:
    disk = WatchedDisk()
    bench = Bench(tmp_path / "overlay", store, empty_tree(store), disk)
    large, small = os.urandom(5 * CHUNK_SIZE + 1), b"small"
    bench.make(b"large", content=large)
    bench.make(b"small", content=small)
    first = counted_commit(bench)
    assert small in first
    assert large[:CHUNK_SIZE] in first
    assert bench.overlay.changed_bytes == 0
    assert bench.read(b"large") == large
    disk.calls.clear()
    bench.run(bench.overlay.write, bench.ino(b"large"), CHUNK_SIZE, b"changed")
    again = counted_commit(bench)
    changed = b"changed" + large[CHUNK_SIZE + 7 : 2 * CHUNK_SIZE]
    assert [data for data in again if len(data) == CHUNK_SIZE] == [changed]
    assert disk.names("pread") == ["heap"]
    bench.kill()
    assert bench.read(b"large") == large[:CHUNK_SIZE] + changed + large[2 * CHUNK_SIZE :]
    assert bench.overlay.check(store.get) == []
    bench.overlay.close()


def test_a_small_change_in_a_wide_tree_writes_the_path_to_it(bench: Bench) -> None:
    wide(bench, 20, 40)
    upper = over(bench)
    upper.run(upper.overlay.write, upper.ino(b"d007/f011"), 0, b"changed")
    fetched = []

    def fetch(oid: ObjectId) -> bytes:
        fetched.append(oid)
        return upper.store.get(oid)

    put = counted_commit(upper, fetch)
    # The chunk, the directory, the root, the manifest.
    assert len(put) == 4
    assert len(set(fetched)) == 3
    third = Bench(upper.directory.with_name("third"), upper.store, upper.commit())
    assert third.read(b"d007/f011") == b"changed"
    assert third.read(b"d007/f012") == b"7 12"


def test_moving_a_directory_stores_nothing_below_it(bench: Bench) -> None:
    wide(bench, 5, 10)
    upper = over(bench)
    upper.run(upper.overlay.rename, ROOT_INO, b"d001", upper.ino(b"d002"), b"moved")
    # d002, the root, the manifest.
    assert len(counted_commit(upper)) == 3
    third = Bench(upper.directory.with_name("third"), upper.store, upper.commit())
    assert third.read(b"d002/moved/f003") == b"1 3"


@pytest.mark.parametrize("batch", [1, 7, 4096])
def test_directories_larger_than_a_batch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    wide(bench, 3, 50)
    bench.overlay.link(bench.ino(b"d000/f000"), bench.ino(b"d002"), b"again")
    expected = facts(bench)
    first = bench.commit()
    monkeypatch.setattr(commit_module, "_BATCH", batch)
    assert bench.commit() == first
    upper = Bench(bench.directory.with_name("upper"), bench.store, first)
    assert facts(upper) == expected
    for number in range(0, 50, 3):
        upper.run(upper.overlay.unlink, upper.ino(b"d001"), b"f%03d" % number)
        upper.make(b"d001/n%03d" % number)
    manifest = upper.commit()
    monkeypatch.setattr(commit_module, "_BATCH", 1000)
    assert upper.commit() == manifest
    third = Bench(bench.directory.with_name("third"), bench.store, manifest)
    assert facts(third) == facts(upper)


def test_the_link_table_is_left_alone_when_nothing_touches_it(bench: Bench) -> None:
    wide(bench, 2, 3)
    bench.overlay.link(bench.ino(b"d000/f000"), bench.ino(b"d001"), b"linked")
    upper = over(bench)
    links = upper.tree.manifest.links
    assert links is not None
    upper.run(upper.overlay.write, upper.ino(b"d000/f000"), 0, b"changed")
    upper.make(b"new")
    fetched = []

    def fetch(oid: ObjectId) -> bytes:
        fetched.append(oid)
        return upper.store.get(oid)

    counted_commit(upper, fetch)
    third = Bench(upper.directory.with_name("third"), upper.store, upper.commit())
    assert third.tree.manifest.links == links
    assert third.read(b"d001/linked") == b"changed"


def test_reading_goes_on_during_a_commit(bench: Bench) -> None:
    wide(bench, 2, 300)
    bench.make(b"large", content=os.urandom(3 * CHUNK_SIZE))
    upper = over(bench)
    expected = facts(upper)
    upper.make(b"new", content=b"new")
    upper.run(upper.overlay.write, upper.ino(b"large"), 5, b"changed")
    changed = facts(upper)
    may_go_on = threading.Event()
    begun = threading.Event()

    def fetch(oid: ObjectId) -> bytes:
        begun.set()
        assert may_go_on.wait(30)
        return upper.store.get(oid)

    results: list[tuple[ObjectId, Bookkeeping]] = []

    def work() -> None:
        with upper.store.writer() as writer:
            results.append(upper.overlay.commit(writer, fetch))
            writer.finish()

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(30)
    assert facts(upper) == changed
    may_go_on.set()
    for _ in range(3):
        assert facts(upper) == changed
    thread.join()
    manifest, bookkeeping = results[0]
    upper.overlay.committed(bookkeeping)
    assert upper.overlay.changed_bytes == 0
    assert facts(upper) == changed != expected
    third = Bench(upper.directory.with_name("third"), upper.store, manifest)
    assert facts(third) == changed


def test_what_changed_since_a_commit_is_not_forgotten(bench: Bench) -> None:
    bench.make(b"f", content=b"before")
    with bench.store.writer() as writer:
        _, bookkeeping = bench.overlay.commit(writer, bench.store.get)
        writer.finish()
    bench.overlay.write(bench.ino(b"f"), 0, b"behind")
    bench.overlay.committed(bookkeeping)
    assert bench.read(b"f") == b"behind"
    assert bench.overlay.changed_bytes == 4096


def test_a_kill_between_commit_and_bookkeeping_loses_nothing(bench: Bench) -> None:
    wide(bench, 2, 5)
    expected = facts(bench)
    with bench.store.writer() as writer:
        manifest, _ = bench.overlay.commit(writer, bench.store.get)
        writer.finish()
    bench.kill()
    assert facts(bench) == expected
    assert bench.commit() == manifest
    bench.kill()
    assert facts(bench) == expected
    assert bench.commit() == manifest


def test_bookkeeping_that_fails_leaves_everything_as_it_was(bench: Bench) -> None:
    bench.make(b"f", content=os.urandom(CHUNK_SIZE + 1))
    content = bench.read(b"f")
    with bench.store.writer() as writer:
        _, bookkeeping = bench.overlay.commit(writer, bench.store.get)
        writer.finish()
    database = bench.overlay._layer.database()
    assert database is not None
    execute = database.execute

    def failing(statement: str, *values: Any) -> sqlite3.Cursor:
        if statement == "COMMIT":
            error = sqlite3.OperationalError("simulated")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return execute(statement, *values)

    database.execute = failing
    with pytest.raises(NoSpace):
        bench.overlay.committed(bookkeeping)
    database.execute = execute
    assert bench.read(b"f") == content
    assert not bench.overlay.wants_sync
    bench.overlay.committed(bookkeeping)
    assert bench.read(b"f") == content


def test_zeros_are_holes_whether_written_or_skipped(tmp_path: Path, store: Store) -> None:
    made = []
    for written in (True, False):
        bench = Bench(tmp_path / str(written), store, empty_tree(store))
        ino = bench.make(b"f", content=b"x" * 10)
        if written:
            bench.overlay.write(ino, 10, bytes(3 * CHUNK_SIZE - 10))
        change = AttributeChange(size=3 * CHUNK_SIZE, mtime=1)
        bench.overlay.change_attributes(ino, change)
        bench.overlay.change_attributes(ROOT_INO, AttributeChange(mtime=1))
        made.append(bench.commit())
        tree = Tree(store.get, made[-1])
        assert tree.entry(tree.lookup(ROOT_INO, b"f")[0]).count == CHUNK_SIZE  # type: ignore[index]
        bench.overlay.close()
    assert made[0] == made[1]


def test_a_deep_tree(bench: Bench) -> None:
    ino = ROOT_INO
    for _ in range(600):
        ino = bench.overlay.make(ino, b"d", DIR, 0, 0).ino
    bench.overlay.make(ino, b"bottom", 0o100644, 0, 0)
    tree = Tree(bench.store.get, bench.commit())
    assert sum(1 for _ in walk(tree)) == 602
    assert bench.overlay.check(bench.store.get) == []
    with pytest.raises(Exception, match="below itself"):
        bench.overlay.rename(ROOT_INO, b"d", ino, b"x")


def test_bookkeeping_is_small() -> None:
    bookkeeping = Bookkeeping(7)
    for number in range(1000):
        inode = Inode(number, 0o100644, 1, 0, 0, 0, 10, 0, 0, 0, 0, capacity=4096)
        ref = ObjectId(bytes([number % 255 + 1]) * 32)
        bookkeeping.add(inode, Stored(ref, 10, changed=True))
    assert len(bookkeeping) == 1000
    assert len(bookkeeping._rows) < 100 * 1000
    file = list(bookkeeping)[3]
    assert (file.ino, file.allocated, file.capacity, file.large) == (3, 10, 4096, False)
