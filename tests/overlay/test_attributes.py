"""Attributes, times and extended attributes."""

from __future__ import annotations

import os
import stat

import pytest

from imagefs.errors import AttributeTooBig, Exists, InvalidArgument, IsADirectory, NoAttribute
from imagefs.model import ROOT_INO, AttributeChange
from tests.overlay.workbench import START, Bench


def test_only_the_given_fields_change(bench: Bench) -> None:
    ino = bench.make(b"file", content=b"content")
    before = bench.overlay.attributes(ino)
    after = bench.overlay.change_attributes(ino, AttributeChange(mode=0o4751))
    assert after.mode == stat.S_IFREG | 0o4751
    assert (after.uid, after.mtime, after.atime) == (before.uid, before.mtime, before.atime)
    assert after.ctime > before.ctime
    after = bench.overlay.change_attributes(ino, AttributeChange(uid=5, gid=6))
    assert (after.uid, after.gid) == (5, 6)
    assert bench.overlay.attributes(ino) == after


def test_times_are_kept_to_the_nanosecond_also_before_1970(bench: Bench) -> None:
    ino = bench.make(b"file")
    change = AttributeChange(atime=-1, mtime=-1_234_567_890_123_456_789, ctime=3)
    after = bench.overlay.change_attributes(ino, change)
    assert (after.atime, after.mtime, after.ctime) == (-1, -1_234_567_890_123_456_789, 3)
    bench.reopen()
    assert bench.overlay.attributes(ino) == after


def test_a_change_of_size_is_a_change_of_content(bench: Bench) -> None:
    ino = bench.make(b"file", content=b"content")
    before = bench.overlay.attributes(ino)
    after = bench.overlay.change_attributes(ino, AttributeChange(size=3))
    assert after.mtime == after.ctime > before.mtime
    exact = bench.overlay.change_attributes(ino, AttributeChange(size=2, mtime=START - 1))
    assert exact.mtime == START - 1
    with pytest.raises(IsADirectory):
        bench.overlay.change_attributes(ROOT_INO, AttributeChange(size=0))
    fifo = bench.make(b"fifo", stat.S_IFIFO | 0o600)
    with pytest.raises(InvalidArgument):
        bench.overlay.change_attributes(fifo, AttributeChange(size=0))


def test_special_files(bench: Bench) -> None:
    root = ROOT_INO
    device = bench.overlay.make(root, b"null", stat.S_IFCHR | 0o666, 0, 0, rdev=os.makedev(1, 3))
    assert device.rdev == os.makedev(1, 3)
    link = bench.overlay.make(root, b"link", stat.S_IFLNK | 0o777, 0, 0, target=b"\xff/..")
    assert link.size == 4
    assert bench.overlay.readlink(link.ino) == b"\xff/.."
    with pytest.raises(InvalidArgument):
        bench.overlay.readlink(device.ino)
    with pytest.raises(InvalidArgument):
        bench.overlay.read(device.ino, 0, 1)
    upper = Bench(bench.directory.with_name("upper"), bench.store, bench.commit())
    assert upper.overlay.attributes(upper.ino(b"null")).rdev == os.makedev(1, 3)
    assert upper.overlay.readlink(upper.ino(b"link")) == b"\xff/.."


def test_extended_attributes(bench: Bench) -> None:
    ino = bench.make(b"file")
    overlay = bench.overlay
    assert overlay.list_xattr(ino) == ()
    overlay.set_xattr(ino, b"user.b", b"2")
    overlay.set_xattr(ino, b"user.a", b"")
    assert overlay.list_xattr(ino) == (b"user.a", b"user.b")
    assert overlay.get_xattr(ino, b"user.a") == b""
    with pytest.raises(Exists):
        overlay.set_xattr(ino, b"user.a", b"x", os.XATTR_CREATE)
    with pytest.raises(NoAttribute):
        overlay.set_xattr(ino, b"user.c", b"x", os.XATTR_REPLACE)
    with pytest.raises(NoAttribute):
        overlay.get_xattr(ino, b"user.c")
    overlay.remove_xattr(ino, b"user.a")
    with pytest.raises(NoAttribute):
        overlay.remove_xattr(ino, b"user.a")
    before = overlay.attributes(ino)
    overlay.set_xattr(ino, b"user.b", b"3")
    after = overlay.attributes(ino)
    assert after.ctime > before.ctime
    assert after.mtime == before.mtime
    bench.reopen()
    assert bench.overlay.get_xattr(ino, b"user.b") == b"3"


def test_limits_of_extended_attributes(bench: Bench) -> None:
    ino = bench.make(b"file")
    bench.overlay.set_xattr(ino, b"user.big", bytes(65536))
    with pytest.raises(AttributeTooBig):
        bench.overlay.set_xattr(ino, b"user.big", bytes(65537))
    with pytest.raises(AttributeTooBig):
        bench.overlay.set_xattr(ino, b"user." + b"x" * 251, b"")
    for number in range(256):
        bench.overlay.set_xattr(ino, b"user.%03d" % number + b"x" * 246, b"")
    with pytest.raises(AttributeTooBig):
        bench.overlay.set_xattr(ino, b"user.last" + b"x" * 240, b"")
    assert len(bench.overlay.list_xattr(ino)) == 257


def test_new_things_may_be_made_with_extended_attributes(bench: Bench) -> None:
    given = {b"system.posix_acl_access": b"\2\0\0\0", b"a.first": b"1"}
    made = bench.overlay.make(ROOT_INO, b"d", 0o40755, 1, 2, xattrs=given)
    assert bench.overlay.list_xattr(made.ino) == (b"a.first", b"system.posix_acl_access")
    upper = Bench(bench.directory.with_name("upper"), bench.store, bench.commit())
    ino = upper.ino(b"d")
    assert upper.run(upper.overlay.get_xattr, ino, b"a.first") == b"1"
    upper.run(upper.overlay.remove_xattr, ino, b"a.first")
    assert upper.overlay.list_xattr(ino) == (b"system.posix_acl_access",)
    assert upper.overlay.attributes(ino).uid == 1
