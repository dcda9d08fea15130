"""Row 17: what a daemon costs that nobody asks anything."""

import time

from bench_rows.bench import Bench, imagefs
from bench_rows.machine import cpu_seconds, resident_mib
from bench_rows.measure import IMAGEFS, Figure, Target
from bench_rows.work import walk_seconds

SETTLE = 2.0
WATCHED = 5.0
PROCESSOR = Figure(17, "idle: processor time of 5 s", "ms", (Target(0.0),))
FRESH = Figure(17, "idle: memory, just mounted", "MiB", (Target(60.0),))
WALKED = Figure(17, "idle: memory, after a walk of a clone", "MiB")


def measure(bench: Bench) -> None:
    def attempt() -> dict[str, float]:
        with imagefs(bench) as side:
            side.command("import", bench.rootfs, "base")
            side.unmount()
            side.mount()
            daemon = side.daemon()
            fresh = resident_mib(daemon)
            (side.instances / "base/clone").mkdir()
            walk_seconds(side.instances / "base/clone")
            time.sleep(SETTLE)
            before = cpu_seconds(daemon)
            time.sleep(WATCHED)
            used = cpu_seconds(daemon) - before
            return {
                PROCESSOR.name: used * 1000,
                FRESH.name: fresh,
                WALKED.name: resident_mib(daemon),
            }

    bench.compare((PROCESSOR, FRESH, WALKED), {IMAGEFS: attempt})
