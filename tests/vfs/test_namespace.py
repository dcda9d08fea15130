"""The contract's table of places, line by line."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import pytest

from imagefs.errors import (
    Busy,
    CrossDevice,
    Exists,
    ImagefsError,
    InvalidArgument,
    InvalidName,
    NameTooLong,
    NotEmpty,
    NotFound,
    NotPermitted,
    ReadOnly,
)
from imagefs.model import AttributeChange
from imagefs.vfs.namespace import RENAME_NOREPLACE
from tests.vfs.conftest import ANN, View


def test_the_top(view: View) -> None:
    assert view.ls("/") == ["images", "shared", "regions", "instances"]
    assert view.ls("shared") == ["from", "to"]
    assert view.ls("regions") == ["local"]
    for path in ("images", "shared/from", "shared/to", "instances"):
        assert view.ls(path) == []
    assert stat.S_IMODE(view.entry("/").attributes.mode) == 0o700


@pytest.mark.parametrize("place", ["", "shared", "shared/from", "regions", "instances"])
def test_what_is_not_listed_is_not_permitted(base: View, place: str) -> None:
    refused: list[Callable[[], object]] = [
        lambda: base.mkdir(f"{place}/x"),
        lambda: base.create(f"{place}/x"),
        lambda: base.symlink("y", f"{place}/x"),
        lambda: base.rename("images/base", f"{place}/x"),
        lambda: base.rmdir(f"{place}/x"),
        lambda: base.unlink(f"{place}/x"),
        lambda: base.chmod(place, 0o777),
    ]
    for action in refused:
        with pytest.raises(NotPermitted):
            action()


@pytest.mark.parametrize("place", ["", "images", "instances/base", "images/base"])
def test_a_name_of_256_bytes_is_too_long_to_look_for(base: View, place: str) -> None:
    with pytest.raises(NameTooLong):
        base.entry(f"{place}/{'n' * 256}")


def test_mkdir_in_images_makes_an_empty_draft(view: View) -> None:
    view.mkdir("images/web", 0o750)
    assert view.ls("images") == ["web"]
    assert view.ls("images/web") == []
    assert view.mode("images/web") == 0o750
    assert view.entry("images/web").attributes.mtime >= view.now
    assert view.attribute("images/web", "state") == "draft"
    with pytest.raises(Exists):
        view.mkdir("images/web")


@pytest.mark.parametrize("name", [".x", "-x", "a@b", "a\nb", "web.tar", "web.tar.zst", "web.erofs"])
def test_bad_image_names(base: View, name: str) -> None:
    with pytest.raises(InvalidName):
        base.mkdir(f"images/{name}")
    with pytest.raises(InvalidName):
        base.rename("images/base", f"images/{name}")
    with pytest.raises(InvalidName):
        base.symlink("base", f"images/{name}")
    with pytest.raises(NotPermitted):
        base.create("images/file")


def test_rmdir_deletes_an_image_whatever_it_holds_and_instances_live_on(base: View) -> None:
    base.mkdir("instances/base/n1")
    base.rmdir("images/base")
    assert not base.exists("images/base")
    assert base.read("instances/base/n1/etc/motd") == b"hello\n"
    assert base.ls("instances") == ["base"]
    with pytest.raises(NotFound):
        base.mkdir("instances/base/n2")
    base.write("instances/base/n1/etc/new", b"x")
    base.remount()
    assert base.ls("instances/base/n1/etc") == ["hosts", "motd", "new"]


def test_rmdir_of_an_image_with_an_open_file_is_refused(base: View) -> None:
    fh = base.open_file("images/base/etc/hosts")
    with pytest.raises(Busy, match="open"):
        base.rmdir("images/base")
    base.run(base.vfs.release, fh)
    base.rmdir("images/base")


def test_images_are_renamed_but_not_over_one_another(base: View) -> None:
    base.mkdir("images/web")
    with pytest.raises(Exists):
        base.rename("images/base", "images/web")
    base.rename("images/base", "images/debian")
    assert base.ls("images") == ["debian", "web"]
    assert base.read("images/debian/etc/motd") == b"hello\n"
    with pytest.raises(InvalidArgument):
        base.rename("images/debian", "images/web", flags=2)


def test_an_alias_clones_its_target(base: View) -> None:
    base.symlink("base", "images/stable")
    entry = base.entry("images/stable")
    assert stat.S_ISLNK(entry.attributes.mode)
    assert entry.attributes.nlink == 1
    assert base.run(base.vfs.readlink, entry.node) == b"base"
    assert base.ls("images") == ["base", "stable"]
    base.mkdir("instances/stable/n1")
    assert base.read("instances/stable/n1/etc/motd") == b"hello\n"
    assert base.attribute("instances/stable/n1", "image") == "stable"
    for target in ("nothing", "../images/base", "/images/base", "stable"):
        with pytest.raises(InvalidArgument):
            base.symlink(target, "images/other")
    base.symlink("./base", "images/other")
    base.rename("images/other", "images/stable")
    base.unlink("images/stable")
    assert base.ls("images") == ["base"]


def test_mkdir_in_an_images_instances_clones_it(base: View) -> None:
    base.mkdir("instances/base/n1")
    base.mkdir("instances/base/n2")
    assert base.ls("instances") == ["base"]
    assert base.ls("instances/base") == ["n1", "n2"]
    base.write("instances/base/n1/etc/motd", b"changed\n")
    assert base.read("instances/base/n1/motd") == b"changed\n"
    assert base.read("instances/base/n2/etc/motd") == b"hello\n"
    assert base.read("images/base/etc/motd") == b"hello\n"
    with pytest.raises(NotFound):
        base.mkdir("instances/nothing/n1")
    with pytest.raises(Exists):
        base.mkdir("instances/base/n1")
    with pytest.raises(InvalidName):
        base.mkdir("instances/base/.n")


def test_a_mistaken_copy_of_an_image_into_instances_is_refused(base: View) -> None:
    with pytest.raises(NotPermitted, match="etc"):
        base.mkdir("instances/base/etc")
    with pytest.raises(NotPermitted):
        base.create("instances/base/file")


def test_a_clone_of_a_draft_seals_it_first(view: View) -> None:
    view.mkdir("images/web")
    view.write("images/web/a", b"1")
    view.mkdir("instances/web/n1")
    assert view.attribute("images/web", "state") == "sealed"
    assert view.read("instances/web/n1/a") == b"1"


def test_instances_are_renamed_below_their_image_only(base: View) -> None:
    base.mkdir("instances/base/n1")
    base.symlink("base", "images/other")
    base.rename("instances/base/n1", "instances/base/n2")
    assert base.ls("instances/base") == ["n2"]
    with pytest.raises(NotPermitted):
        base.rename("instances/base/n2", "instances/other/n2")
    with pytest.raises(NotPermitted):
        base.rename("images/base", "instances/base/n9")
    base.mkdir("instances/base/n1")
    with pytest.raises(Exists):
        base.rename("instances/base/n1", "instances/base/n2")


def test_an_instance_moved_to_images_is_a_sealed_image(base: View) -> None:
    base.mkdir("instances/base/n1")
    base.write("instances/base/n1/etc/new", b"new")
    with pytest.raises(Exists):
        base.rename("instances/base/n1", "images/base")
    fh = base.open_file("instances/base/n1/etc/new", os.O_WRONLY)
    with pytest.raises(Busy):
        base.rename("instances/base/n1", "images/web")
    base.run(base.vfs.release, fh)
    reading = base.open_file("instances/base/n1/etc/new")
    old = base.node("instances/base/n1/etc")
    base.rename("instances/base/n1", "images/web")
    assert base.ls("instances/base") == []
    assert base.ls("images/web/etc") == ["hosts", "motd", "new"]
    assert base.attribute("images/web", "state") == "sealed"
    assert base.attribute("images/web", "parent") == "base/n1"
    assert [stale.name for stale in base.stale][-1] == b"web"
    with pytest.raises(ReadOnly):
        base.write("images/web/etc/new", b"x")
    # What was open goes on, and changes nothing.
    assert base.run(base.vfs.read, reading, 0, 10) == b"new"
    assert base.run(base.vfs.getattr, old).node == old
    with pytest.raises(ReadOnly):
        base.run(base.vfs.unlink, old, b"new")
    base.run(base.vfs.release, reading)


def test_rmdir_of_an_instance_needs_an_empty_one(base: View) -> None:
    base.mkdir("instances/base/n1")
    with pytest.raises(NotEmpty):
        base.rmdir("instances/base/n1")
    for path in ("etc/hosts", "etc/motd", "motd", "big"):
        base.unlink(f"instances/base/n1/{path}")
    base.rmdir("instances/base/n1/etc")
    base.rmdir("instances/base/n1")
    assert base.ls("instances/base") == []


def test_nothing_moves_or_links_between_trees(base: View) -> None:
    base.mkdir("instances/base/n1")
    base.mkdir("instances/base/n2")
    refused: list[tuple[type[ImagefsError], Callable[[], object]]] = [
        (CrossDevice, lambda: base.rename("instances/base/n1/big", "instances/base/n2/x")),
        (CrossDevice, lambda: base.link("instances/base/n1/big", "instances/base/n2/x")),
        (NotPermitted, lambda: base.rename("instances/base/n1/big", "images/x")),
        (NotPermitted, lambda: base.rename("images/base", "instances/base/n1/x")),
        (NotPermitted, lambda: base.link("instances/base/n1/big", "images/x")),
    ]
    for error, action in refused:
        with pytest.raises(error):
            action()


def test_every_change_in_a_sealed_image_is_refused(base: View) -> None:
    root = base.node("images/base")
    hosts = base.node("images/base/etc/hosts")
    refused: list[Callable[[], object]] = [
        lambda: base.mkdir("images/base/x"),
        lambda: base.create("images/base/x"),
        lambda: base.symlink("y", "images/base/x"),
        lambda: base.unlink("images/base/big"),
        lambda: base.rmdir("images/base/etc"),
        lambda: base.rename("images/base/big", "images/base/bigger"),
        lambda: base.link("images/base/big", "images/base/bigger"),
        lambda: base.open_file("images/base/big", os.O_RDWR),
        lambda: base.chmod("images/base/big", 0o600),
        lambda: base.run(base.vfs.setattr, hosts, AttributeChange(mtime=1), None, ANN),
        lambda: base.run(base.vfs.setattr, root, AttributeChange(uid=7), None, ANN),
        lambda: base.run(base.vfs.setxattr, hosts, b"user.x", b"1", ANN),
        lambda: base.run(base.vfs.removexattr, hosts, b"user.x"),
    ]
    for action in refused:
        with pytest.raises(ReadOnly):
            action()


def test_node_numbers_are_the_same_after_a_remount(base: View) -> None:
    base.mkdir("instances/base/n1")
    base.symlink("base", "images/stable")
    base.write("instances/base/n1/new", b"x")
    paths = [
        "images", "images/base", "images/stable", "images/base/etc/hosts", "instances/base",
        "instances/base/n1", "instances/base/n1/new", "instances/base/n1/etc/motd",
    ]  # fmt: skip
    before = [base.node(path) for path in paths]
    base.remount()
    assert [base.node(path) for path in reversed(paths)] == before[::-1]
    assert len(set(before)) == len(paths)


def test_hard_links_are_one_node(base: View) -> None:
    assert base.node("images/base/motd") == base.node("images/base/etc/motd")
    assert base.entry("images/base/motd").attributes.nlink == 2


def test_bytes_that_are_no_text_name_nothing(base: View) -> None:
    images = base.node("images")
    with pytest.raises(InvalidArgument):
        base.run(base.vfs.symlink, images, b"alias", b"\xff", ANN)
    base.symlink("base", "images/alias")
    for flags in (0, RENAME_NOREPLACE):
        with pytest.raises(InvalidName):
            base.run(base.vfs.rename, images, b"alias", images, b"\xff", flags)
    assert base.ls("images") == ["alias", "base"]
