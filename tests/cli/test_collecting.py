"""What programs wrote through memory maps is in a commit, wherever their files are by now."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.cli.collecting import collect
from imagefs.errors import Busy
from tests.cli.conftest import Shell

SIZE = 4 << 20


@pytest.fixture
def files(shell: Shell, source: Path) -> Iterator[dict[str, mmap.mmap]]:
    """Files of the instance base/one of an image, each mapped as a whole for writing."""
    for name in ("kept", "moved", "removed", "linked"):
        (source / "folder" / name).write_bytes(bytes(SIZE))
    (source / "also linked").hardlink_to(source / "folder/linked")
    shell("import", source, "base")
    shell.mount()
    folder = shell.mountpoint / "instances/base/one/folder"
    folder.parent.mkdir()
    maps = {}
    for name in ("kept", "moved", "removed", "linked", "new"):
        with (folder / name).open("ab+") as file:
            file.truncate(SIZE)
            maps[name] = mmap.mmap(file.fileno(), SIZE)
    yield maps
    for mapped in maps.values():
        mapped.close()


def write_everywhere(maps: dict[str, mmap.mmap], content: bytes) -> bytes:
    """Fill all files; returns what they hold then."""
    whole = (content * SIZE)[:SIZE]
    for mapped in maps.values():
        mapped[:] = whole
    return whole


@pytest.mark.mount
def test_what_was_written_through_maps_is_in_a_commit(
    shell: Shell, files: dict[str, mmap.mmap]
) -> None:
    folder = shell.mountpoint / "instances/base/one/folder"
    written = write_everywhere(files, b"first")
    shell("commit", "base/one", "committed")
    committed = shell.mountpoint / "images/committed"
    for name in files:
        assert (committed / "folder" / name).read_bytes() == written
    write_everywhere(files, b"other")
    changes = shell.json("diff", "committed", "base/one")
    assert {change["path"] for change in changes if "content" in change["details"]} == {
        "/also linked", *(f"/folder/{name}" for name in files)
    }  # fmt: skip
    (folder / "moved").rename(folder.with_name("new place"))
    (folder / "removed").unlink()
    (folder.parent / "also linked").unlink()
    folder.rename(folder.with_name("renamed"))
    written = write_everywhere(files, b"last")
    shell("commit", "base/one", "again")
    again = shell.mountpoint / "images/again"
    for path in ("new place", "renamed/kept", "renamed/linked", "renamed/new"):
        assert (again / path).read_bytes() == written


def test_files_that_are_moved_are_looked_for_again(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    moved, closed = tmp_path / "folder/moved", tmp_path / "closed"
    for path in (moved, closed):
        path.touch()
    inode = moved.stat().st_ino
    located = [(b"folder/file", inode), (b"elsewhere/file", closed.stat().st_ino)]
    answers = [[(path, inode)] for path in (b"closed", b"closed/file", b"folder/moved")]
    collect(str(tmp_path), located, lambda: answers.pop(0))
    assert not answers
    with pytest.raises(Busy, match="folder/never can't be collected"):
        collect(str(tmp_path), [(b"folder/never", inode)], lambda: [(b"folder/never", inode)])


def test_no_symlink_is_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").touch()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "folder/link").symlink_to("file")
    inode = (tmp_path / "folder/file").stat().st_ino
    for path in (b"link/file", b"folder/link"):
        with pytest.raises(Busy):
            collect(str(tmp_path), [(path, inode)], lambda path=path: [(path, inode)])  # type: ignore[misc]
    collect(str(tmp_path), [(b"folder/file", inode)], list)


def test_a_path_may_be_longer_than_the_kernel_takes(tmp_path: Path) -> None:
    name = b"n" * 200
    directory = os.open(tmp_path, os.O_PATH)
    for _ in range(30):
        os.mkdir(name, dir_fd=directory)
        above, directory = directory, os.open(name, os.O_PATH, dir_fd=directory)
        os.close(above)
    fd = os.open(b"file", os.O_CREAT | os.O_WRONLY, dir_fd=directory)
    inode = os.fstat(fd).st_ino
    os.close(fd)
    os.close(directory)
    collect(str(tmp_path), [(b"/".join([*[name] * 30, b"file"]), inode)], list)
