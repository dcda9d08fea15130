"""Row 9: one large file written front to back, then read back from a cold start."""

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from bench_rows.bench import Bench, Imagefs, imagefs
from bench_rows.machine import drop_caches
from bench_rows.measure import IMAGEFS, Figure, Target
from bench_rows.peers import null_filesystem
from bench_rows.work import MIB, read_file_seconds, write_seconds

SIZE = 1024 * MIB
NOTHING = "pyfuse3 doing nothing"
WRITE = Figure(9, "write 1 GiB", "MB/s", (Target(0.6, NOTHING),), more_is_better=True)
READ = Figure(9, "cold read of it", "MB/s", (Target(0.6, NOTHING),), more_is_better=True)
MEGABYTE = 1_000_000


def measure(bench: Bench) -> None:
    with ExitStack() as stack:
        side = stack.enter_context(imagefs(bench))
        empty = bench.folder("empty")
        side.command("import", empty, "base")
        clone = side.instances / "base/clone"
        clone.mkdir()
        null = stack.enter_context(null_filesystem(bench, sys.executable))
        disk = bench.folder("stream")
        contenders = {
            IMAGEFS: lambda: in_clone(side, clone / "file"),
            NOTHING: lambda: stream(null / "file"),
            "directory on disk": lambda: stream(disk / "file"),
        }
        bench.compare((WRITE, READ), contenders)


def in_clone(side: Imagefs, file: Path) -> Mapping[str, float]:
    written = write_seconds(file, SIZE)
    side.remount_cold()
    return figures(written, file)


def stream(file: Path) -> Mapping[str, float]:
    written = write_seconds(file, SIZE)
    drop_caches()
    return figures(written, file)


def figures(written: float, file: Path) -> dict[str, float]:
    read = read_file_seconds(file)
    file.unlink()
    return {WRITE.name: SIZE / MEGABYTE / written, READ.name: SIZE / MEGABYTE / read}
