"""Row 11: an instance with a hundred changed files becomes an image."""

import random
from itertools import count
from pathlib import Path

from bench_rows.bench import Bench, Imagefs, imagefs
from bench_rows.measure import IMAGEFS, Figure, Target, stopwatch
from bench_rows.trees import many_entries

CHANGED = 100
SYSTEM = Figure(11, "commit 100 changed files of a system", "ms")
LARGE = Figure(11, "the same of a very large image", "ms")
START = Figure(11, "start of the command alone", "ms")
SYSTEM_NET = Figure(11, "commit without the command's start: system", "ms", (Target(50.0),))
LARGE_NET = Figure(11, "commit without the command's start: very large", "ms")
GROWTH = Figure(11, "very large as a multiple of system", "x", (Target(1.5),))
FIGURES = (SYSTEM, LARGE, START, SYSTEM_NET, LARGE_NET, GROWTH)


def measure(bench: Bench) -> None:
    with imagefs(bench) as side:
        side.command("import", bench.rootfs, "system")
        side.command("import", many_entries(bench), "large")
        names = count()

        def attempt() -> dict[str, float]:
            start = timed(side, "--version")
            system, large = (commit(side, image, next(names)) for image in ("system", "large"))
            return {
                SYSTEM.name: system,
                LARGE.name: large,
                START.name: start,
                SYSTEM_NET.name: system - start,
                LARGE_NET.name: large - start,
                GROWTH.name: (large - start) / (system - start),
            }

        bench.compare(FIGURES, {IMAGEFS: attempt})


def commit(side: Imagefs, image: str, number: int) -> float:
    instance = side.instances / image / f"clone-{number}"
    instance.mkdir()
    change_files(instance, number)
    return timed(side, "commit", f"{image}/clone-{number}", f"commit-{number}")


def change_files(instance: Path, seed: int) -> None:
    """Appends a line to files all over the tree."""
    files = [path for path in sorted(instance.glob("*/*/*")) if is_plain(path)]
    for path in random.Random(seed).sample(files, CHANGED):
        with open(path, "ab") as file:
            file.write(b"changed\n")


def is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def timed(side: Imagefs, *arguments: str) -> float:
    with stopwatch() as watch:
        side.command(*arguments)
    return watch.seconds * 1000
