"""Names: making, finding, listing, renaming, removing, with and without a base."""

from __future__ import annotations

import stat

import pytest
from msgspec.structs import replace

from imagefs.errors import (
    Exists,
    InvalidArgument,
    InvalidName,
    IsADirectory,
    NameTooLong,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    Stale,
    TooManyLinks,
)
from imagefs.model import MAX_LINKS, ROOT_INO, Ino
from imagefs.overlay.naming import EXCHANGE, NOREPLACE
from tests.overlay.workbench import PIECE, Bench

DIR = 0o40755


def over(bench: Bench, name: str = "upper") -> Bench:
    """A second overlay, over what the first one holds."""
    return Bench(bench.directory.with_name(name), bench.store, bench.commit())


def test_an_overlay_without_a_change_has_no_files(bench: Bench) -> None:
    overlay = bench.overlay
    assert not overlay.changed
    assert bench.names(ROOT_INO) == []
    assert bench.run(overlay.lookup, ROOT_INO, b"x") is None
    overlay.sync()
    assert bench.commit() == bench.manifest
    overlay.close()
    assert not bench.directory.exists()
    assert overlay.check(bench.store.get) == []


def test_made_things_are_found_and_listed_in_byte_order(bench: Bench) -> None:
    for name in [b"b", b"a.b", b"a", b"\xff", b"A"]:
        bench.make(name)
    assert bench.names(ROOT_INO) == [b"A", b"a", b"a.b", b"b", b"\xff"]
    assert bench.overlay.changed
    made = bench.overlay.lookup(ROOT_INO, b"a")
    assert made is not None
    assert stat.S_ISREG(made.mode)
    assert made.ino == bench.overlay.attributes(made.ino).ino


def test_inode_numbers_go_on_after_the_base_and_are_never_used_twice(bench: Bench) -> None:
    first = bench.make(b"a")
    assert first == bench.tree.total + 1
    bench.overlay.discard(bench.overlay.unlink(ROOT_INO, b"a"))
    second = bench.make(b"b")
    assert second == first + 1
    bench.overlay.discard(bench.overlay.unlink(ROOT_INO, b"b"))
    bench.reopen()
    third = bench.make(b"c")
    assert third == second + 1
    bench.kill()
    assert bench.make(b"d") > third


def test_names_that_a_directory_cannot_hold(bench: Bench) -> None:
    for name in [b"", b".", b"..", b"a/b", b"a\0b"]:
        with pytest.raises(InvalidName):
            bench.overlay.make(ROOT_INO, name, 0o100644, 0, 0)
    with pytest.raises(NameTooLong):
        bench.overlay.make(ROOT_INO, b"x" * 256, 0o100644, 0, 0)
    with pytest.raises(NameTooLong):
        bench.overlay.make(ROOT_INO, b"link", stat.S_IFLNK | 0o777, 0, 0, target=b"x" * 4096)
    assert not bench.overlay.changed


def test_a_file_is_no_directory(bench: Bench) -> None:
    file = bench.make(b"file")
    for step in (
        lambda: bench.overlay.lookup(file, b"x"),
        lambda: bench.overlay.list(file, None, 10),
        lambda: bench.overlay.make(file, b"x", 0o100644, 0, 0),
        lambda: bench.overlay.rename(ROOT_INO, b"file", file, b"x"),
    ):
        with pytest.raises(NotADirectory):
            bench.run(step)


def test_a_directory_counts_the_directories_in_it(bench: Bench) -> None:
    top = bench.make(b"top", DIR)
    inner = bench.make(b"top/inner", DIR)
    bench.make(b"top/file")
    assert bench.overlay.attributes(top).nlink == 3
    assert bench.overlay.attributes(ROOT_INO).nlink == 3
    bench.overlay.rename(top, b"inner", ROOT_INO, b"moved")
    assert bench.overlay.attributes(top).nlink == 2
    assert bench.overlay.attributes(ROOT_INO).nlink == 4
    assert bench.overlay.parent(inner) == ROOT_INO
    assert bench.overlay.rmdir(ROOT_INO, b"moved") == inner
    assert bench.overlay.attributes(ROOT_INO).nlink == 3


def test_changing_names_changes_the_times_of_the_directory_alone(bench: Bench) -> None:
    bench.make(b"d", DIR)
    bench.make(b"d/old")
    before = bench.overlay.attributes(bench.ino(b"d"))
    file = bench.overlay.attributes(bench.ino(b"d/old"))
    bench.overlay.rename(before.ino, b"old", before.ino, b"new")
    after = bench.overlay.attributes(before.ino)
    assert after.mtime > before.mtime
    assert after.ctime == after.mtime
    renamed = bench.overlay.attributes(file.ino)
    assert (renamed.mtime, renamed.atime) == (file.mtime, file.atime)
    assert renamed.ctime > file.ctime


