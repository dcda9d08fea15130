"""Sharing between accounts on one store: what each may see and do, line by line."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagefs.errors import (
    Busy,
    Exists,
    InvalidArgument,
    InvalidName,
    NotEmpty,
    NotFound,
    NotPermitted,
    ReadOnly,
    Stale,
)
from imagefs.vfs import MountOptions
from tests.vfs.conftest import ANN, View

TARGET = "../../../images/base"


@pytest.fixture
def bob(base: View) -> Iterator[View]:
    """Another account on the store of `base`, which is ann's."""
    view = View(base.directory, base.options, cold=base.cold, account="bob")
    yield view
    view.close()


@pytest.fixture
def public(base: View) -> Iterator[View]:
    view = View(base.directory, base.options, account="public")
    yield view
    view.close()


def share(view: View, grantee: str = "bob") -> None:
    view.mkdir(f"shared/to/{grantee}")
    view.symlink(TARGET, f"shared/to/{grantee}/base")


def later(view: View) -> None:
    """A second passes."""
    view.now += 1_000_000_000
    view.tick()


def test_nothing_of_another_account_shows(base: View, bob: View) -> None:
    base.mkdir("instances/base/n1")
    for path in ("images", "instances", "shared/from", "shared/to"):
        assert bob.ls(path) == []
    for path in ("images/base", "instances/base", "instances/base@ann", "shared/from/ann"):
        assert not bob.exists(path)
    for verb in ("show", "remove", "manifest", "seal"):
        with pytest.raises(NotFound):
            bob.lifecycle(verb, "base@ann")
    with pytest.raises(NotFound):
        bob.lifecycle("clone", "base@ann", ["n1"])


def test_a_symlink_shares_and_its_removal_ends_that(base: View, bob: View) -> None:
    share(base)
    entry = base.entry("shared/to/bob/base")
    assert stat.S_ISLNK(entry.attributes.mode)
    assert base.run(base.vfs.readlink, entry.node) == TARGET.encode()
    assert base.ls("shared/to") == ["bob"]
    assert base.ls("shared/to/bob") == ["base"]
    assert base.attribute("images/base", "shared_with") == "bob"
    assert bob.ls("shared/from") == ["ann"]
    assert bob.ls("shared/from/ann") == ["base"]
    assert bob.read("shared/from/ann/base/etc/motd") == b"hello\n"
    assert bob.attribute("shared/from/ann/base", "kind") == "shared"
    assert bob.attribute("shared/from/ann/base", "owner") == "ann"
    digest = base.attribute("images/base", "digest")
    assert bob.attribute("shared/from/ann/base", "digest") == digest
    with pytest.raises(NotEmpty):
        base.rmdir("shared/to/bob")
    base.unlink("shared/to/bob/base")
    assert base.ls("shared/to/bob") == []
    assert bob.ls("shared/from") == []
    assert not bob.exists("shared/from/ann")
    base.rmdir("shared/to/bob")
    assert base.ls("shared/to") == []


def test_a_clone_of_a_shared_image_is_ones_own(base: View, bob: View) -> None:
    share(base)
    assert bob.ls("instances") == ["base@ann"]
    bob.mkdir("instances/base@ann/n1")
    bob.write("instances/base@ann/n1/etc/motd", b"mine!\n")
    assert bob.attribute("instances/base@ann/n1", "image") == "base@ann"
    assert bob.attribute("instances/base@ann/n1", "parent") == "base@ann"
    base.unlink("shared/to/bob/base")
    later(bob)
    assert bob.read("instances/base@ann/n1/etc/motd") == b"mine!\n"
    with pytest.raises(NotFound):
        bob.mkdir("instances/base@ann/n2")
    base.rmdir("images/base")
    bob.rename("instances/base@ann/n1", "images/mine")
    assert bob.read("images/mine/etc/hosts") == b"127.0.0.1 localhost\n"
    assert bob.ls("instances") == ["mine"]
    assert base.ls("images") == []


