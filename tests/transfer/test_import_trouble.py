"""Import of what cannot be read, and of a source that changes meanwhile."""

from __future__ import annotations

import ctypes
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagefs.errors import AccessDenied, Busy, NotADirectory, NotFound
from imagefs.model import CHUNK_SIZE, ROOT_INO, ObjectId
from imagefs.store import Store
from imagefs.transfer import host
from imagefs.transfer.file_reader import store_content
from imagefs.transfer.import_directory import import_directory
from imagefs.tree import Tree
from tests.transfer.reading import entries, imported, tree_of

as_user = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which root may")

NOBODY = 65534


# -- what goes wrong --------------------------------------------------------------------


def test_sources_that_are_no_directory(store: Store, source: Path) -> None:
    (source / "f").write_bytes(b"")
    with store.writer() as writer:
        with pytest.raises(NotFound, match="none"):
            import_directory(source / "none", writer, store.get)
        with pytest.raises(NotADirectory, match="source/f"):
            import_directory(source / "f", writer, store.get)


def test_the_source_may_be_given_by_a_symbolic_link(store: Store, source: Path) -> None:
    (source.parent / "link").symlink_to(source)
    assert imported(store, source.parent / "link") == imported(store, source)


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A directory that other users can reach, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@contextmanager
def file_access_of(user: int) -> Iterator[None]:
    """This thread, and no other, has the rights of another user when it opens files."""
    libc = ctypes.CDLL(None)
    libc.setfsuid(user)
    try:
        yield
    finally:
        libc.setfsuid(os.geteuid())


@as_user
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_the_user_may_not_read_is_named(store: Store, foreign: Path, kind: str) -> None:
    secret = foreign / "d" / "secret"
    secret.parent.mkdir()
    if kind == "file":
        secret.write_bytes(b"x")
    else:
        secret.mkdir()
    secret.chmod(0)
    with (
        store.writer() as writer,
        file_access_of(NOBODY),
        pytest.raises(AccessDenied, match="d/secret"),
    ):
        import_directory(foreign, writer, store.get)


@as_user
def test_files_of_others_are_read_all_the_same(foreign: Path) -> None:
    """Only an owner may ask that access times stay; others read without."""
    for letter in "ab":
        (foreign / letter).write_bytes(letter.encode())
    opener = host.FileOpener()
    directory = host.open_root(os.fsencode(foreign))
    with file_access_of(NOBODY):
        for name in (b"a", b"b"):
            descriptor = opener.open(directory, name)
            assert os.read(descriptor, 9) == name
            os.close(descriptor)
    os.close(directory)


def opened(path: Path) -> tuple[int, os.stat_result]:
    descriptor = os.open(path, os.O_RDONLY)
    return descriptor, os.fstat(descriptor)


@pytest.mark.parametrize("left", [0, 5, CHUNK_SIZE, CHUNK_SIZE + 3])
def test_a_file_that_shrinks_while_it_is_read(store: Store, source: Path, left: int) -> None:
    path = source / "f"
    path.write_bytes(b"x" * (3 * CHUNK_SIZE))
    descriptor, status = opened(path)
    os.truncate(path, left)
    with store.writer() as writer:
        size, count, ref = store_content(writer, descriptor, status)
        writer.finish()
    os.close(descriptor)
    assert size == count == left
    assert (ref is None) == (left == 0)


@pytest.mark.parametrize("size", [0, 5, 2 * CHUNK_SIZE])
def test_a_file_that_grows_while_it_is_read(store: Store, source: Path, size: int) -> None:
    path = source / "f"
    path.write_bytes(b"x" * size)
    descriptor, status = opened(path)
    path.write_bytes(b"x" * (size + 9))
    with store.writer() as writer:
        assert store_content(writer, descriptor, status)[:2] == (size, size)
    os.close(descriptor)


# -- a source that changes while it is imported -------------------------------------------


def import_with(
    monkeypatch: pytest.MonkeyPatch, store: Store, source: Path, action: Callable[[], None]
) -> Tree:
    """Import, with the action taken when the content b"now" is stored."""
    with store.writer() as writer:
        real = writer.put

        def put(data: bytes, *, metadata: bool = False) -> ObjectId:
            if data == b"now":
                action()
            return real(data, metadata=metadata)

        monkeypatch.setattr(writer, "put", put)
        return Tree(store.get, import_directory(source, writer, store.get))


def test_what_disappears_is_left_out(
    monkeypatch: pytest.MonkeyPatch, store: Store, source: Path
) -> None:
    (source / "a").write_bytes(b"now")
    (source / "b").write_bytes(b"gone")
    (source / "d").mkdir()
    (source / "e").write_bytes(b"")

    def remove() -> None:
        (source / "b").unlink()
        (source / "d").rmdir()

    tree = import_with(monkeypatch, store, source, remove)
    assert list(entries(tree)) == [b"", b"a", b"e"]


def test_a_directory_that_moves_away_is_noticed(
    monkeypatch: pytest.MonkeyPatch, store: Store, source: Path
) -> None:
    path = source / "/".join(["d"] * 100)
    path.mkdir(parents=True)
    (path / "f").write_bytes(b"now")
    (source / "elsewhere").mkdir()

    def move() -> None:
        (source / "d/d/d").rename(source / "elsewhere/d")

    with pytest.raises(Busy, match="was moved"):
        import_with(monkeypatch, store, source, move)


def become_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def become_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("change", [become_directory, become_link, become_fifo, Path.unlink])
def test_a_file_that_becomes_something_else_when_it_is_to_be_opened(
    monkeypatch: pytest.MonkeyPatch, store: Store, source: Path, change: Callable[[Path], None]
) -> None:
    """It is imported as what it became: never followed, never waited for."""
    path = source / "f"
    path.write_bytes(b"x")
    real = host.FileOpener.open

    def open_late(opener: host.FileOpener, parent: int, name: bytes) -> int:
        if stat.S_ISREG(path.lstat().st_mode):
            change(path)
        return real(opener, parent, name)

    monkeypatch.setattr(host.FileOpener, "open", open_late)
    tree = tree_of(store, source)
    wanted = [stat.S_IFMT(path.lstat().st_mode)] if os.path.lexists(path) else []
    assert [stat.S_IFMT(entry.mode) for _, entry in tree.list(ROOT_INO)] == wanted


def test_a_name_that_never_stays_what_it_is(
    monkeypatch: pytest.MonkeyPatch, store: Store, source: Path
) -> None:
    (source / "f").write_bytes(b"x")

    def refuse(opener: host.FileOpener, parent: int, name: bytes) -> int:
        raise host.replaced(name)

    monkeypatch.setattr(host.FileOpener, "open", refuse)
    with pytest.raises(NotADirectory, match="source/f"):
        tree_of(store, source)


def test_descriptors_are_closed_whatever_happens(store: Store, source: Path) -> None:
    path = source / "/".join(["d"] * 100)
    path.mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))

    def give_up(entries: int, size: int) -> None:
        raise KeyboardInterrupt

    for i in range(200):
        (path / f"{i}").write_bytes(b"")
    with store.writer() as writer, pytest.raises(KeyboardInterrupt):
        import_directory(source, writer, store.get, give_up)
    assert len(os.listdir("/proc/self/fd")) == before