def test_an_unlinked_file_lives_until_it_is_discarded(bench: Bench) -> None:
    ino = bench.make(b"file", content=b"content")
    assert bench.overlay.unlink(ROOT_INO, b"file") == ino
    assert bench.overlay.orphan(ino)
    assert bench.overlay.attributes(ino).nlink == 0
    bench.overlay.write(ino, 7, b" and more" * 20000)
    assert bench.content(ino) == b"content" + b" and more" * 20000
    assert bench.overlay.check(bench.store.get) == []
    with pytest.raises(NotFound):
        bench.overlay.link(ino, ROOT_INO, b"again")
    bench.overlay.discard(ino)
    assert not bench.overlay.orphan(ino)
    with pytest.raises(Stale):
        bench.overlay.attributes(ino)
    assert bench.overlay.check(bench.store.get) == []
    assert bench.overlay.changed_bytes == 0


def test_a_removed_directory_holds_nothing_and_takes_nothing(bench: Bench) -> None:
    ino = bench.make(b"d", DIR)
    assert bench.overlay.rmdir(ROOT_INO, b"d") == ino
    assert bench.overlay.lookup(ino, b"x") is None
    assert bench.overlay.list(ino, None, 10) == []
    with pytest.raises(NotFound):
        bench.overlay.make(ino, b"x", 0o100644, 0, 0)


def test_removing_the_wrong_kind(bench: Bench) -> None:
    bench.make(b"d", DIR)
    bench.make(b"d/file")
    d = bench.ino(b"d")
    with pytest.raises(IsADirectory):
        bench.overlay.unlink(ROOT_INO, b"d")
    with pytest.raises(NotADirectory):
        bench.overlay.rmdir(d, b"file")
    with pytest.raises(NotEmpty):
        bench.overlay.rmdir(ROOT_INO, b"d")
    with pytest.raises(NotEmpty):
        bench.overlay.require_empty(d)
    with pytest.raises(NotFound):
        bench.overlay.unlink(d, b"nothing")
    bench.overlay.unlink(d, b"file")
    bench.overlay.require_empty(d)


@pytest.mark.damaged
def test_links(bench: Bench) -> None:
    ino = bench.make(b"a", content=b"shared")
    bench.make(b"d", DIR)
    assert bench.overlay.link(ino, bench.ino(b"d"), b"b").nlink == 2
    assert bench.ino(b"d/b") == ino
    with pytest.raises(Exists):
        bench.overlay.link(ino, ROOT_INO, b"d")
    with pytest.raises(NotPermitted):
        bench.overlay.link(bench.ino(b"d"), ROOT_INO, b"e")
    bench.overlay.unlink(ROOT_INO, b"a")
    assert not bench.overlay.orphan(ino)
    assert bench.read(b"d/b") == b"shared"
    bench.overlay._inodes.put(replace(bench.overlay._inodes.get(ino), nlink=MAX_LINKS))
    with pytest.raises(TooManyLinks):
        bench.overlay.link(ino, ROOT_INO, b"c")


def test_rename_replaces_what_it_may(bench: Bench) -> None:
    for name in [b"dir", b"empty", b"full"]:
        bench.make(name, DIR)
    bench.make(b"full/x")
    file, other = bench.make(b"file"), bench.make(b"other")
    rename = bench.overlay.rename
    root = ROOT_INO
    with pytest.raises(IsADirectory):
        rename(root, b"file", root, b"empty")
    with pytest.raises(NotADirectory):
        rename(root, b"dir", root, b"file")
    with pytest.raises(NotEmpty):
        rename(root, b"dir", root, b"full")
    with pytest.raises(NotFound):
        rename(root, b"nothing", root, b"file")
    with pytest.raises(Exists):
        rename(root, b"file", root, b"other", NOREPLACE)
    with pytest.raises(NotFound):
        rename(root, b"file", root, b"nothing", EXCHANGE)
    with pytest.raises(InvalidArgument):
        rename(root, b"file", root, b"x", 4)
    assert rename(root, b"file", root, b"other") == other
    assert bench.overlay.orphan(other)
    assert bench.ino(b"other") == file
    empty = bench.ino(b"empty")
    assert rename(root, b"dir", root, b"empty") == empty
    assert bench.overlay.orphan(empty)
    assert bench.names(root) == [b"empty", b"full", b"other"]
    assert bench.overlay.attributes(root).nlink == 4


