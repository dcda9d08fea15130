"""Row 1: a directory becomes an image, from a warm cache, into a new store."""

from collections.abc import Callable, Mapping
from pathlib import Path

from bench_rows.bench import Bench, Imagefs, remove
from bench_rows.machine import Command, run
from bench_rows.measure import IMAGEFS, Attempt, Figure, Target, stopwatch
from bench_rows.peers import RESTIC, borg_environment
from bench_rows.work import read_seconds

CommandMaker = Callable[[Path, Path], Command]
SECONDS = Figure(
    1, "import a directory", "s", (Target(1.0, "mksquashfs lz4"), Target(0.5, "borg create lz4"))
)


def measure(bench: Bench) -> None:
    read_seconds(bench.rootfs)
    contenders: dict[str, Attempt] = {
        IMAGEFS: lambda: import_into_imagefs(bench),
        "mksquashfs lz4": lambda: make(bench, squashfs_command),
        "mkfs.erofs lz4": lambda: make(bench, erofs_command),
        "borg create lz4": lambda: borg(bench),
        "casync make": lambda: make(bench, casync_command),
        "restic backup": lambda: restic(bench),
        "cp -a": lambda: make(bench, copy_command),
    }
    needs = {
        "mksquashfs lz4": "mksquashfs",
        "mkfs.erofs lz4": "mkfs.erofs",
        "borg create lz4": "borg",
        "casync make": "casync",
        "restic backup": "restic",
    }
    bench.compare((SECONDS,), contenders, needs)


def import_into_imagefs(bench: Bench) -> dict[str, float]:
    side = Imagefs(bench.folder("import"))
    try:
        with stopwatch() as watch:
            side.command("import", bench.rootfs, "base")
        return {SECONDS.name: watch.seconds}
    finally:
        remove(side.folder)


def squashfs_command(source: Path, folder: Path) -> Command:
    quiet = ["-noappend", "-no-progress", "-quiet"]
    return ["mksquashfs", source, folder / "image", "-comp", "lz4", *quiet]


def erofs_command(source: Path, folder: Path) -> Command:
    return ["mkfs.erofs", "--quiet", "-zlz4", folder / "image", source]


def casync_command(source: Path, folder: Path) -> Command:
    return ["casync", "make", f"--store={folder}/image.castr", folder / "image.caidx", source]


def copy_command(source: Path, folder: Path) -> Command:
    return ["cp", "-a", source, folder / "copy"]


def make(bench: Bench, command_for: CommandMaker) -> dict[str, float]:
    """Times one program that makes its output in an empty folder."""
    folder = bench.folder("import")
    return timed(command_for(bench.rootfs, folder), folder)


def borg(bench: Bench) -> dict[str, float]:
    folder = bench.folder("import")
    environment = borg_environment(folder)
    run(["borg", "init", "--encryption=none"], environment)
    return timed(
        ["borg", "create", "--compression=lz4", "::base", bench.rootfs], folder, environment
    )


def restic(bench: Bench) -> dict[str, float]:
    folder = bench.folder("import")
    environment = {
        **RESTIC,
        "RESTIC_REPOSITORY": str(folder / "repository"),
        "RESTIC_CACHE_DIR": str(folder / "cache"),
    }
    run(["restic", "init"], environment)
    return timed(["restic", "backup", "--quiet", bench.rootfs], folder, environment)


def timed(
    command: Command, folder: Path, environment: Mapping[str, str] | None = None
) -> dict[str, float]:
    try:
        with stopwatch() as watch:
            run(command, environment)
        return {SECONDS.name: watch.seconds}
    finally:
        remove(folder)
