"""Mounts of the peers, each as a context with the folder to work in."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench_rows.bench import PATIENCE, Bench, detach, remove, wait_until_mounted
from bench_rows.machine import run

BORG = {
    "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
    "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
}
RESTIC = {"RESTIC_PASSWORD": "benchmark"}


def borg_environment(folder: Path) -> dict[str, str]:
    """Keeps borg's caches and keys inside the folder."""
    return {**BORG, "BORG_BASE_DIR": str(folder / "base"), "BORG_REPO": str(folder / "repository")}


@contextmanager
def fuse_overlayfs(bench: Bench, lower: Path | None) -> Iterator[Path]:
    """fuse-overlayfs over `lower`, or over nothing."""
    folder = bench.folder("fuse-overlayfs")
    for name in ("empty", "upper", "work", "mnt"):
        (folder / name).mkdir()
    options = f"lowerdir={lower or folder / 'empty'},upperdir={folder}/upper,workdir={folder}/work"
    run(["fuse-overlayfs", "-o", options, folder / "mnt"])
    wait_until_mounted(folder / "mnt")
    try:
        yield folder / "mnt"
    finally:
        detach(folder / "mnt")
        remove(folder)


@contextmanager
def squashfuse(bench: Bench, image: Path) -> Iterator[Path]:
    mountpoint = bench.folder("squashfuse")
    run(["squashfuse", image, mountpoint])
    wait_until_mounted(mountpoint)
    try:
        yield mountpoint
    finally:
        detach(mountpoint)


@contextmanager
def borg_mount(bench: Bench, repository_folder: Path, archive: str) -> Iterator[Path]:
    mountpoint = bench.folder("borg-mount")
    environment = borg_environment(repository_folder)
    run(["borg", "mount", f"::{archive}", mountpoint], environment)
    wait_until_mounted(mountpoint)
    try:
        yield mountpoint
    finally:
        detach(mountpoint)


@contextmanager
def null_filesystem(bench: Bench, python: str) -> Iterator[Path]:
    """pyfuse3 with handlers that do nothing: what is left is the price of pyfuse3 itself."""
    mountpoint = bench.folder("null")
    process = subprocess.Popen([python, "-m", "bench_rows.null_filesystem", str(mountpoint)])
    try:
        wait_until_mounted(mountpoint)
        yield mountpoint
        detach(mountpoint)
        process.wait(timeout=PATIENCE)
    finally:
        process.kill()
