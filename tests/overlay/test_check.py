"""Check finds what is broken, and nothing in what is whole."""

from __future__ import annotations

import pytest

from imagefs.model import CHUNK_SIZE, ROOT_INO
from tests.overlay.workbench import Bench

BREAKAGES = {
    "a name without an inode": (
        "DELETE FROM inode WHERE ino = :file",
        "which has no row",
    ),
    "names in a file": (
        "INSERT INTO dentry VALUES (:file, x'61', :dir)",
        "that is no directory with a row",
    ),
    "a whiteout of nothing": (
        "INSERT INTO dentry VALUES (1, x'7a7a', 0)",
        "hides nothing",
    ),
    "a wrong link count": (
        "UPDATE inode SET nlink = 2 WHERE ino = :file",
        "counts 2 names and has 1",
    ),
    "a wrong link count of an inode of the base": (
        "UPDATE inode SET nlink = 5 WHERE ino = :base",
        "counts 5 names and has 1",
    ),
    "a wrong count of directories": (
        "UPDATE inode SET nlink = 9 WHERE ino = 1",
        "counts 7 directories in it and has 2",
    ),
    "a lost directory": (
        "DELETE FROM dentry WHERE ino = :dir",
        "has 0 names",
    ),
    "a directory that does not know where it is": (
        "UPDATE inode SET parent = 1 WHERE ino = :inner",
        "which is in",
    ),
    "a loop": (
        "UPDATE inode SET parent = :inner WHERE ino = :dir",
        "cannot be reached",
    ),
    "an extent of nothing": (
        "INSERT INTO extent VALUES (77777, 1, 999424, 4096)",
        "is in the heap and no content of a file",
    ),
    "an extent behind the end": (
        "INSERT INTO extent VALUES (:file, 5, 999424, 4096)",
        "behind the end of the file",
    ),
    "shared bytes of the heap": (
        "UPDATE extent SET place = 0 WHERE ino = :large",
        "shares bytes of the heap",
    ),
    "an odd capacity": (
        "UPDATE extent SET capacity = 5 WHERE ino = :large",
        "has a capacity of 5 bytes",
    ),
    "a heap without end": (
        "UPDATE extent SET place = 1 << 60 WHERE ino = :large",
        "The heap is used up to",
    ),
    "more of the base than there is": (
        "UPDATE inode SET keep = 99999 WHERE ino = :base",
        "contradict each other",
    ),
    "a chunk that is not allocated": (
        "UPDATE inode SET allocated = 0 WHERE ino = :large",
        "says 0 bytes are allocated, 262144 are",
    ),
    "content behind the heap": (
        "UPDATE extent SET place = 999424 WHERE ino = :large",
        "has content at 999424, the heap ends at",
    ),
    "content where the heap should be free": (
        "UPDATE state SET heap_end = 4096",
        "where the heap should be free",
    ),
    "an inode beyond the last": (
        "UPDATE state SET next_ino = 4",
        "exists, numbers up to 3 were given out",
    ),
    "no state": (
        "DELETE FROM state",
        "has 0 rows of state",
    ),
    "a name that cannot be": (
        "UPDATE dentry SET name = x'612f62' WHERE ino = :file",
        "cannot exist",
    ),
    "a type that is none": (
        "UPDATE inode SET mode = 420 WHERE ino = :file",
        "has values that cannot be",
    ),
    "a file that is in a directory like one": (
        "UPDATE inode SET parent = 1 WHERE ino = :file",
        "has values that cannot be",
    ),
    "an owner that cannot be": (
        "UPDATE inode SET uid = -1 WHERE ino = :file",
        "has values that cannot be",
    ),
    "a symlink without a target": (
        "UPDATE inode SET mode = 41471, size = 4 WHERE ino = :file",
        "has values that cannot be",
    ),
    "attributes that are none": (
        "UPDATE inode SET xattrs = x'c1' WHERE ino = :file",
        "has extended attributes that cannot be",
    ),
    "attributes out of order": (
        "UPDATE inode SET xattrs = x'9292c40162c40092c40161c400' WHERE ino = :file",
        "not in canonical order",
    ),
    "a lost inode that has a row": (
        "INSERT INTO orphan VALUES (:file)",
        "has a row and counts as one without a name",
    ),
    "an entry too many": (
        "UPDATE inode SET added_entries = added_entries + 1 WHERE ino = 1",
        "should have 7 entries and has 6",
    ),
    "bytes that nobody has": (
        "UPDATE inode SET added_bytes = added_bytes + 10 WHERE ino = :large",
        "bytes and has",
    ),
    "content of a reference that is none": (
        "UPDATE inode SET ref = x'00', ref_size = 4, ref_count = 4 WHERE ino = :file",
        "contradict each other",
    ),
    "content of a directory": (
        "UPDATE inode SET mode = 4516, capacity = 4096 WHERE ino = :file",
        "is no regular file and has content",
    ),
}


