"""Import: everything a directory of the host holds, exactly, into the store."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from imagefs.model import CHUNK_SIZE, ROOT_INO
from imagefs.store import Store
from imagefs.transfer.import_directory import import_directory
from imagefs.tree import Tree
from imagefs.tree.dump import dump
from imagefs.tree.walk import walk
from tests.transfer.reading import content, entries, found, imported, tree_of

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

ODD_TIME = 1_234_567_890_123_456_789


def test_an_empty_directory(store: Store, source: Path) -> None:
    source.chmod(0o2751)
    os.utime(source, ns=(0, ODD_TIME))
    tree = tree_of(store, source)
    root = tree.entry(ROOT_INO)
    assert tree.total == 1
    assert (root.mode, root.mtime, root.count) == (0o042751, ODD_TIME, 0)
    assert (root.uid, root.gid) == (os.geteuid(), source.stat().st_gid)
    assert tree.list(ROOT_INO) == []


SIZES = [0, 1, 4095, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE, 1_000_000]


def test_contents_of_all_sizes(store: Store, source: Path) -> None:
    rng = random.Random(1)
    files = {b"%d" % size: rng.randbytes(size) for size in SIZES}
    for name, data in files.items():
        (source / name.decode()).write_bytes(data)
    tree = tree_of(store, source)
    for name, data in files.items():
        entry = found(tree, name)[1]
        assert (entry.size, entry.count) == (len(data), len(data))
        assert content(store, tree, entry) == data


def test_attributes_are_exact(store: Store, source: Path) -> None:
    for number, time in enumerate((0, 1, ODD_TIME, -1, -(10**18), 2**62)):
        path = source / f"{number}"
        path.write_bytes(b"")
        path.chmod(0o4750 + number)
        os.utime(path, ns=(0, time))
        wanted = path.stat().st_mtime_ns
        entry = found(tree_of(store, source), b"%d" % number)[1]
        assert (entry.mode, entry.mtime) == (0o104750 + number, wanted)


@as_root
def test_owners_devices_fifos_and_sockets(store: Store, source: Path) -> None:
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(source / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 77_777))
    os.mkfifo(source / "fifo", 0o600)
    os.mkfifo(source / "theirs")
    os.chown(source / "theirs", 12345, 2**32 - 2)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.fspath(source / "socket"))
    tree = tree_of(store, source)
    assert found(tree, b"null")[1].count == os.makedev(1, 3)
    assert tree.attributes(*found(tree, b"disk")).rdev == os.makedev(259, 77_777)
    assert stat.S_ISFIFO(found(tree, b"fifo")[1].mode)
    assert stat.S_ISSOCK(found(tree, b"socket")[1].mode)
    entry = found(tree, b"theirs")[1]
    assert (entry.uid, entry.gid) == (12345, 2**32 - 2)


def test_symbolic_links_are_kept_and_never_followed(store: Store, source: Path) -> None:
    targets = {b"up": b"../..", b"loop": b"loop", b"bytes": b"\xff\xfe", b"long": b"x" * 4095}
    for name, target in targets.items():
        os.symlink(target, os.path.join(os.fsencode(source), name))
    (source / "dir").mkdir()
    (source / "dir-link").symlink_to("dir")
    tree = tree_of(store, source)
    for name, target in targets.items():
        assert found(tree, name)[1].ref == target
    assert tree.total == 7


def test_names_of_any_bytes(store: Store, source: Path) -> None:
    names = [b"\xff\xfe", b"new\nline", b" ", b"-rf", b"x" * 255, "n\u00e4me".encode(), b"..."]
    for name in names:
        with open(os.path.join(os.fsencode(source), name), "wb"):
            pass
    tree = tree_of(store, source)
    assert [entry.name for _, entry in tree.list(ROOT_INO)] == sorted(names)


def set_xattr(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value, follow_symlinks=False)
    except OSError as error:
        if error.errno in {errno.ENOTSUP, errno.EPERM}:
            pytest.skip(f"no {name} here")
        raise


def test_extended_attributes(store: Store, source: Path) -> None:
    (source / "f").write_bytes(b"")
    (source / "d").mkdir()
    for path in (source, source / "f", source / "d"):
        set_xattr(path, "user.b", b"\0\xff")
        set_xattr(path, "user.a", b"")
        set_xattr(path, "user.imagefs.kind", b"left out")
    wanted = ((b"user.a", b""), (b"user.b", b"\0\xff"))
    assert [entry.xattrs for entry in entries(tree_of(store, source)).values()] == [wanted] * 3


@as_root
def test_extended_attributes_of_what_cannot_be_opened(store: Store, source: Path) -> None:
    (source / "link").symlink_to("nowhere")
    os.mkfifo(source / "fifo")
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for path in source.iterdir():
        set_xattr(path, "trusted.a", path.name.encode())
    tree = tree_of(store, source)
    for name in (b"link", b"fifo", b"null"):
        assert found(tree, name)[1].xattrs == ((b"trusted.a", name),)


def test_access_control_lists(store: Store, source: Path) -> None:
    if shutil.which("setfacl") is None:
        pytest.skip("no setfacl")
    (source / "d").mkdir()
    subprocess.run(["setfacl", "-m", "u:1234:rwx", "-m", "d:u:1234:r", source / "d"], check=True)
    found_xattrs = found(tree_of(store, source), b"d")[1].xattrs or ()
    names = [name for name, _ in found_xattrs]
    assert names == [b"system.posix_acl_access", b"system.posix_acl_default"]
    assert all(os.getxattr(source / "d", name) == value for name, value in found_xattrs)


# -- hard links -------------------------------------------------------------------------


def test_hard_links_are_one_inode(store: Store, source: Path) -> None:
    (source / "z").mkdir()
    (source / "b").write_bytes(b"data")
    for name in ("a", "z/c", "z/d"):
        os.link(source / "b", source / name)
    os.symlink("x", source / "s")
    os.link(source / "s", source / "t", follow_symlinks=False)
    tree = tree_of(store, source)
    numbers = {path: ino for path, ino, _ in walk(tree)}
    assert numbers[b"a"] == numbers[b"b"] == numbers[b"z/c"] == numbers[b"z/d"] == 2
    assert tree.attributes(*found(tree, b"z/d")).nlink == 4
    assert tree.link_paths(numbers[b"a"]) == (b"a", b"b", b"z/c", b"z/d")
    assert tree.link_paths(numbers[b"s"]) == (b"s", b"t")


def test_links_that_lead_out_of_the_source_do_not_count(store: Store, source: Path) -> None:
    def fill(at: Path) -> None:
        (at / "d").mkdir(parents=True)
        for name in ("d/one", "d/three", "two"):
            (at / name).write_bytes(name.encode())
            os.utime(at / name, ns=(0, 5))
        os.link(at / "two", at / "d/two")

    fill(source)
    outside = source.parent / "outside"
    outside.mkdir()
    for name in ("d/one", "two"):
        os.link(source / name, outside / Path(name).name)
    lonely = source.parent / "lonely"
    fill(lonely)
    for path in (source, lonely):
        for directory in (path / "d", path):
            os.utime(directory, ns=(0, 7))
    tree = tree_of(store, source)
    assert tree.attributes(*found(tree, b"d/one")).nlink == 1
    assert tree.attributes(*found(tree, b"two")).nlink == 2
    assert tree.manifest_id == imported(store, lonely)


# -- holes ------------------------------------------------------------------------------


def test_zeros_and_holes_are_the_same(store: Store, source: Path) -> None:
    size = 5 * CHUNK_SIZE + 7
    data = bytes(CHUNK_SIZE) + b"x" + bytes(size - CHUNK_SIZE - 1)
    (source / "f").write_bytes(data)
    os.utime(source / "f", ns=(0, 1))
    os.utime(source, ns=(0, 1))
    written = imported(store, source)
    with (source / "f").open("wb") as file:
        file.truncate(size)
        file.seek(CHUNK_SIZE)
        file.write(b"x")
    os.utime(source / "f", ns=(0, 1))
    os.utime(source, ns=(0, 1))
    tree = tree_of(store, source)
    assert tree.manifest_id == written
    entry = found(tree, b"f")[1]
    assert (entry.size, entry.count) == (size, CHUNK_SIZE)
    assert content(store, tree, entry) == data


@pytest.mark.parametrize("size", [4 * 2**30 + 1, 2**43])
def test_sparse_files_cost_what_they_hold(store: Store, source: Path, size: int) -> None:
    try:
        with (source / "f").open("wb") as file:
            file.truncate(size)
            file.seek(size - 1)
            file.write(b"x")
            file.seek(2**30)
            file.write(b"y")
    except OSError as error:
        pytest.skip(f"no file of {size} bytes here: {error}")
    before = store.statistics().objects
    tree = tree_of(store, source)
    entry = found(tree, b"f")[1]
    assert entry.size == size
    assert 0 < entry.count <= 2 * CHUNK_SIZE
    assert store.statistics().objects - before < 12
    last = (size - 1) // CHUNK_SIZE
    (chunk,) = tree.chunk_ids(entry, last, last)
    assert chunk is not None
    assert store.get(chunk).endswith(b"x")


# -- shapes of trees --------------------------------------------------------------------


def make_deep(source: Path, levels: int, name: str) -> None:
    descriptor = os.open(source, os.O_RDONLY)
    for level in range(levels):
        os.mkdir(name, dir_fd=descriptor)
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
        for leaf in ("~before", "~~after") if level % 500 == 0 else ():
            os.close(os.open(leaf, os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        os.close(descriptor)
        descriptor = inner
    os.symlink("bottom", "link", dir_fd=descriptor)
    os.close(descriptor)


def test_paths_far_longer_than_the_kernel_takes(store: Store, source: Path) -> None:
    levels, name = 1500, "n" * 40
    make_deep(source, levels, name)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        tree = tree_of(store, source)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert tree.total == 1 + levels + 1 + 2 * 3
    assert found(tree, b"/".join([name.encode()] * levels) + b"/link")[1].ref == b"bottom"
    subprocess.run(["rm", "-rf", source], check=True)


def test_a_large_directory(store: Store, source: Path) -> None:
    for i in range(500):
        (source / f"{i:04}").write_bytes(b"%d" % i)
    tree = tree_of(store, source)
    assert tree.total == 501
    assert content(store, tree, found(tree, b"0234")[1]) == b"234"


def test_the_same_tree_has_the_same_digest_and_adds_nothing(store: Store, source: Path) -> None:
    for i in range(50):
        (source / f"{i}").mkdir()
        (source / f"{i}" / "f").write_bytes(random.Random(i).randbytes(i * 999))
    copy = source.parent / "copy"
    subprocess.run(["cp", "-a", source, copy], check=True)
    first = imported(store, source)
    before = store.statistics()
    assert imported(store, copy) == first
    assert store.statistics().pack_bytes == before.pack_bytes
    with Store.create(source.parent / "other") as other:
        assert list(dump(tree_of(other, copy))) == list(dump(Tree(store.get, first)))


def test_progress_ends_with_everything(store: Store, source: Path) -> None:
    for i in range(300):
        (source / f"{i}").write_bytes(b"x" * 10)
    seen: list[tuple[int, int]] = []
    with store.writer() as writer:
        import_directory(source, writer, store.get, lambda *row: seen.append(row))
    assert seen[-1] == (300, 3000)
    assert seen == sorted(seen)
    assert len(seen) >= 2


def test_a_directory_can_be_left_out(store: Store, source: Path) -> None:
    (source / "in").mkdir()
    (source / "in" / "f").write_bytes(b"")
    (source / "out").mkdir()
    (source / "out" / "f").write_bytes(b"")
    status = (source / "out").stat()
    with store.writer() as writer:
        manifest = import_directory(
            source, writer, store.get, leave_out=[(status.st_dev, status.st_ino)]
        )
    assert list(entries(Tree(store.get, manifest))) == [b"", b"in", b"in/f", b"out"]


def test_what_was_imported_is_durable(store: Store, source: Path) -> None:
    (source / "f").write_bytes(b"content")
    writer = store.writer()
    manifest = import_directory(source, writer, store.get)
    with Store.open(store.path) as other:
        tree = Tree(other.get, manifest)
        assert content(other, tree, found(tree, b"f")[1]) == b"content"
    writer.close()
