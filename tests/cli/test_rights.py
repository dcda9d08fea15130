"""Who gets into a mount, and what works there: by root, for another user, for everybody."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.daemon.mountpoint import user_allow_other
from tests.acceptance.mounts import new_folder, remove_folder
from tests.cli.conftest import Result, Shell

pytestmark = [pytest.mark.mount, pytest.mark.root]

STRANGER = 65534
"""The user `nobody`."""


@pytest.fixture
def open_shell() -> Iterator[Shell]:
    """A shell whose home everybody may look into."""
    home = new_folder()
    yield Shell(home)
    remove_folder(home)


def as_stranger(*command: str | Path) -> Result:
    return subprocess.run(
        [*map(str, command)], user=STRANGER, group=STRANGER, extra_groups=[], cwd="/",
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def draft(shell: Shell) -> Path:
    path = shell.mountpoint / "images/draft"
    path.mkdir()
    (path / "open").write_text("for all")
    (path / "secret").write_text("for few")
    (path / "secret").chmod(0o600)
    return path


def test_nobody_else_gets_in(open_shell: Shell) -> None:
    open_shell.mount()
    path = draft(open_shell)
    assert as_stranger("ls", open_shell.mountpoint).returncode != 0
    assert as_stranger("cat", path / "open").returncode != 0


def test_inside_a_chroot_other_users_work_as_modes_allow(open_shell: Shell) -> None:
    open_shell.mount()
    path = draft(open_shell)
    # The way a service in a chroot works: it starts as root inside and becomes another user.
    inside = ["sh", "-c", 'cd "$0" && exec setpriv --reuid=65534 --clear-groups cat "$1"']
    assert subprocess.run([*inside, path, "open"], check=False).returncode == 0
    assert subprocess.run([*inside, path, "secret"], check=False).returncode != 0


def test_allow_other_lets_in_as_far_as_modes_allow(open_shell: Shell) -> None:
    open_shell.mount("--allow-other")
    path = draft(open_shell)
    assert as_stranger("cat", path / "open").stdout == "for all"
    assert as_stranger("cat", path / "secret").returncode != 0
    assert as_stranger("touch", path / "new").returncode != 0
    subprocess.run(["setfacl", "-m", f"u:{STRANGER}:r", path / "secret"], check=True)
    assert as_stranger("cat", path / "secret").stdout == "for few"


def test_an_owner_has_the_view_to_himself(open_shell: Shell) -> None:
    open_shell.mount("--owner", "nobody")
    top = open_shell.mountpoint.stat()
    assert (top.st_uid, stat.S_IMODE(top.st_mode)) == (STRANGER, 0o700)
    made = as_stranger("mkdir", open_shell.mountpoint / "images/his")
    assert made.returncode == 0, made.stderr
    assert (open_shell.mountpoint / "images/his").stat().st_uid == STRANGER


def test_devices_and_set_user_id_work_for_root_alone(open_shell: Shell) -> None:
    open_shell.mount()
    path = draft(open_shell)
    os.mknod(path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert (path / "null").read_bytes() == b""
    options = subprocess.run(
        ["findmnt", "-n", "-o", "OPTIONS", open_shell.mountpoint],
        check=True, capture_output=True, text=True,
    ).stdout.strip().split(",")  # fmt: skip
    assert not {"nosuid", "nodev"} & set(options)
    open_shell.unmount()
    open_shell.mount("--allow-other")
    with pytest.raises(OSError, match=os.strerror(errno.EACCES)):
        (path / "null").read_bytes()


def test_user_allow_other_is_read_from_the_configuration(tmp_path: Path) -> None:
    configuration = tmp_path / "fuse.conf"
    assert not user_allow_other(configuration)
    configuration.write_text("# user_allow_other\nmount_max = 10\n")
    assert not user_allow_other(configuration)
    configuration.write_text("mount_max = 10\n  user_allow_other  \n")
    assert user_allow_other(configuration)
