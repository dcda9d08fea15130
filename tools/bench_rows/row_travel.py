"""Row 14: two states of a system travel to an object store, and the second finds the first there.

Both states are stored on this machine once. In each turn they are copied, one after the other, to
an empty place of the service, and what is sent for that is counted on the way.
"""

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

from bench_rows.bench import Bench, Imagefs, imagefs
from bench_rows.machine import run
from bench_rows.measure import IMAGEFS, Figure, Target, stopwatch
from bench_rows.object_store import BUCKET, CREDENTIALS, ObjectStore, object_store
from bench_rows.peers import RESTIC
from bench_rows.trees import system_with_more
from bench_rows.work import MIB

FIRST = Figure(14, "region copy of a system", "s")
FIRST_SENT = Figure(14, "what that sends", "MiB")
SECOND = Figure(14, "region copy of its second state", "s")
SECOND_SENT = Figure(14, "what that sends, the first being there", "MiB")
NEW = Figure(14, "new in the second state, compressed", "MiB")
MULTIPLE = Figure(14, "sent as a multiple of what is new", "x", (Target(1.1),))
FIGURES = (FIRST, FIRST_SENT, SECOND, SECOND_SENT, NEW, MULTIPLE)

Work = Callable[[], object]


def measure(bench: Bench) -> None:
    with object_store(bench) as service, imagefs(bench, CREDENTIALS) as side:
        states = (bench.rootfs, system_with_more(bench))
        ours = OfImagefs(service, side, states)
        peers = OfRestic(service, bench.folder("restic"), states)
        bench.compare(
            FIGURES,
            {IMAGEFS: ours.attempt, "restic copy": peers.attempt},
            {"restic copy": "restic"},
        )


class OfImagefs:
    """Images of a store, and a new region in each turn."""

    def __init__(self, service: ObjectStore, side: Imagefs, states: tuple[Path, Path]) -> None:
        self.service = service
        self.side = side
        for name, tree in zip(("first", "second"), states, strict=True):
            side.command("import", tree, name)
        self.new = json.loads(side.command("show", "second", "--json"))["stored_bytes"]
        self.numbers = count(1)

    def attempt(self) -> dict[str, float]:
        region = f"region-{next(self.numbers)}"
        endpoint = f"endpoint={self.service.endpoint}&region=us-east-1"
        self.side.command("region", "add", region, f"s3://{BUCKET}/{region}?{endpoint}")
        return travel(
            self.service,
            lambda: self.side.command("copy", "first", region),
            lambda: self.side.command("copy", "second", region),
            self.new,
        )


class OfRestic:
    """Snapshots in a repository on the disk, made in the first turn, and a new repository on the
    service in each."""

    def __init__(self, service: ObjectStore, folder: Path, states: tuple[Path, Path]) -> None:
        self.service = service
        self.folder = folder
        self.states = states
        self.local = str(folder / "repository")
        self.new = 0
        self.numbers = count(1)

    def attempt(self) -> dict[str, float]:
        if not self.new:
            self.back_up()
        remote = f"s3:{self.service.endpoint}/{BUCKET}/restic-{next(self.numbers)}"
        same = ("--from-repo", self.local)
        self.restic(remote, "init", "--copy-chunker-params", *same)
        first, second = map(str, self.states)
        return travel(
            self.service,
            lambda: self.restic(remote, "copy", *same, "--path", first),
            lambda: self.restic(remote, "copy", *same, "--path", second),
            self.new,
        )

    def back_up(self) -> None:
        self.restic(self.local, "init")
        sizes = []
        for tree in self.states:
            self.restic(self.local, "backup", str(tree))
            sizes.append(size_of(Path(self.local)))
        self.new = sizes[1] - sizes[0]

    def restic(self, repository: str, *arguments: str) -> None:
        environment = {
            **RESTIC,
            **CREDENTIALS,
            "RESTIC_FROM_PASSWORD": RESTIC["RESTIC_PASSWORD"],
            "RESTIC_REPOSITORY": repository,
            "RESTIC_CACHE_DIR": str(self.folder / "cache"),
        }
        run(["restic", "--quiet", *arguments], environment)


def travel(service: ObjectStore, first: Work, second: Work, new: int) -> dict[str, float]:
    """Both copies; `new` is what the second state added to what is stored on this machine, bytes."""
    first_seconds, first_sent = timed(service, first)
    seconds, sent = timed(service, second)
    return {
        FIRST.name: first_seconds,
        FIRST_SENT.name: first_sent / MIB,
        SECOND.name: seconds,
        SECOND_SENT.name: sent / MIB,
        NEW.name: new / MIB,
        MULTIPLE.name: sent / new,
    }


def timed(service: ObjectStore, work: Work) -> tuple[float, int]:
    """How many seconds it takes, and how many bytes the service is sent meanwhile."""
    before = service.meter.sent
    with stopwatch() as watch:
        work()
    return watch.seconds, service.meter.sent - before


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
