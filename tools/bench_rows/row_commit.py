"""Row 11: an instance with a hundred changed files becomes an image."""

from itertools import count

from bench_rows.bench import Bench, Imagefs, imagefs
from bench_rows.measure import IMAGEFS, Figure, Target, stopwatch
from bench_rows.trees import many_entries, some_of_many, some_of_system

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
            number = next(names)
            start = timed(side, "--version")
            system = commit(side, "system", number, some_of_system(bench, number, CHANGED))
            large = commit(side, "large", number, some_of_many(bench, number, CHANGED))
            return {
                SYSTEM.name: system,
                LARGE.name: large,
                START.name: start,
                SYSTEM_NET.name: system - start,
                LARGE_NET.name: large - start,
                GROWTH.name: (large - start) / (system - start),
            }

        bench.compare(FIGURES, {IMAGEFS: attempt})


def commit(side: Imagefs, image: str, number: int, paths: list[str]) -> float:
    """Makes a clone, appends a line to these files, and times the commit of it."""
    instance = side.instances / image / f"clone-{number}"
    instance.mkdir()
    for path in paths:
        with open(instance / path, "ab") as file:
            file.write(b"changed\n")
    return timed(side, "commit", f"{image}/clone-{number}", f"{image}-{number}")


def timed(side: Imagefs, *arguments: str) -> float:
    with stopwatch() as watch:
        side.command(*arguments)
    return watch.seconds * 1000
