"""How a draft becomes an image, an instance an image, and what can be undone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from imagefs.errors import Busy, Exists, InvalidName, NoAttribute, NoSpace, NotFound, ReadOnly
from imagefs.errors import NotReady as Waiting
from imagefs.model import Ino
from imagefs.vfs import MountOptions
from imagefs.vfs.node import node_id, tree_of
from tests.vfs.conftest import ANN, View

SECOND = 1_000_000_000


def fill(view: View, path: str) -> None:
    view.mkdir(f"{path}/d")
    view.write(f"{path}/d/f", b"content" * 1000)


def test_chmod_seals_and_unseals(view: View) -> None:
    view.mkdir("images/web", 0o755)
    fill(view, "images/web")
    view.chmod("images/web", 0o555)
    assert view.mode("images/web") == 0o555
    assert view.attribute("images/web", "state") == "sealed"
    digest = view.attribute("images/web", "digest")
    assert digest.startswith("blake3:")
    with pytest.raises(ReadOnly):
        view.write("images/web/x", b"1")
    view.chmod("images/web", 0o555)
    view.chmod("images/web", 0o755)
    assert view.attribute("images/web", "state") == "draft"
    assert view.mode("images/web") == 0o755
    view.now += 61 * SECOND
    view.tick()
    assert view.attribute("images/web", "state") == "sealed"
    view.chmod("images/web", 0o755)
    view.write("images/web/x", b"1")
    view.unlink("images/web/x")
    view.lifecycle("seal", "web")
    # Only the root's own mtime may differ: making and removing x changed it.
    assert view.attribute("images/web", "entries") == "2"


def test_a_used_image_stays_sealed(base: View) -> None:
    base.mkdir("instances/base/n1")
    with pytest.raises(ReadOnly):
        base.chmod("images/base", 0o755)


def test_the_root_of_a_clone_has_the_stored_mode(view: View) -> None:
    view.mkdir("images/web", 0o750)
    fill(view, "images/web")
    view.chmod("images/web", 0o550)
    view.mkdir("instances/web/n1")
    assert view.mode("images/web") == 0o550
    assert view.mode("instances/web/n1") == 0o750


def test_sealing_waits_for_writers(view: View) -> None:
    view.mkdir("images/web")
    fh = view.create("images/web/f")
    with pytest.raises(Busy, match="open for writing"):
        view.lifecycle("seal", "web")
    with pytest.raises(Busy):
        view.chmod("images/web", 0o555)
    with pytest.raises(Busy):
        view.mkdir("instances/web/n1")
    view.run(view.vfs.release, fh)
    view.lifecycle("seal", "web")
    view.lifecycle("seal", "web")


def test_time_seals_what_was_written(view: View) -> None:
    view.mkdir("images/web")
    view.mkdir("images/empty")
    fill(view, "images/web")
    view.fsync("images")
    view.now += 40 * SECOND
    view.tick()
    view.tick()
    due = view.vfs.next_due()
    assert due is not None
    assert 19 * SECOND < due - view.now < 21 * SECOND
    view.now += 19 * SECOND
    view.tick()
    assert view.attribute("images/web", "state") == "draft"
    view.write("images/web/d/g", b"later")
    view.now += 59 * SECOND
    view.tick()
    assert view.attribute("images/web", "state") == "draft"
    view.now += 2 * SECOND
    fh = view.open_file("images/web/d/g", os.O_WRONLY)
    view.tick()
    assert view.attribute("images/web", "state") == "draft"
    view.run(view.vfs.release, fh)
    view.tick()
    assert view.attribute("images/web", "state") == "sealed"
    view.now += 10**6 * SECOND
    view.settle()
    assert view.vfs.next_due() is None
    assert view.attribute("images/empty", "state") == "draft"


def test_time_seals_drafts_of_an_earlier_mount(view: View) -> None:
    view.mkdir("images/web")
    fill(view, "images/web")
    view.remount()
    assert view.vfs.next_due() == 0
    view.tick()
    view.now += 61 * SECOND
    view.tick()
    assert view.attribute("images/web", "state") == "sealed"


def test_no_time_seals_with_seal_after_zero(tmp_path: Path) -> None:
    options = MountOptions(uid=0, gid=0, enforced=True, seal_after=0)
    view = View(tmp_path / "store", options)
    view.mkdir("images/web")
    fill(view, "images/web")
    view.now += 10**6 * SECOND
    view.settle()
    assert view.vfs.next_due() is None
    assert view.attribute("images/web", "state") == "draft"
    view.close()


def test_changes_wait_while_a_tree_is_stored_and_reading_goes_on(base: View) -> None:
    base.mkdir("instances/base/n1")
    base.write("instances/base/n1/etc/one", b"one")
    parent, name = base.at("instances/base/n1/etc/more")
    with pytest.raises(Waiting) as commit:
        base.vfs.lifecycle.commit("base/n1", "web")
    with pytest.raises(Waiting) as waiting:
        base.vfs.mkdir(parent, name, 0o755, ANN)
    assert waiting.value.key == commit.value.key
    assert waiting.value.work is None
    assert base.read("instances/base/n1/etc/one") == b"one"
    assert commit.value.work is not None
    assert commit.value.finish is not None
    commit.value.finish(commit.value.work())
    information = base.vfs.lifecycle.commit("base/n1", "web")
    assert information.digest == base.attribute("images/web", "digest")
    base.vfs.mkdir(parent, name, 0o755, ANN)
    assert not base.exists("images/web/etc/more")
    assert base.exists("instances/base/n1/etc/more")


def test_a_commit_that_fails_lets_changes_go_on(
    base: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    base.mkdir("instances/base/n1")
    base.write("instances/base/n1/x", os.urandom(300_000))

    def full(*_: object) -> None:
        raise NoSpace("No space left")

    with monkeypatch.context() as patch:
        patch.setattr(base.disk, "pwritev", full)
        patch.setattr(base.disk, "pwrite", full)
        with pytest.raises(NoSpace):
            base.lifecycle("commit", "base/n1", "web")
    assert not base.exists("images/web")
    base.write("instances/base/n1/y", b"goes on")
    base.lifecycle("commit", "base/n1", "web")
    assert base.read("images/web/y") == b"goes on"


def test_changes_become_durable_within_seconds(base: View) -> None:
    base.mkdir("instances/base/n1")
    base.fsync("instances/base")
    assert base.vfs.next_due() == 0 or base.vfs.next_due() is None
    base.tick()
    base.write("instances/base/n1/x", b"1")
    due = base.vfs.next_due()
    assert due is not None
    assert 4 * SECOND < due - base.now <= 6 * SECOND
    base.now += 6 * SECOND
    base.tick()
    later = base.vfs.next_due()
    assert later is None or later - base.now > 20 * SECOND
    fh = base.open_file("instances/base/n1/x", os.O_WRONLY)
    before = base.vfs.sync_point(fh)
    base.vfs.fsync(fh, before)
    base.run(base.vfs.write, fh, 0, b"2")
    base.vfs.fsync(fh, before)
    point = base.vfs.sync_point(fh)
    with pytest.raises(Waiting):
        base.vfs.fsync(fh, point)
    base.run(base.vfs.fsync, fh, point)
    base.vfs.fsync(fh, base.vfs.sync_point(fh))
    base.run(base.vfs.release, fh)


def test_an_fsync_waits_for_what_was_written_before_it_whoever_else_syncs(base: View) -> None:
    base.mkdir("instances/base/n1")
    fh = base.create("instances/base/n1/x")
    first = base.vfs.sync_point(fh)
    base.run(base.vfs.write, fh, 0, b"1")
    second = base.vfs.sync_point(fh)
    base.run(base.vfs.fsync, fh, first)
    base.run(base.vfs.write, fh, 0, b"2")
    third = base.vfs.sync_point(fh)
    base.vfs.fsync(fh, second)  # what the first one wrote covers it
    with pytest.raises(Waiting):
        base.vfs.fsync(fh, third)
    base.run(base.vfs.release, fh)


def test_a_number_that_power_loss_gave_back_brings_no_old_overlay(base: View) -> None:
    """The catalog may lose the row of a new instance whose overlay is there."""
    base.fsync("images")
    base.close()
    kept = base.directory.with_name("catalog.db")
    shutil.copy(base.directory / "catalog.db", kept)
    base.open()
    base.mkdir("instances/base/lost")
    base.write("instances/base/lost/file", b"lost")
    number = base.catalog.instances("ann")[0].number
    base.close()
    shutil.copy(kept, base.directory / "catalog.db")
    base.open()
    base.mkdir("instances/base/new")
    assert base.catalog.instances("ann")[0].number == number
    assert not base.exists("instances/base/new/file")


def test_names_above_the_trees_become_durable_with_a_sync_and_by_themselves(base: View) -> None:
    catalog = base.catalog
    base.mkdir("instances/base/n1")
    assert catalog.synced < catalog.changes
    base.fsync("instances/base")
    assert catalog.synced == catalog.changes
    base.rename("instances/base/n1", "instances/base/n2")
    base.fsync("instances/base/n2/etc/hosts")
    assert catalog.synced == catalog.changes
    base.rename("instances/base/n2", "instances/base/n1")
    assert base.vfs.next_due() is not None
    base.settle()
    assert catalog.synced == catalog.changes


def test_equal_trees_have_equal_digests(base: View) -> None:
    for name in ("n1", "n2"):
        base.mkdir(f"instances/base/{name}")
    base.lifecycle("commit", "base/n1", "same")
    assert base.attribute("images/same", "digest") == base.attribute("images/base", "digest")
    base.write("instances/base/n2/big", b"X", offset=500_000)
    base.rename("instances/base/n2", "images/other")
    assert base.attribute("images/other", "digest") != base.attribute("images/base", "digest")


def test_reset_puts_an_instance_back(base: View) -> None:
    base.mkdir("instances/base/n1")
    base.write("instances/base/n1/etc/motd", b"changed")
    base.unlink("instances/base/n1/big")
    fh = base.open_file("instances/base/n1/etc/motd")
    with pytest.raises(Busy):
        base.lifecycle("reset", "base/n1")
    base.run(base.vfs.release, fh)
    base.lifecycle("reset", "base/n1")
    assert base.stale[-1].name == b"n1"
    assert base.read("instances/base/n1/etc/motd") == b"hello\n"
    assert base.ls("instances/base/n1") == ["big", "etc", "motd"]


def test_delete_and_undelete(base: View) -> None:
    base.mkdir("instances/base/n1")
    base.write("instances/base/n1/etc/motd", b"changed")
    base.lifecycle("remove", "base/n1")
    assert base.ls("instances/base") == []
    assert [row.reference for row in base.lifecycle("descriptions.instances", True)] == ["base/n1"]
    base.lifecycle("undelete", "base/n1")
    assert base.read("instances/base/n1/etc/motd") == b"changed"
    base.rmdir("images/base")
    base.remount()
    assert [row.reference for row in base.lifecycle("descriptions.images", True)] == ["base"]
    base.mkdir("images/base")
    with pytest.raises(Exists):
        base.lifecycle("undelete", "base")
    base.rmdir("images/base")
    base.lifecycle("undelete", "base")
    with pytest.raises(NotFound):
        base.lifecycle("undelete", "nothing")


def test_an_undeleted_instance_that_is_still_in_use_takes_changes_again(base: View) -> None:
    base.mkdir("instances/base/n1")
    node = base.node("instances/base/n1")
    base.lifecycle("remove", "base/n1")
    base.lifecycle("undelete", "base/n1")
    assert base.node("instances/base/n1") == node
    base.write("instances/base/n1/x", b"1")


def test_information(base: View) -> None:
    base.mkdir("instances/base/n1")
    base.write("instances/base/n1/big", b"X", offset=500_000)
    image, instance = base.lifecycle("show", "base"), base.lifecycle("show", "base/n1")
    assert (image.state, image.entries, image.bytes, image.owner) == ("sealed", 5, 800_032, "ann")
    assert instance.changed_bytes > 0
    assert instance.parent == "base"
    for name, value in (("kind", "instance"), ("image", "base"), ("owner", "ann")):
        assert base.attribute("instances/base/n1", name) == value
    assert base.run(base.vfs.listxattr, base.node("images/base"), ANN) == ()
    for path, name in (
        ("images/base", "nothing"),
        ("images/base", "image"),
        ("images/base/etc", "kind"),
    ):
        with pytest.raises(NoAttribute):
            base.attribute(path, name)
    for reference, error in (
        ("nothing", NotFound),
        ("base/no", NotFound),
        ("a@b", NotFound),
        ("../x", InvalidName),
    ):
        with pytest.raises(error):
            base.lifecycle("show", reference)


def test_superseded_overlays_are_removed_once_nothing_holds_them(base: View) -> None:
    base.mkdir("instances/base/n1")
    base.write("instances/base/n1/x", b"1")
    overlays = base.directory / "overlays" / "ann"
    before = set(os.listdir(overlays))
    base.rename("instances/base/n1", "images/web")
    held = base.vfs._volumes.in_use(tree_of(base.node("images/web")))
    assert held is not None
    for volume in list(base.vfs._volumes):
        for ino in map(Ino, range(1, 20)):
            if volume.superseded and volume.lookups[ino]:
                node = node_id(volume.row.number, ino)
                base.vfs.forget([(node, volume.lookups[ino])])
    base.tick()
    assert len(set(os.listdir(overlays))) < len(before)
    base.mkdir("instances/base/n2")
    base.write("instances/base/n2/x", b"1")
    base.rename("instances/base/n2", "images/web2")
    base.remount()
    base.tick()
    assert os.listdir(overlays) == []


def test_what_the_kernel_has_of_a_tree_tells_of_its_successor(base: View) -> None:
    base.mkdir("instances/base/n1")
    base.write("instances/base/n1/x", b"1")
    moved = base.node("instances/base/n1")
    base.rename("instances/base/n1", "images/web")
    # After its rename(2) the kernel knows images/web as the node that it moved, for a moment.
    told = base.run(base.vfs.getxattr, moved, b"user.imagefs.digest").decode()
    assert told == base.attribute("images/web", "digest")
    base.mkdir("images/draft")
    draft = base.node("images/draft")
    base.lifecycle("seal", "draft")
    assert base.run(base.vfs.getxattr, draft, b"user.imagefs.state") == b"sealed"


def test_files_of_an_overlay_are_closed_when_nobody_changes_it(base: View) -> None:
    base.mkdir("instances/base/n1")
    base.write("instances/base/n1/x", b"1")
    volume = base.vfs._volumes[tree_of(base.node("instances/base/n1"))]
    assert volume.overlay.is_open
    base.now += 6 * SECOND
    base.tick()
    assert volume.overlay.is_open
    base.now += 30 * SECOND
    base.tick()
    closed = base.vfs.next_due()
    assert closed is None
    assert "closed" in repr(volume.overlay)
    assert base.read("instances/base/n1/x") == b"1"
    base.write("instances/base/n1/x", b"2")


def test_files_stay_open_for_what_lost_its_name(base: View) -> None:
    base.mkdir("instances/base/n1")
    fh = base.create("instances/base/n1/x")
    base.run(base.vfs.write, fh, 0, b"still here")
    base.unlink("instances/base/n1/x")
    base.now += 60 * SECOND
    base.tick()
    base.now += 60 * SECOND
    base.tick()
    assert base.run(base.vfs.read, fh, 0, 20) == b"still here"
    base.run(base.vfs.release, fh)


def test_a_name_under_instances_comes_to_be_with_its_image(view: View) -> None:
    node = view.node("instances")
    for _ in range(2):
        with pytest.raises(NotFound):  # not an answer that the kernel may remember
            view.run(view.vfs.lookup, node, b"web", ANN)
    view.mkdir("images/web")
    fill(view, "images/web")
    view.mkdir("instances/web/n1")
    assert view.entry("instances/web").entry_timeout < 5


def test_a_rename_waits_for_a_commit_and_is_kept(view: View) -> None:
    view.mkdir("images/web")
    fill(view, "images/web")
    row = view.catalog.image("ann", "web")
    assert row is not None
    with pytest.raises(Waiting) as sealing:
        view.vfs.lifecycle.require_sealed(row)
    with pytest.raises(Waiting) as renaming:
        view.vfs.lifecycle.rename_image(row, "debian")
    assert renaming.value.key == sealing.value.key
    assert renaming.value.work is None
    assert sealing.value.work is not None
    assert sealing.value.finish is not None
    sealing.value.finish(sealing.value.work())
    view.rename("images/web", "images/debian")
    assert view.ls("images") == ["debian"]
    assert view.attribute("images/debian", "state") == "sealed"


def test_a_commit_for_another_purpose_does_not_share_a_failure(base: View) -> None:
    base.mkdir("instances/base/n1")
    base.write("instances/base/n1/x", b"1")
    with pytest.raises(Waiting) as first:
        base.vfs.lifecycle.commit("base/n1", "one")
    with pytest.raises(Waiting) as second:
        base.vfs.lifecycle.commit("base/n1", "two")
    assert second.value.key == first.value.key
    assert second.value.work is None
    base.catalog.set_alias("ann", "one", "base", 1, replace=False)
    assert first.value.work is not None
    assert first.value.finish is not None
    with pytest.raises(Exists):
        first.value.finish(first.value.work())
    assert base.lifecycle("commit", "base/n1", "two").state == "sealed"


def test_resting_is_decided_when_it_is_done(base: View) -> None:
    base.mkdir("instances/base/n1")
    base.write("instances/base/n1/x", b"1")
    base.now += 6 * SECOND
    base.tick()
    base.now += 31 * SECOND
    steps = base.vfs.tick()
    with pytest.raises(Waiting) as commit:
        base.vfs.lifecycle.commit("base/n1", "web")
    for step in steps:
        base.run(step)
    assert commit.value.work is not None
    assert commit.value.finish is not None
    commit.value.finish(commit.value.work())
    assert base.exists("images/web/x")


@pytest.mark.damaged
def test_one_damaged_overlay_does_not_keep_the_others_from_being_listed(base: View) -> None:
    for name in ("n1", "n2"):
        base.mkdir(f"instances/base/{name}")
        base.write(f"instances/base/{name}/x", b"1")
    number = tree_of(base.node("instances/base/n1"))
    base.close()
    damaged = base.directory / "overlays" / "ann" / str(number) / "meta.db"
    damaged.write_bytes(b"X" * 4096)
    base.open()
    listed = {row.name: row.entries for row in base.lifecycle("descriptions.instances")}
    assert listed == {"n1": None, "n2": 6}
    base.lifecycle("remove", "base/n1")
    assert [row.name for row in base.lifecycle("descriptions.instances", True)] == ["n1"]


def test_listing_leaves_no_files_open(base: View) -> None:
    names = [f"n{number}" for number in range(200)]
    base.lifecycle("clone", "base", names)
    for name in names:
        base.write(f"instances/base/{name}/x", b"1")
    base.remount()
    assert len(base.lifecycle("descriptions.instances")) == 200
    assert not any(volume.overlay.is_open for volume in base.vfs._volumes)
    base.ls("instances/base")
    assert sum(volume.overlay.is_open for volume in base.vfs._volumes) < 150


def test_removing_an_alias_is_told(base: View) -> None:
    base.symlink("base", "images/stable")
    base.lifecycle("remove", "stable")
    assert base.stale[-1].name == b"stable"
    assert not base.exists("images/stable")


def test_an_acl_that_is_not_there_can_be_removed(base: View) -> None:
    base.mkdir("instances/base/n1")
    node = base.node("instances/base/n1/etc")
    base.run(base.vfs.removexattr, node, b"system.posix_acl_access")
    with pytest.raises(NoAttribute):
        base.run(base.vfs.removexattr, node, b"user.nothing")
