"""Row 3: `cp -a` of a directory into an image."""

from pathlib import Path

from bench_rows.bench import Bench, imagefs
from bench_rows.machine import run
from bench_rows.measure import IMAGEFS, Figure, Target, stopwatch
from bench_rows.peers import fuse_overlayfs

SECONDS = Figure(3, "cp -a into an image", "s", (Target(1.0, "fuse-overlayfs"),))


def measure(bench: Bench) -> None:
    contenders = {
        IMAGEFS: lambda: into_imagefs(bench),
        "fuse-overlayfs": lambda: into_overlay(bench),
    }
    bench.compare((SECONDS,), contenders, {"fuse-overlayfs": "fuse-overlayfs"})


def into_imagefs(bench: Bench) -> dict[str, float]:
    with imagefs(bench) as side:
        return copy(bench.rootfs, side.images / "base")


def into_overlay(bench: Bench) -> dict[str, float]:
    with fuse_overlayfs(bench, None) as mountpoint:
        # fuse-overlayfs cannot keep the permissions of a dangling symlink; cp goes on and says so.
        return copy(bench.rootfs, mountpoint / "base", accepted=(0, 1))


def copy(source: Path, target: Path, accepted: tuple[int, ...] = (0,)) -> dict[str, float]:
    with stopwatch() as watch:
        run(["cp", "-a", source, target], accepted=accepted)
    return {SECONDS.name: watch.seconds}
