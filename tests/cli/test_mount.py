"""Mounting and unmounting: what works, what is refused and how that is said."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.cli.main import run
from imagefs.daemon import mountpoint, serve
from imagefs.errors import MountError
from tests.acceptance.person import wait_until
from tests.cli.conftest import Shell, wait_for_end

pytestmark = pytest.mark.mount


def test_a_mount_comes_and_goes(shell: Shell) -> None:
    shell.mount()
    assert sorted(os.listdir(shell.mountpoint)) == ["images", "instances", "regions", "shared"]
    status = shell.json("status")
    assert status["mounted"] is True
    assert status["mountpoint"] == str(shell.mountpoint)
    assert status["unexpected_errors"] == 0
    assert list((shell.store / "run").glob("*.sock"))
    process = os.pidfd_open(shell.pid)
    shell.unmount()
    wait_for_end(process)
    assert not list((shell.store / "run").glob("*.sock"))
    assert shell.json("status")["mounted"] is False
    assert list(shell.mountpoint.iterdir()) == []


def test_the_default_mountpoint_is_cloud(shell: Shell) -> None:
    shell("mount")
    assert shell.mountpoint.is_mount()
    shell("umount")


def test_findmnt_shows_imagefs(shell: Shell) -> None:
    shell.mount()
    command = ["findmnt", "-n", "-o", "SOURCE,FSTYPE", str(shell.mountpoint)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert shown.split() == ["imagefs", "fuse.imagefs"]


def test_what_was_made_is_there_after_a_remount(shell: Shell) -> None:
    shell.mount()
    (shell.mountpoint / "images/draft").mkdir()
    (shell.mountpoint / "images/draft/file").write_text("content")
    shell.unmount()
    shell.mount()
    assert (shell.mountpoint / "images/draft/file").read_text() == "content"


def test_several_accounts_and_several_stores(shell: Shell) -> None:
    other, third = shell.home / "other", shell.home / "third"
    shell.mount()
    shell("mount", other, "--account", "bob")
    shell("mount", third, "--store", shell.home / "store")
    (other / "images/his").mkdir()
    (third / "images/its").mkdir()
    assert os.listdir(shell.mountpoint / "images") == []
    assert os.listdir(other / "images") == ["his"]
    assert [row["name"] for row in shell.json("ls", "images", "--account", "bob")] == ["his"]
    assert shell("umount", third) == shell("umount", other) == ""


def test_a_mountpoint_behind_a_symlink(shell: Shell) -> None:
    (shell.home / "link").symlink_to("target")
    (shell.home / "target").mkdir()
    shell("mount", shell.home / "link")
    assert (shell.home / "target").is_mount()
    shell("umount", shell.home / "link")
    assert not (shell.home / "target").is_mount()


def test_mounting_waits_for_a_daemon_that_is_about_to_end(shell: Shell) -> None:
    for _ in range(3):
        shell.mount()
        how = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
        subprocess.run([*how, shell.mountpoint], check=True)
    shell.mount()


# -- refusals ---------------------------------------------------------------------------------


def test_a_second_mount_names_the_first(shell: Shell) -> None:
    shell.mount()
    said = shell.refused("mount", shell.home / "elsewhere")
    assert str(shell.mountpoint) in said
    assert str(shell.pid) in said
    assert not (shell.home / "elsewhere").exists()
    assert "already" in shell.refused("mount", shell.mountpoint, "--account", "bob")


@pytest.mark.parametrize("place", ["", "mnt", "packs/mnt"])
def test_no_mountpoint_inside_the_store(shell: Shell, place: str) -> None:
    assert "inside the store" in shell.refused("mount", shell.store / place)
    assert not (shell.store / "packs").exists()


def test_no_store_inside_the_mountpoint(shell: Shell) -> None:
    store = shell.mountpoint / "deep/store"
    assert "inside the mountpoint" in shell.refused("mount", shell.mountpoint, "--store", store)


def test_symlinks_do_not_hide_that_one_is_inside_the_other(shell: Shell) -> None:
    (shell.home / "link").symlink_to(shell.store)
    shell.store.mkdir(parents=True)
    assert "inside the store" in shell.refused("mount", shell.home / "link/mnt")
    (shell.store / "mnt").mkdir()
    (shell.home / "door").symlink_to(shell.store / "mnt")
    assert "inside the store" in shell.refused("mount", shell.home / "door")


def test_a_mountpoint_must_be_an_empty_directory(shell: Shell) -> None:
    shell.mountpoint.mkdir()
    (shell.mountpoint / "precious").touch()
    assert "precious" in shell.refused("mount", shell.mountpoint)
    file = shell.home / "file"
    file.touch()
    assert "not a directory" in shell.refused("mount", file)
    assert "can't be" in shell.refused("mount", file / "below")


@pytest.mark.root
def test_no_mount_over_another_file_system(shell: Shell) -> None:
    shell.mountpoint.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", shell.mountpoint], check=True)
    assert "tmpfs" in shell.refused("mount", shell.mountpoint)
    assert "tmpfs" in shell.refused("umount", shell.mountpoint)


def test_something_else_is_no_store(shell: Shell) -> None:
    folder = shell.home / "folder"
    folder.mkdir()
    (folder / "photo").touch()
    assert "photo" in shell.refused("mount", shell.mountpoint, "--store", folder, code=1)
    assert not shell.mountpoint.exists()


def test_bad_options(shell: Shell) -> None:
    assert "--seal-after" in shell.refused("mount", "--seal-after", "-1", code=2)
    code, word = (2, "nobody-of-that-name") if os.geteuid() == 0 else (4, "root")
    assert word in shell.refused("mount", "--owner", "nobody-of-that-name", code=code)
    assert "a/b" in shell.refused("mount", "--account", "a/b", code=2)


# -- ends -------------------------------------------------------------------------------------


def test_umount_of_nothing(shell: Shell) -> None:
    assert "Nothing is mounted" in shell.refused("umount", shell.mountpoint, code=3)


def test_umount_of_a_busy_mount_is_refused(shell: Shell) -> None:
    shell.mount()
    (shell.mountpoint / "images/draft").mkdir()
    with (shell.mountpoint / "images/draft/file").open("w"):
        assert "in use" in shell.refused("umount", shell.mountpoint)
        assert shell.mountpoint.is_mount()
    shell.unmount()


@pytest.fixture
def bound(shell: Shell) -> Iterator[Path]:
    """A bind mount of an instance of the mounted account."""
    shell.mount()
    (shell.mountpoint / "images/web").mkdir()
    place = shell.home / "bound"
    place.mkdir()
    subprocess.run(["mount", "--bind", shell.mountpoint / "images/web", place], check=True)
    yield place
    if place.is_mount():
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.root
def test_umount_of_what_is_visible_elsewhere_is_refused(shell: Shell, bound: Path) -> None:
    assert str(bound) in shell.refused("umount", shell.mountpoint)
    assert shell.mountpoint.is_mount()
    shell("umount", bound)
    shell.unmount()


@pytest.mark.root
def test_a_daemon_that_serves_only_elsewhere_is_named(
    shell: Shell,
    bound: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    process = shell.pid
    # As with a place in another mount namespace.
    monkeypatch.setattr(mountpoint, "other_places", lambda _: [])
    monkeypatch.setattr(mountpoint, "_END_SECONDS", 0.2)
    with pytest.raises(MountError, match=f"kill {process}"):
        mountpoint.unmount(shell.mountpoint)
    assert bound.is_mount()
    monkeypatch.setattr(serve, "_LOCK_SECONDS", 0.2)
    place = [str(shell.mountpoint), "--store", str(shell.store)]
    assert run(["mount", "--foreground", *place]) == 4
    assert f"kill {process}" in capsys.readouterr().err
    ended = os.pidfd_open(process)
    subprocess.run(["umount", bound], check=True)
    wait_for_end(ended)
    shell.mount()


@pytest.mark.root
def test_what_goes_with_a_mount_does_not_keep_it(shell: Shell) -> None:
    """A place whose parent has peers shows the mount several times, and loses it at once."""
    first, second = shell.home / "first", shell.home / "second"
    first.mkdir()
    second.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", first], check=True)
    try:
        subprocess.run(["mount", "--make-shared", first], check=True)
        subprocess.run(["mount", "--bind", first, second], check=True)
        shell("mount", first / "cloud")
        assert (second / "cloud").is_mount()
        shell("umount", first / "cloud")
        assert not (second / "cloud").is_mount()
    finally:
        for place in (first / "cloud", second, first):
            if place.is_mount():
                subprocess.run(["umount", "-l", place], check=True)


def test_umount_by_other_means_ends_the_daemon(shell: Shell) -> None:
    shell.mount()
    process = os.pidfd_open(shell.pid)
    how = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
    subprocess.run([*how, shell.mountpoint], check=True)
    wait_for_end(process)
    assert "Ended" in shell.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_daemon_and_the_mount(shell: Shell, number: signal.Signals) -> None:
    shell.mount()
    (shell.mountpoint / "images/draft").mkdir()
    shell.kill(number)
    assert not shell.mountpoint.is_mount()
    assert "Ended" in shell.log()
    shell.mount()
    assert (shell.mountpoint / "images/draft").is_dir()


def test_a_signal_ends_a_mount_in_use(shell: Shell) -> None:
    shell.mount()
    (shell.mountpoint / "images/draft").mkdir()
    file = shell.mountpoint / "images/draft/file"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"written")
    shell.kill(signal.SIGTERM)
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        os.pread(descriptor, 10, 0)
    with contextlib.suppress(OSError):
        os.close(descriptor)
    shell.mount()
    assert file.read_bytes() == b"written"


def test_a_dead_daemon_leaves_a_loud_mount_that_mount_clears_away(shell: Shell) -> None:
    shell.mount()
    (shell.mountpoint / "images/draft").mkdir()
    shell.kill(signal.SIGKILL)
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        os.listdir(shell.mountpoint)
    shell.mount()
    assert (shell.mountpoint / "images/draft").is_dir()


def test_umount_clears_a_dead_mount_away(shell: Shell) -> None:
    shell.mount()
    shell.kill(signal.SIGKILL)
    shell.unmount()


def test_status_tells_of_a_dead_mount(shell: Shell) -> None:
    shell.mount()
    assert "dead_mountpoint" not in shell.json("status")
    shell.kill(signal.SIGKILL)
    assert shell.json("status")["dead_mountpoint"] == str(shell.mountpoint)
    assert f"`imagefs mount {shell.mountpoint}`" in shell("status")
    shell.unmount()
    assert "dead_mountpoint" not in shell.json("status")


def test_status_tells_of_inner_state_only_those_who_debug(shell: Shell) -> None:
    shell.mount()
    assert "<" not in shell("status")
    assert "<" not in shell("status", "--json")
    assert "<Vfs" in shell("--debug", "status")


def test_commands_work_after_a_dead_daemon(shell: Shell) -> None:
    shell.mount()
    (shell.mountpoint / "images/draft").mkdir()
    shell.kill(signal.SIGKILL)
    assert [row["name"] for row in shell.json("ls", "images")] == ["draft"]


def test_sigusr1_writes_stacks_and_figures_to_the_log(shell: Shell) -> None:
    shell.mount()
    os.kill(shell.pid, signal.SIGUSR1)
    wait_until(lambda: "background.run" in shell.log(), "the stacks")
    log = shell.log()
    assert "mountpoint: " in log
    assert "Current thread" in log, "what the interpreter says of its threads"
    shell.unmount()


def test_in_the_foreground(shell: Shell) -> None:
    command = shell.command("mount", "--foreground", shell.mountpoint)
    with subprocess.Popen(command, env=shell.environment, stderr=subprocess.PIPE) as daemon:
        assert daemon.stderr is not None
        lines = iter(daemon.stderr.readline, b"")
        assert any(b"Mounted at" in line for line in lines)
        assert shell.mountpoint.is_mount()
        daemon.send_signal(signal.SIGINT)
        assert daemon.wait(20) == 0
    assert not shell.mountpoint.is_mount()


def test_a_store_with_a_very_long_path(shell: Shell, tmp_path: Path) -> None:
    store = tmp_path / ("long" * 20) / ("path" * 20)
    shell.mount("--store", store)
    assert len(str(store)) > 108
    assert shell.json("status", "--store", store)["mounted"] is True
    shell.unmount()


def test_only_its_owner_may_talk_to_a_daemon(shell: Shell) -> None:
    shell.mount()
    (path,) = (shell.store / "run").glob("*.sock")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))


def test_a_file_touched_after_it_was_written_is_not_older_than_before(shell: Shell) -> None:
    shell.mount()
    draft = shell.mountpoint / "images/draft"
    draft.mkdir()
    for number in range(20):
        file = draft / str(number)
        file.write_text("content")
        written = file.stat().st_mtime_ns
        file.touch()
        touched = file.stat()
        assert touched.st_mtime_ns >= written
        assert touched.st_ctime_ns >= written
