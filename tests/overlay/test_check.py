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