def test_a_shared_image_is_for_reading_and_cloning_alone(base: View, bob: View) -> None:
    share(base)
    shared = "shared/from/ann/base"
    refused: list[Callable[[], object]] = [
        lambda: bob.rmdir(shared),
        lambda: bob.rename(shared, "shared/from/ann/other"),
        lambda: bob.rename(shared, "images/mine"),
        lambda: bob.mkdir("shared/from/ann/new"),
        lambda: bob.mkdir("shared/from/carl"),
        lambda: bob.symlink(TARGET, "shared/from/ann/link"),
        lambda: bob.chmod(shared, 0o755),
        lambda: bob.lifecycle("remove", "base@ann"),
        lambda: bob.lifecycle("share", "base@ann", ["carl"]),
        lambda: bob.lifecycle("unshare", "base@ann", ["bob"]),
    ]
    for action in refused:
        with pytest.raises(NotPermitted):
            action()
    for change in (
        lambda: bob.write(f"{shared}/etc/motd", b"x"),
        lambda: bob.mkdir(f"{shared}/new"),
        lambda: bob.unlink(f"{shared}/etc/motd"),
    ):
        with pytest.raises(ReadOnly):
            change()
    assert base.attribute("images/base", "shared_with") == "bob"
    assert bob.read(f"{shared}/etc/motd") == b"hello\n"


def test_a_foreign_name_never_means_what_is_called_like_it(base: View, bob: View) -> None:
    bob.lifecycle("create_draft", "own", "")
    bob.symlink("own", "images/base")
    share(base)
    with pytest.raises(NotPermitted):
        bob.lifecycle("remove", "base@ann")
    assert bob.ls("images") == ["base", "own"]
    bob.lifecycle("remove", "base@bob")
    bob.lifecycle("remove", "own")
    with pytest.raises(NotPermitted):
        bob.lifecycle("undelete", "own@ann")
    assert bob.ls("images") == []
    bob.lifecycle("undelete", "own@bob")
    assert bob.ls("images") == ["own"]


def test_what_is_shared_no_longer_is_gone_whatever_is_open(base: View, bob: View) -> None:
    share(base)
    big = bob.node("shared/from/ann/base/big")
    fh = bob.open_file("shared/from/ann/base/big")
    directory = bob.run(bob.vfs.opendir, bob.node("shared/from/ann/base/etc"))
    node = bob.node("shared/from/ann/base/etc")
    assert bob.run(bob.vfs.read, fh, 0, 16) == b"0123456789abcdef"
    base.lifecycle("unshare", "base", ["bob"])
    later(bob)
    assert [stale.name for stale in bob.stale] == [b"base"]
    assert [withdrawn.node for withdrawn in bob.withdrawn] == [big]
    for action in (
        lambda: bob.run(bob.vfs.read, fh, 0, 16),
        lambda: bob.run(lambda: list(bob.vfs.readdir(directory, 0))),
        lambda: bob.run(bob.vfs.getattr, node),
        lambda: bob.run(bob.vfs.open, node, os.O_RDONLY, ANN),
    ):
        with pytest.raises(Stale):
            action()
    bob.run(bob.vfs.release, fh)
    bob.run(bob.vfs.releasedir, directory)
    base.lifecycle("share", "base", ["bob"])
    assert bob.read("shared/from/ann/base/etc/motd") == b"hello\n"


def test_a_shared_image_cannot_be_deleted(base: View, bob: View) -> None:
    base.lifecycle("share", "base", ["bob", "carl"])
    for action in (
        lambda: base.rmdir("images/base"),
        lambda: base.lifecycle("remove", "base"),
    ):
        with pytest.raises(Busy, match="shared with bob, carl"):
            action()
    base.lifecycle("unshare", "base", ["bob", "carl"])
    base.rmdir("images/base")
    assert bob.ls("shared/from") == []


def test_everybody_sees_what_is_public(base: View, bob: View, public: View) -> None:
    public.mkdir("images/draft")
    public.mkdir("images/debian")
    public.write("images/debian/os", b"12\n")
    public.lifecycle("seal", "debian")
    base.lifecycle("share", "base", ["public"])
    assert bob.ls("shared/from") == ["ann", "public"]
    assert bob.ls("shared/from/public") == ["debian"]
    for path in ("shared/from/public/debian", "shared/from/ann/base"):
        assert bob.attribute(path, "kind") == "public"
    assert base.attribute("images/base", "kind") == "public"
    bob.mkdir("instances/debian@public/n1")
    assert bob.read("instances/debian@public/n1/os") == b"12\n"
    with pytest.raises(NotPermitted):
        bob.chmod("shared/from/public/debian", 0o755)