def test_a_directory_cannot_move_below_itself(bench: Bench) -> None:
    bench.make(b"a", DIR)
    bench.make(b"a/b", DIR)
    bench.make(b"a/b/c", DIR)
    a, b, c = (bench.ino(path) for path in (b"a", b"a/b", b"a/b/c"))
    for target in (a, b, c):
        with pytest.raises(InvalidArgument):
            bench.overlay.rename(ROOT_INO, b"a", target, b"x")
    with pytest.raises(InvalidArgument):
        bench.overlay.rename(b, b"c", ROOT_INO, b"a", EXCHANGE)
    with pytest.raises(NotEmpty):
        bench.overlay.rename(b, b"c", ROOT_INO, b"a")


def test_rename_onto_another_name_of_the_same_inode_does_nothing(bench: Bench) -> None:
    ino = bench.make(b"a")
    bench.overlay.link(ino, ROOT_INO, b"b")
    before = bench.overlay.attributes(ino)
    assert bench.overlay.rename(ROOT_INO, b"a", ROOT_INO, b"b") is None
    assert bench.overlay.attributes(ino) == before
    assert bench.names(ROOT_INO) == [b"a", b"b"]


def test_exchange(bench: Bench) -> None:
    bench.make(b"d", DIR)
    bench.make(b"d/inner", DIR)
    file = bench.make(b"file")
    d, inner = bench.ino(b"d"), bench.ino(b"d/inner")
    assert bench.overlay.rename(ROOT_INO, b"file", d, b"inner", EXCHANGE) is None
    assert (bench.ino(b"file"), bench.ino(b"d/inner")) == (inner, file)
    assert bench.overlay.parent(inner) == ROOT_INO
    assert bench.overlay.attributes(d).nlink == 2
    assert bench.overlay.attributes(ROOT_INO).nlink == 4
    assert bench.overlay.check(bench.store.get) == []


def test_paths_for_messages(bench: Bench) -> None:
    bench.make(b"d", DIR)
    file = bench.make(b"d/file")
    upper = over(bench)
    below = upper.ino(b"d/file")
    assert bench.overlay.path(file) == b"d/file"
    assert upper.overlay.path(below) == b"d/file"
    upper.run(upper.overlay.rename, ROOT_INO, b"d", ROOT_INO, b"e")
    assert upper.run(upper.overlay.path, below) == b"e/file"
    upper.run(upper.overlay.unlink, upper.ino(b"e"), b"file")
    assert upper.overlay.path(below) == b"(removed)"
    assert upper.overlay.path(ROOT_INO) == b""


# -- over a base ---------------------------------------------------------------------------


def test_names_of_both_are_listed_as_one(bench: Bench) -> None:
    for number in range(0, 40, 2):
        bench.make(b"%02d" % number)
    upper = over(bench)
    for number in range(1, 40, 4):
        upper.make(b"%02d" % number)
    for number in range(0, 40, 6):
        upper.run(upper.overlay.unlink, ROOT_INO, b"%02d" % number)
    expected = {b"%02d" % n for n in range(0, 40, 2)} | {b"%02d" % n for n in range(1, 40, 4)}
    expected -= {b"%02d" % n for n in range(0, 40, 6)}
    assert upper.names(ROOT_INO) == sorted(expected)
    assert upper.overlay.list(ROOT_INO, b"39", 10) == []


def test_a_listing_goes_on_behind_its_last_name_whatever_happens(bench: Bench) -> None:
    for number in range(30):
        bench.make(b"%02d" % number)
    upper = over(bench)
    seen = []
    after: bytes | None = None
    while items := upper.run(upper.overlay.list, ROOT_INO, after, PIECE):
        seen += [item.name for item in items]
        after = items[-1].name
        # What was given goes, something before it comes, something behind it goes.
        upper.run(upper.overlay.unlink, ROOT_INO, after)
        upper.make(b"%s-again" % items[0].name)
        if after < b"20":
            upper.run(upper.overlay.unlink, ROOT_INO, b"%02d" % (int(after) + 2))
    gone = {b"08", b"16"}
    assert seen == [b"%02d" % n for n in range(30) if b"%02d" % n not in gone]


def test_a_base_name_that_went_can_come_back_as_something_else(bench: Bench) -> None:
    bench.make(b"d", DIR)
    bench.make(b"d/file")
    upper = over(bench)
    root = ROOT_INO
    d = upper.ino(b"d")
    upper.run(upper.overlay.unlink, d, b"file")
    upper.overlay.discard(upper.run(upper.overlay.rmdir, root, b"d"))
    assert upper.names(root) == []
    upper.make(b"d", DIR)
    assert upper.names(upper.ino(b"d")) == []
    upper.run(upper.overlay.rmdir, root, b"d")
    upper.make(b"d")
    assert stat.S_ISREG(upper.overlay.attributes(upper.ino(b"d")).mode)
    upper.run(upper.overlay.unlink, root, b"d")
    assert upper.names(root) == []
    assert upper.overlay.check(upper.store.get) == []


