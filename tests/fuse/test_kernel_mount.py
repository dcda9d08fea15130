"""Mounts that root makes without libfuse."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagefs.fuse.kernel_mount import KernelMount
from tests.acceptance.mounts import detach, fuse_mounts

pytestmark = [pytest.mark.mount, pytest.mark.root]


@contextmanager
def mounted(path: Path, *, enforced: bool, trusted: bool) -> Iterator[KernelMount]:
    path.mkdir()
    mount = KernelMount(path, "source", "fuse.kind", enforced=enforced, trusted=trusted)
    try:
        yield mount
    finally:
        os.close(int(mount.device.removeprefix("/dev/fd/")))
        mount.detach()
    assert path not in fuse_mounts()


def options(path: Path) -> tuple[str, str, set[str]]:
    """Type, source and options of a mount."""
    (line,) = [
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if f" {path} " in line
    ]
    before, _, after = line.partition(" - ")
    kind, source, of_all = after.split()
    return kind, source, {*before.split()[5].split(","), *of_all.split(",")}


def test_a_mount_that_lets_everybody_in(tmp_path: Path) -> None:
    path = tmp_path / "mnt"
    with mounted(path, enforced=True, trusted=False):
        kind, source, found = options(path)
    assert (kind, source) == ("fuse.kind", "source")
    assert found >= {"nosuid", "nodev", "default_permissions", "allow_other", "user_id=0"}


def test_a_mount_that_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "mnt"
    with mounted(path, enforced=False, trusted=True):
        _, _, found = options(path)
    assert not {"nosuid", "nodev", "default_permissions", "allow_other"} & found


def test_whether_somebody_unmounted_it(tmp_path: Path) -> None:
    path = tmp_path / "mnt"
    with mounted(path, enforced=False, trusted=False) as mount:
        assert not mount.is_over()
        detach(path)
        assert mount.is_over()


@pytest.mark.parametrize(("name", "kind"), [("missing", "fuse.kind"), ("mnt", "nosuch")])
def test_what_cannot_be_mounted_leaves_nothing_open(tmp_path: Path, name: str, kind: str) -> None:
    tmp_path.joinpath("mnt").mkdir()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="No such"):
        KernelMount(tmp_path / name, "source", kind, enforced=False, trusted=False)
    assert os.listdir("/proc/self/fd") == before