def test_a_draft_is_sealed_when_it_is_shared(base: View, bob: View) -> None:
    base.mkdir("images/web")
    fh = base.create("images/web/index")
    base.mkdir("shared/to/bob")
    with pytest.raises(Busy):
        base.symlink("../../../images/web", "shared/to/bob/web")
    base.run(base.vfs.release, fh)
    base.symlink("../../../images/web", "shared/to/bob/web")
    assert base.attribute("images/web", "state") == "sealed"
    with pytest.raises(ReadOnly):
        base.chmod("images/web", 0o755)
    assert bob.ls("shared/from/ann/web") == ["index"]


@pytest.mark.parametrize("target", ["base", "../images/base", "/images/base", TARGET + "x"])
def test_a_bad_target_is_refused(base: View, target: str) -> None:
    base.mkdir("shared/to/bob")
    with pytest.raises(InvalidArgument):
        base.symlink(target, "shared/to/bob/base")
    with pytest.raises(InvalidArgument):
        base.symlink(TARGET, "shared/to/bob/other")
    with pytest.raises(InvalidArgument):
        base.symlink("../../../images/none", "shared/to/bob/none")
    assert base.ls("shared/to/bob") == []


def test_bad_grantees_are_refused(base: View, public: View) -> None:
    for name in (".x", "-x", "a@b"):
        with pytest.raises(InvalidName):
            base.mkdir(f"shared/to/{name}")
        with pytest.raises(InvalidName):
            base.lifecycle("share", "base", ["bob", name])
    with pytest.raises(InvalidArgument):
        base.mkdir("shared/to/ann")
    with pytest.raises(InvalidArgument):
        public.mkdir("shared/to/bob")
    assert base.ls("shared/to") == []
    base.mkdir("shared/to/bob")
    with pytest.raises(Exists):
        base.mkdir("shared/to/bob")
    with pytest.raises(NotFound):
        base.lifecycle("unshare", "base", ["bob"])
    with pytest.raises(Exists):
        share_twice(base)


def share_twice(view: View) -> None:
    for _ in range(2):
        view.symlink(TARGET, "shared/to/bob/base")


def test_names_of_shared_images_follow_renames(base: View, bob: View) -> None:
    base.lifecycle("share", "base", ["bob"])
    base.rename("images/base", "images/debian")
    assert base.ls("shared/to/bob") == ["debian"]
    assert bob.ls("shared/from/ann") == ["debian"]
    base.unlink("shared/to/bob/debian")
    assert bob.ls("shared/from") == []


def test_lists_of_what_is_shared(base: View, bob: View) -> None:
    base.lifecycle("share", "base", ["bob", "carl"])
    shares = base.lifecycle("descriptions.shared").shares
    assert [(share.image, share.grantee) for share in shares] == [("base", "bob"), ("base", "carl")]
    (image,) = bob.lifecycle("descriptions.shared").images
    assert (image.reference, image.kind, image.shared_with) == ("base@ann", "shared", [])
    assert bob.lifecycle("show", "base@ann") == image
    assert base.lifecycle("show", "base").shared_with == ["bob", "carl"]


def test_sharing_outlives_the_mount(base: View, bob: View) -> None:
    base.lifecycle("share", "base", ["bob"])
    base.remount()
    bob.remount()
    assert base.ls("shared/to/bob") == ["base"]
    assert bob.read("shared/from/ann/base/etc/motd") == b"hello\n"


def test_a_catalog_from_before_sharing_is_taken_over(tmp_path: Path) -> None:
    view = View(tmp_path / "store", MountOptions(uid=0, gid=0, enforced=True))
    view.mkdir("images/base")
    view.lifecycle("seal", "base")
    view.execute(
        "DROP TABLE share", "DROP TABLE grantee", "DROP TABLE region", "DROP TABLE home",
        "ALTER TABLE tree DROP COLUMN origin", "PRAGMA user_version = 1",
    )  # fmt: skip
    view.remount()
    share(view)
    assert view.attribute("images/base", "shared_with") == "bob"
    view.close()


def test_shares_of_what_is_not_there_are_found(base: View) -> None:
    base.lifecycle("share", "base", ["bob"])
    assert base.catalog.check() == []
    base.execute("INSERT INTO share VALUES (999, 'bob', 0)")
    assert base.catalog.check() == ["Tree 999 is shared with bob and no sealed image"]
    base.execute("DELETE FROM share WHERE image = 999", "DELETE FROM grantee")
    (problem,) = base.catalog.check()
    assert "bob of whom ann does not know" in problem
    base.execute("INSERT INTO grantee VALUES ('ann', 'bob', 0)")
