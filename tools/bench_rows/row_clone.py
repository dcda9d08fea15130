"""Row 4: a thousand clones, made by mkdir; of a system and of an image of very many entries."""

import os
from pathlib import Path

from bench_rows.bench import Bench, imagefs
from bench_rows.measure import IMAGEFS, Figure, Target, stopwatch
from bench_rows.trees import many_entries

CLONES = 1000
SYSTEM = Figure(4, "clone a system by mkdir, each", "ms", (Target(0.5),))
LARGE = Figure(4, "clone a very large image by mkdir, each", "ms", (Target(0.5),))


def measure(bench: Bench) -> None:
    with imagefs(bench) as side:
        side.command("import", bench.rootfs, "system")
        side.command("import", many_entries(bench), "large")
        rounds = iter(range(bench.repeats))

        def attempt() -> dict[str, float]:
            number = next(rounds)
            return {
                SYSTEM.name: clone_milliseconds(side.instances / "system", number),
                LARGE.name: clone_milliseconds(side.instances / "large", number),
            }

        bench.compare((SYSTEM, LARGE), {IMAGEFS: attempt})


def clone_milliseconds(folder: Path, number: int) -> float:
    names = [f"{folder}/clone-{number}-{clone}" for clone in range(CLONES)]
    with stopwatch() as watch:
        for name in names:
            os.mkdir(name)
    return watch.seconds * 1000 / CLONES