@pytest.fixture
def upper(bench: Bench) -> Bench:
    bench.make(b"base", content=b"base")
    bench.make(b"other", content=b"other")
    made = Bench(bench.directory.with_name("upper"), bench.store, bench.commit())
    made.run(made.overlay.write, made.ino(b"base"), 0, b"x")
    made.run(made.overlay.unlink, ROOT_INO, b"other")
    made.make(b"dir", 0o40755)
    made.make(b"dir/inner", 0o40755)
    made.make(b"dir2", 0o40755)
    made.make(b"file", content=b"file")
    made.make(b"large", content=b"l" * (CHUNK_SIZE + 1))
    return made


def test_a_whole_overlay_has_no_problems(upper: Bench) -> None:
    assert upper.overlay.check(upper.store.get) == []
    upper.reopen()
    assert upper.overlay.check(upper.store.get) == []


def test_totals_are_right_whatever_was_removed_and_moved(bench: Bench) -> None:
    for path in (b"a", b"a/b", b"a/b/c", b"a/b/c/d", b"e"):
        bench.make(path, 0o40755)
        for name in (b"/x", b"/y"):
            bench.make(path + name, content=path + name)
    bench.run(bench.overlay.link, bench.ino(b"a/b/x"), bench.ino(b"e"), b"linked")
    upper = Bench(bench.directory.with_name("upper"), bench.store, bench.commit())
    upper.run(upper.overlay.rename, upper.ino(b"a/b"), b"c", upper.ino(b"e"), b"moved")
    for path in (b"a/b/x", b"a/b/y", b"a/x", b"a/y"):
        upper.run(upper.overlay.unlink, *upper.place(path))
    for path in (b"a/b", b"a"):
        upper.run(upper.overlay.rmdir, *upper.place(path))
    upper.run(upper.overlay.write, upper.ino(b"e/linked"), 3, b"longer than before")
    assert upper.overlay.check(upper.store.get) == []
    assert upper.overlay.entries == len(list(upper.walk()))
    upper.run(upper.overlay.rename, upper.ino(b"e/moved"), b"d", ROOT_INO, b"back")
    assert upper.overlay.check(upper.store.get) == []
    upper.overlay.close()


@pytest.mark.parametrize("name", BREAKAGES)
def test_what_is_broken_is_found(upper: Bench, name: str) -> None:
    statement, expected = BREAKAGES[name]
    names = {"file": b"file", "dir": b"dir", "base": b"base", "large": b"large"}
    values = {key: upper.ino(path) for key, path in names.items()}
    values["inner"] = upper.ino(b"dir/inner")
    database = upper.overlay._layer.database()
    assert database is not None
    wanted = {key: value for key, value in values.items() if f":{key}" in statement}
    database.execute(statement, wanted)
    problems = upper.overlay.check(upper.store.get)
    assert any(expected in problem for problem in problems), problems


def test_orphans_are_no_problem(upper: Bench) -> None:
    ino = upper.run(upper.overlay.unlink, ROOT_INO, b"large")
    upper.overlay.write(ino, 5 * CHUNK_SIZE, b"more")
    assert upper.overlay.check(upper.store.get) == []
    upper.overlay.discard(ino)
    assert upper.overlay.check(upper.store.get) == []
