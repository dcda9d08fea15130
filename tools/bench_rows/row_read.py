"""Rows 5 and 6: walk a clone and read every file of it; cold, then warm."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from bench_rows.bench import Bench, Imagefs, imagefs
from bench_rows.machine import drop_caches, run
from bench_rows.measure import IMAGEFS, Figure, Target
from bench_rows.peers import borg_environment, borg_mount, squashfuse
from bench_rows.work import read_seconds, walk_seconds

COLD_WALK = Figure(5, "cold: walk a clone", "s")
COLD_READ = Figure(5, "cold: then read every file", "s")
COLD_BOTH = Figure(5, "cold: both together", "s", (Target(1.0, "squashfuse"),))
WARM_BOTH = Figure(6, "warm: both again", "s", (Target(0.7, "squashfuse"),))
FIGURES = (COLD_WALK, COLD_READ, COLD_BOTH, WARM_BOTH)
NEEDS = {"squashfuse": "squashfuse", "borg mount": "borg"}


def measure(bench: Bench) -> None:
    with ExitStack() as stack:
        side = stack.enter_context(imagefs(bench))
        side.command("import", bench.rootfs, "base")
        run(["mkdir", side.instances / "base/clone"])
        contenders = {
            IMAGEFS: lambda: read_clone(side),
            "squashfuse": lambda: read_mounted(squashfuse(bench, squashfs_image(bench))),
            "borg mount": lambda: read_mounted(borg_mount(bench, borg_archive(bench), "base")),
            "directory on disk": lambda: read_directory(bench.rootfs),
        }
        bench.compare(FIGURES, contenders, NEEDS)


def squashfs_image(bench: Bench) -> Path:
    """The tree as a squashfs image, made the first time."""
    image = bench.scratch / "read.squashfs"
    if not image.exists():
        options = ["-comp", "lz4", "-no-progress", "-quiet"]
        run(["mksquashfs", bench.rootfs, image, *options])
    return image


def borg_archive(bench: Bench) -> Path:
    """A folder with a borg repository that holds the tree, made the first time."""
    folder = bench.scratch / "read-borg"
    if not folder.exists():
        folder.mkdir()
        environment = borg_environment(folder)
        run(["borg", "init", "--encryption=none"], environment)
        run(["borg", "create", "--compression=lz4", "::base", bench.rootfs], environment)
    return folder


def read_clone(side: Imagefs) -> Mapping[str, float]:
    side.remount_cold()
    return cold_and_warm(side.instances / "base/clone")


def read_mounted(peer: AbstractContextManager[Path]) -> Mapping[str, float]:
    drop_caches()
    with peer as mountpoint:
        return cold_and_warm(mountpoint)


def read_directory(folder: Path) -> Mapping[str, float]:
    drop_caches()
    return cold_and_warm(folder)


def cold_and_warm(tree: Path) -> dict[str, float]:
    walk, read = walk_seconds(tree), read_seconds(tree)
    warm = walk_seconds(tree) + read_seconds(tree)
    return {
        COLD_WALK.name: walk,
        COLD_READ.name: read,
        COLD_BOTH.name: walk + read,
        WARM_BOTH.name: warm,
    }
