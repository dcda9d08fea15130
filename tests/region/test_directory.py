"""Regions in a directory: on the disk when they say so, and nowhere but in there."""

import errno
import os
import time
from pathlib import Path

import pytest

from imagefs.errors import (
    AccessDenied,
    Corrupt,
    Exists,
    ImagefsError,
    NameTooLong,
    NoSpace,
    NotADirectory,
    NotFound,
    PlaceGone,
)
from imagefs.region.bucket import Bucket
from imagefs.region.url import RegionUrl
from tests.store.watched import WatchedDisk


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "region").mkdir()
    return tmp_path / "region"


def bucket_at(root: Path, disk: WatchedDisk | None = None) -> Bucket:
    return Bucket(RegionUrl.parse(f"file://{root}"), name="usb", disk=disk)


def test_what_was_put_is_on_the_disk_before_it_has_its_name(root: Path) -> None:
    disk = WatchedDisk()
    bucket = bucket_at(root, disk)
    bucket.put("packs/one", b"1")
    disk.calls.clear()
    bucket.put("packs/one", b"2")
    names = [method for method, _ in disk.calls]
    assert names == ["pwrite", "fdatasync", "rename", "fsync_dir"]
    assert disk.calls[-1] == ("fsync_dir", "packs")
    disk.calls.clear()
    bucket.create("packs/two", b"2")
    assert [method for method, _ in disk.calls] == [*names[:2], "rename_new", "fsync_dir"]
    disk.calls.clear()
    bucket.delete("packs/one")
    assert [method for method, _ in disk.calls] == ["unlink", "fsync_dir"]


def test_new_directories_are_on_the_disk_too(root: Path) -> None:
    disk = WatchedDisk()
    bucket_at(root, disk).put("images/ann/web", b"1")
    made = [name for method, name in disk.calls if method == "mkdir"]
    synced = [name for method, name in disk.calls if method == "fsync_dir"]
    assert made == ["images", "ann", ".unfinished"]
    assert synced == ["region", "images", "region", "ann"]


@pytest.mark.parametrize("way", ["put", "create"])
def test_a_disk_that_fails_leaves_the_object_as_before_or_as_after(root: Path, way: str) -> None:
    step, failed = 0, 0
    while True:
        step += 1
        disk = WatchedDisk()
        disk.fail_at, disk.error = step, NoSpace
        bucket = bucket_at(root, disk)
        key = f"packs/{step}"
        try:
            getattr(bucket, way)(key, b"data")
        except NoSpace:
            failed += 1
        else:
            break
        assert not (root / key).exists() or (root / key).read_bytes() == b"data"
        assert not list(root.glob(".unfinished/*"))
    assert failed >= 4
    assert (root / key).read_bytes() == b"data"


def test_a_directory_that_is_not_there_is_no_empty_region(tmp_path: Path) -> None:
    bucket = bucket_at(tmp_path / "gone")
    for work in (
        bucket.list,
        lambda: bucket.get("x"),
        lambda: bucket.get_range("x", 0, 1),
        lambda: bucket.head("x"),
        lambda: bucket.put("x", b""),
        lambda: bucket.create("x", b""),
        lambda: bucket.delete("x"),
    ):
        with pytest.raises(PlaceGone, match=r"Region usb is not there: /.*/gone is no directory"):
            work()
    assert PlaceGone.errno == errno.EIO, "what was asked for may be there all the same"
    assert not (tmp_path / "gone").exists()


def test_a_new_region_is_made_where_its_parent_is(tmp_path: Path) -> None:
    bucket = bucket_at(tmp_path / "new")
    bucket.prepare()
    bucket.prepare()
    assert bucket.list() == []
    with pytest.raises(NotFound, match=r"cannot be made: .*/no is no directory"):
        bucket_at(tmp_path / "no/where").prepare()
    assert not (tmp_path / "no").exists()


def test_a_file_is_no_region(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectory, match="is no directory"):
        bucket_at(tmp_path / "file").prepare()
    with pytest.raises(NotFound, match="is no directory"):
        bucket_at(tmp_path / "file").list()


def test_nothing_outside_is_read_listed_or_written(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (root / "packs").mkdir()
    (root / "packs/file").symlink_to(outside / "secret")
    (root / "images").symlink_to(outside)
    bucket = bucket_at(root)
    assert bucket.list() == []
    assert bucket.list("images/") == []
    for key in ("packs/file", "images/secret"):
        assert bucket.head(key) is None
        with pytest.raises(NotFound):
            bucket.get(key)
        with pytest.raises(NotFound):
            bucket.get_range(key, 0, 1)
    with pytest.raises(Corrupt, match="behind a symlink"):
        bucket.put("images/secret", b"overwritten")
    bucket.delete("images/secret")
    bucket.put("packs/file", b"new")
    assert (outside / "secret").read_text() == "secret"
    assert os.listdir(outside) == ["secret"]
    assert bucket.get("packs/file") == b"new"


def test_a_region_may_itself_be_behind_a_symlink(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    bucket = bucket_at(tmp_path / "link")
    bucket.put("packs/one", b"1")
    assert bucket.get("packs/one") == b"1"
    assert [listed.key for listed in bucket.list()] == ["packs/one"]


def test_what_is_no_file_is_no_object(root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "folder").mkdir()
    (root / ".DS_Store").write_text("x")
    (root / os.fsdecode(b"\xff")).write_text("x")
    bucket = bucket_at(root)
    assert bucket.list() == []
    for key in ("pipe", "folder"):
        assert bucket.head(key) is None
        with pytest.raises(NotFound):
            bucket.get(key)


def test_an_object_cannot_be_below_another(root: Path) -> None:
    bucket = bucket_at(root)
    bucket.put("packs", b"1")
    with pytest.raises(NotADirectory, match="packs/one in Region usb is below"):
        bucket.put("packs/one", b"1")
    bucket.put("images/ann/web", b"1")
    with pytest.raises(ImagefsError):
        bucket.put("images/ann", b"1")


def test_a_name_too_long_for_the_disk_says_so(root: Path) -> None:
    with pytest.raises(NameTooLong, match="too long a name for Region usb"):
        bucket_at(root).put("packs/" + "x" * 300, b"1")


def test_what_was_left_unfinished_goes_after_a_day(root: Path) -> None:
    (root / ".unfinished").mkdir()
    old, new = (root / ".unfinished" / name for name in ("old", "new"))
    old.write_text("x")
    new.write_text("x")
    os.utime(old, (time.time() - 90_000,) * 2)
    bucket_at(root).put("packs/one", b"1")
    assert os.listdir(root / ".unfinished") == ["new"]
    with pytest.raises(Exists):
        bucket_at(root).create("packs/one", b"2")
    assert os.listdir(root / ".unfinished") == ["new"]


@pytest.mark.root
def test_a_directory_that_may_not_be_entered_is_told(root: Path) -> None:
    bucket = bucket_at(root)
    bucket.put("packs/one", b"1")
    (root / "packs").chmod(0)
    os.seteuid(65534)
    try:
        for work in (bucket.list, lambda: bucket.get("packs/one"), lambda: bucket.put("x", b"")):
            with pytest.raises(AccessDenied, match=r"Region usb.*Permission denied"):
                work()
    finally:
        os.seteuid(0)