def test_moving_a_large_directory_touches_four_rows(bench: Bench) -> None:
    bench.make(b"d", DIR)
    bench.make(b"d/deep", DIR)
    for number in range(300):
        bench.make(b"d/deep/%03d" % number, content=b"x")
    upper = over(bench)
    inside = upper.ino(b"d/deep/123")
    upper.make(b"other", DIR)
    upper.run(upper.overlay.rename, ROOT_INO, b"d", upper.ino(b"other"), b"moved")
    assert upper.ino(b"other/moved/deep/123") == inside
    assert upper.run(upper.overlay.path, inside) == b"other/moved/deep/123"
    database = upper.overlay._layer.database()
    assert database is not None
    assert database.row("SELECT count(*) FROM inode") == (3,)
    assert database.row("SELECT count(*) FROM dentry") == (3,)


def test_a_link_group_of_the_base_is_one_inode(bench: Bench) -> None:
    bench.make(b"d", DIR)
    bench.make(b"e", DIR)
    ino = bench.make(b"d/a", content=b"old")
    bench.overlay.link(ino, bench.ino(b"e"), b"b")
    bench.overlay.link(ino, ROOT_INO, b"z")
    upper = over(bench)
    first = upper.ino(b"d/a")
    assert upper.ino(b"e/b") == upper.ino(b"z") == first
    assert upper.overlay.attributes(first).nlink == 3
    upper.run(upper.overlay.write, upper.ino(b"z"), 0, b"new")
    assert upper.read(b"d/a") == b"new"
    upper.run(upper.overlay.rename, ROOT_INO, b"d", upper.ino(b"e"), b"d")
    upper.run(upper.overlay.unlink, upper.ino(b"e/d"), b"a")
    assert upper.overlay.attributes(first).nlink == 2
    assert upper.read(b"e/b") == b"new"
    third = over(upper, "third")
    assert third.ino(b"e/b") == third.ino(b"z")
    third.run(third.overlay.unlink, ROOT_INO, b"z")
    assert third.overlay.attributes(third.ino(b"e/b")).nlink == 1
    fourth = over(third, "fourth")
    assert fourth.tree.manifest.links is None


def test_a_base_directory_is_empty_when_all_its_names_are_gone(bench: Bench) -> None:
    bench.make(b"d", DIR)
    for number in range(150):
        bench.make(b"d/%d" % number)
    upper = over(bench)
    d = upper.ino(b"d")
    for number in range(150):
        with pytest.raises(NotEmpty):
            upper.run(upper.overlay.rmdir, ROOT_INO, b"d")
        upper.run(upper.overlay.unlink, d, b"%d" % number)
    upper.run(upper.overlay.rmdir, ROOT_INO, b"d")
    database = upper.overlay._layer.database()
    assert database is not None
    assert database.rows("SELECT parent, ino FROM dentry") == [(ROOT_INO, 0)]


def test_unknown_inodes_are_stale(bench: Bench) -> None:
    with pytest.raises(Stale):
        bench.overlay.attributes(Ino(77))
    bench.make(b"x")
    with pytest.raises(Stale):
        bench.overlay.attributes(Ino(77))


def test_files_are_found_where_their_names_are_now(bench: Bench) -> None:
    for folder in (b"d", b"d/in", b"gone"):
        bench.make(folder, DIR)
    for path in (b"d/in/kept", b"d/moved", b"d/removed", b"gone/file", b"first"):
        bench.make(path)
    linked = bench.ino(b"first")
    for name in (b"second", b"third"):
        bench.run(bench.overlay.link, linked, bench.ino(b"d"), name)
    upper = over(bench)
    paths = (b"d/in/kept", b"d/moved", b"d/removed", b"gone/file", b"first")
    kept, moved, removed, file, linked = (upper.ino(path) for path in paths)

    def found() -> dict[Ino, bytes]:
        return upper.run(upper.overlay.paths, [kept, moved, removed, file, linked])

    assert found() == {
        kept: paths[0], moved: paths[1], removed: paths[2], file: paths[3], linked: b"d/second"
    }  # fmt: skip
    upper.run(upper.overlay.rename, ROOT_INO, b"d", ROOT_INO, b"e")
    upper.run(upper.overlay.rename, upper.ino(b"e"), b"moved", ROOT_INO, b"new")
    for path in (b"e/removed", b"gone/file"):
        upper.run(upper.overlay.unlink, *upper.place(path))
    upper.run(upper.overlay.rmdir, ROOT_INO, b"gone")
    for path in (b"e/second", b"e/third", b"first"):
        assert found() == {kept: b"e/in/kept", moved: b"new", linked: path}
        upper.run(upper.overlay.unlink, *upper.place(path))
    made = upper.make(b"e/made")
    assert upper.run(upper.overlay.paths, [made, linked]) == {made: b"e/made"}
    upper.overlay.close()
