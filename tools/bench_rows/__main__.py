"""The benchmark as a program: which rows, how often, on which tree, told how."""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bench_rows import (
    row_clone,
    row_commit,
    row_copy,
    row_idle,
    row_import,
    row_read,
    row_small,
    row_stream,
    row_travel,
    tables,
)
from bench_rows.bench import Bench, remove
from bench_rows.machine import facts, run

ROWS: dict[int, Callable[[Bench], None]] = {
    1: row_import.measure,
    3: row_copy.measure,
    4: row_clone.measure,
    5: row_read.measure,
    6: row_read.measure,
    7: row_small.measure,
    9: row_stream.measure,
    11: row_commit.measure,
    14: row_travel.measure,
    17: row_idle.measure,
}
CACHED_ROOTFS = Path("/var/cache/imagefs-test/rootfs-bookworm")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bench",
        description="Measures imagefs beside its peers; contenders take turns, medians count.",
    )
    add = parser.add_argument
    add("rows", nargs="*", type=int, help=f"rows to measure, of {', '.join(map(str, ROWS))}")
    add("--json", type=Path, metavar="FILE", help="write the result as JSON as well")
    add("--repeats", type=int, default=3, help="turns of every contender (3)")
    add("--rootfs", type=Path, help="the tree to work on (a minimal Debian, made when missing)")
    add("--scratch", type=Path, default=Path("/var/tmp"), help="where to work (/var/tmp)")
    add("--entries", type=int, default=100_000, help="size of the very large tree (100000)")
    given = parser.parse_args()
    if unknown := set(given.rows) - ROWS.keys():
        parser.error(f"no such row: {', '.join(map(str, sorted(unknown)))}")
    return given


def rootfs_for(given: argparse.Namespace, scratch: Path) -> Path:
    """The tree asked for, the one the tests keep, or a new one."""
    if given.rootfs:
        return Path(given.rootfs).resolve()
    if CACHED_ROOTFS.is_dir():
        return CACHED_ROOTFS
    made = scratch / "rootfs"
    run(["debootstrap", "--variant=minbase", "bookworm", made])
    return made


def main() -> None:
    given = arguments()
    progress = Console(stderr=True)
    # A table that is cut to the width of a pipe helps nobody.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    scratch = Path(tempfile.mkdtemp(prefix="imagefs-bench-", dir=given.scratch))
    try:
        bench = Bench(scratch, rootfs_for(given, scratch), given.repeats, given.entries)
        # Rows that share a function are measured by one call.
        for measure in dict.fromkeys(ROWS[row] for row in given.rows or ROWS):
            progress.print(f"measuring {measure.__module__.rpartition('.')[2]} ...")
            measure(bench)
        machine = {**facts(scratch), "very large": f"{given.entries} entries"}
    finally:
        remove(scratch)
    tables.show(bench.report, machine, console)
    if given.json:
        tables.save(bench.report, machine, given.json)


if __name__ == "__main__":
    main()
