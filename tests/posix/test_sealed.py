"""Sealed images: everything reads, every change is EROFS, whoever asks; and the places above."""

import errno
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.child import as_other
from tests.acceptance.fixtures import ROOT, at_home
from tests.acceptance.mounts import new_folder
from tests.acceptance.person import Person
from tests.posix.calls import (
    AT_FDCWD,
    AT_SYMLINK_FOLLOW,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    UTIME_NOW,
    linkat,
    renameat2,
    utimensat,
)
from tests.posix.observe import content, opened, tried
from tests.posix.people import STRANGER, STRANGERS
from tests.posix.stages import NO_ALARM
from tests.posix.template import BIG, standard

pytestmark = [pytest.mark.mount, pytest.mark.root]

Change = Callable[[], object]
ACCESS = "system.posix_acl_access"

CHANGES: dict[str, Change] = {
    "create": lambda: os.open("new", os.O_CREAT | os.O_WRONLY, 0o644),
    "create to read": lambda: os.open("new", os.O_CREAT | os.O_RDONLY, 0o644),
    "open to write": lambda: os.open("file", os.O_WRONLY),
    "open for both": lambda: os.open("file", os.O_RDWR),
    "open to append": lambda: os.open("file", os.O_WRONLY | os.O_APPEND),
    "open to cut": lambda: os.open("file", os.O_WRONLY | os.O_TRUNC),
    "open to read and cut": lambda: os.open("file", os.O_RDONLY | os.O_TRUNC),
    "open by a link": lambda: os.open("link", os.O_WRONLY),
    "truncate": lambda: os.truncate("file", 0),
    "truncate longer": lambda: os.truncate("file", 10**6),
    "mkdir": lambda: os.mkdir("new"),
    "mkdir below": lambda: os.mkdir("dir/sub/new"),
    "mknod": lambda: os.mknod("new"),
    "mkfifo": lambda: os.mkfifo("new"),
    "socket": lambda: os.mknod("new", stat.S_IFSOCK | 0o600),
    "device": lambda: os.mknod("new", stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "symlink": lambda: os.symlink("x", "new"),
    "link": lambda: os.link("file", "new"),
    "link of a symlink": lambda: linkat(AT_FDCWD, "link", "new", AT_SYMLINK_FOLLOW),
    "unlink": lambda: os.unlink("file"),
    "unlink a twin": lambda: os.unlink("twin"),
    "unlink a symlink": lambda: os.unlink("link"),
    "rmdir": lambda: os.rmdir("emptydir"),
    "rename": lambda: os.rename("file", "new"),
    "rename over": lambda: os.rename("file", "big"),
    "rename across": lambda: os.rename("file", "dir/new"),
    "rename a directory": lambda: os.rename("dir", "newdir"),
    "rename without replacing": lambda: renameat2("file", "new", RENAME_NOREPLACE),
    "exchange": lambda: renameat2("file", "big", RENAME_EXCHANGE),
    "chmod": lambda: os.chmod("file", 0o600),
    "chmod the same": lambda: os.chmod("file", 0o644),
    "chmod a directory": lambda: os.chmod("dir", 0o700),
    "chown": lambda: os.chown("file", 5, 5),
    "chown a symlink": lambda: os.lchown("link", 5, 5),
    "touch": lambda: os.utime("file"),
    "utime": lambda: os.utime("dir", ns=(1, 2)),
    "utime a symlink": lambda: os.utime("link", ns=(1, 2), follow_symlinks=False),
    "utime now": lambda: utimensat("file", (0, UTIME_NOW), (5, 5)),
    "setxattr": lambda: os.setxattr("file", "user.x", b"1"),
    "trusted": lambda: os.setxattr("dir", "trusted.x", b"1"),
    "security": lambda: os.setxattr("file", "security.x", b"1"),
    "removexattr": lambda: os.removexattr("file", "user.there"),
    "remove acl": lambda: os.removexattr("big", ACCESS),
    "remove no acl": lambda: os.removexattr("file", ACCESS),
    "rename below": lambda: os.rename("dir/a", "dir/c"),
}


@pytest.fixture(scope="module")
def sealed() -> Iterator[Path]:
    """A sealed image with a little of everything, in a mount that lets others in."""
    for root in at_home(Person("root", new_folder(), ROOT), NO_ALARM):
        root.mount("--seal-after", "0", "--allow-other")
        image = root.images / "image"
        image.mkdir()
        here = Path.cwd()
        os.chdir(image)
        standard()
        os.setxattr("file", "user.there", b"1")
        os.chdir(here)
        subprocess.run(["setfacl", "-m", "u:7:rw", image / "big"], check=True)
        image.joinpath("free").mkdir(mode=0o777)
        image.joinpath("free").chmod(0o777)
        root.imagefs("seal", "image")
        yield image


@pytest.fixture
def inside(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(sealed)
    return sealed


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_refused(name: str, inside: Path) -> None:
    before = sorted(os.listdir())
    assert tried(CHANGES[name]) == "EROFS"
    assert sorted(os.listdir()) == before


def test_nobody_else_changes_it_either(inside: Path) -> None:
    def tries() -> list[object]:
        return [
            tried(os.mkdir, "free/new"),
            opened("free/new", os.O_CREAT | os.O_WRONLY),
            tried(os.symlink, "x", "free/new"),
            tried(os.utime, "free"),
        ]

    assert as_other(STRANGER, STRANGERS, tries) == ["EROFS"] * 4


def test_everything_reads(inside: Path) -> None:
    assert content("big") == BIG
    assert os.readlink("link") == "file"
    assert sorted(os.listdir("dir")) == ["a", "b", "sub"]
    assert os.getxattr("file", "user.there") == b"1"
    assert opened("file", os.O_CREAT | os.O_RDONLY) == "ok", "it exists: nothing is made"
    fd = os.open("fifo", os.O_RDWR)
    os.write(fd, b"through")
    assert os.read(fd, 10) == b"through", "a fifo is not the file system's content"
    os.close(fd)
    with open("file", "rb") as file:
        assert tried(os.fsync, file.fileno()) is None
        assert tried(os.fchmod, file.fileno(), 0o600) == "EROFS"


def test_what_is_there_already_is_told_first(inside: Path) -> None:
    assert tried(os.mkdir, "dir") == "EEXIST"
    assert tried(os.symlink, "x", "file") == "EEXIST"
    assert opened("file", os.O_CREAT | os.O_EXCL | os.O_WRONLY) == "EEXIST"
    assert tried(os.unlink, "missing") == "ENOENT"
    assert tried(os.rmdir, "file") == "ENOTDIR"


# -- above the trees --------------------------------------------------------------------


def test_nothing_moves_between_trees_behind_ones_back(sealed: Path) -> None:
    cloud = sealed.parent.parent
    one, two = cloud / "instances/image/one", cloud / "instances/image/two"
    for instance in (one, two):
        instance.mkdir()
    assert tried(os.rename, one / "file", two / "moved") == "EXDEV"
    assert tried(os.rename, one / "dir", two / "moved") == "EXDEV"
    assert tried(os.link, one / "file", two / "linked") == "EXDEV"
    assert tried(renameat2, f"{one}/file", f"{two}/file", RENAME_EXCHANGE) == "EXDEV"
    assert tried(os.rename, one / "file", sealed / "moved") == "EXDEV"
    assert tried(os.link, one / "file", cloud / "images/file") == "EPERM"
    assert tried(os.rename, one / "dir", cloud / "images/dir") == "EPERM"
    assert tried(os.rename, cloud / "images/image", one / "image") == "EPERM"
    assert tried(renameat2, f"{one}", f"{two}", RENAME_EXCHANGE) == "EINVAL"
    assert content(f"{one}/file") == content(f"{two}/file") == content(f"{sealed}/file")


@pytest.mark.parametrize(
    "place", ["", "images", "instances", "instances/image", "shared", "regions"]
)
def test_places_hold_no_files(sealed: Path, place: str) -> None:
    folder = sealed.parent.parent / place
    new = str(folder / "new")
    refused: list[object] = [
        opened(new, os.O_CREAT | os.O_WRONLY),
        tried(os.mknod, new),
        tried(os.mkfifo, new),
        tried(os.chmod, folder, 0o700),
        tried(os.chown, folder, 5, 5),
        tried(os.utime, folder),
        tried(os.setxattr, folder, "user.x", b"1"),
        tried(os.link, sealed / "file", new),
    ]
    assert set(refused) <= {"EPERM", "EROFS"}, refused
    assert tried(os.rmdir, folder) in {"EPERM", "EBUSY"}
    assert tried(os.listdir, folder) == sorted(os.listdir(folder)) or place == ""
    assert errno.errorcode[errno.ENODATA] == tried(os.getxattr, folder, "user.x")
