"""SQLite in an instance, several writers a database: they are killed, and so is the daemon."""

import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.fixtures import ROOT
from tests.acceptance.person import Person, wait_until
from tests.programs import sqlite_writer
from tests.programs.ending import unmounted_in_order
from tests.seed import SEED

pytestmark = [
    pytest.mark.mount,
    pytest.mark.root,
    # What a killed writer had stored already is taken into the index.
    pytest.mark.expected_log("bytes from offset [0-9]+ on are indexed"),
]

ROUNDS = int(os.environ.get("IMAGEFS_TEST_ROUNDS", "3"))
WRITERS = 3
KILLS = 6
PATIENCE = 120.0
MAPPED = 256 * 1024 * 1024


@dataclass(frozen=True)
class Kind:
    """How a database is written: its journal mode, and how much of it is mapped."""

    journal: str
    mapped: int = 0

    @property
    def name(self) -> str:
        return self.journal + ("-mapped" if self.mapped else "")


KINDS = (
    Kind("wal"),
    Kind("truncate"),
    Kind("persist"),
    Kind("wal", MAPPED),
    Kind("delete", MAPPED),
)


class Writer:
    """One writer process, and what it said in a file."""

    def __init__(self, database: Path, kind: Kind, number: int, said: Path) -> None:
        self.number = number
        self.said = said
        program = [sys.executable, "-m", "tests.programs.sqlite_writer"]
        with open(said, "wb") as output, open(f"{said}-errors", "wb") as errors:
            self.process = subprocess.Popen(
                [*program, str(database), kind.journal, str(kind.mapped), str(number)],
                cwd=ROOT,
                stdout=output,
                stderr=errors,
            )

    def last(self, word: str, before: float = math.inf) -> int:
        """The last number said with this word, by that time."""
        said = [line.split() for line in self.said.read_text().splitlines()]
        numbers = [int(n) for spoken, n, when in said if spoken == word and int(when) < before]
        return max(numbers, default=0)

    def in_flight(self, moment: float) -> bool:
        """Whether it was within a transaction then."""
        return self.last("begin", moment) > self.last("done")

    @property
    def error(self) -> str:
        return f"{self.process.returncode}: {Path(f'{self.said}-errors').read_text()}"

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=PATIENCE)


class Workshop:
    """A database and everybody who ever wrote to it."""

    def __init__(self, folder: Path, beside: Path, kind: Kind) -> None:
        self.kind = kind
        self.path = folder / f"{kind.name}.db"
        self.beside = beside
        self.writers: list[Writer] = []
        self.present: list[Writer] = []
        sqlite_writer.create(str(self.path), kind.journal)

    def hire(self, count: int) -> None:
        for number in range(len(self.writers), len(self.writers) + count):
            said = self.beside / f"{self.kind.name}-{number}"
            writer = Writer(self.path, self.kind, number, said)
            self.writers.append(writer)
            self.present.append(writer)

    def at_work(self) -> bool:
        """Whether all have committed something; fails if one ended by itself."""
        ended = [writer.error for writer in self.present if writer.process.poll() is not None]
        assert not ended, f"{self.kind}: {ended}"
        return all(writer.last("done") >= 1 for writer in self.present)

    def end(self) -> None:
        for writer in self.writers:
            writer.kill()

    def problems(self) -> list[str]:
        """What is damaged, lost, half or never committed; opening it recovers the database."""
        with closing(sqlite3.connect(self.path)) as database:
            found = [row[0] for row in database.execute("pragma integrity_check")]
            found = [] if found == ["ok"] else found
            whole: dict[int, set[int]] = {writer.number: set() for writer in self.writers}
            rows = "select writer, number, count(distinct part) from ledger group by 1, 2"
            for writer, number, parts in database.execute(rows):
                if parts != sqlite_writer.ROWS:
                    found.append(f"half of transaction {number} of writer {writer}")
                whole[writer].add(number)
            for writer in self.writers:
                there, least = whole[writer.number], writer.last("done")
                if lost := set(range(1, least + 1)) - there:
                    found.append(f"writer {writer.number}: lost {sorted(lost)}")
                if strange := there - set(range(1, writer.last("begin") + 1)):
                    found.append(f"writer {writer.number}: never began {sorted(strange)}")
            ((counted,),) = database.execute("select rows from counted")
            ((rows_there,),) = database.execute("select count(*) from ledger")
            if counted != rows_there:
                found.append(f"{counted} rows were counted and {rows_there} are there")
        return found


@contextmanager
def workshops(folder: Path, beside: Path) -> Iterator[list[Workshop]]:
    with ExitStack() as stack:
        opened = []
        for kind in KINDS:
            workshop = Workshop(folder, beside, kind)
            stack.callback(workshop.end)
            opened.append(workshop)
        yield opened


def test_what_sqlite_committed_survives_killed_writers_and_daemons(
    root: Person, tmp_path: Path
) -> None:
    print(f"IMAGEFS_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    root.mount("--seal-after", "0")
    (root.images / "empty").mkdir()
    folder = root.instances / "empty/node"
    folder.mkdir()
    killed = caught = 0
    with workshops(folder, tmp_path) as opened:
        for number in range(ROUNDS):
            for workshop in opened:
                workshop.hire(WRITERS)
            for _ in range(KILLS):
                workshop = rng.choice(opened)
                wait_until(workshop.at_work, "all writers to commit", PATIENCE)
                victim = rng.choice(workshop.present)
                time.sleep(rng.uniform(0, 0.05))
                moment = time.monotonic_ns()
                victim.kill()
                workshop.present.remove(victim)
                killed, caught = killed + 1, caught + victim.in_flight(moment)
                workshop.hire(1)
            for workshop in opened:
                wait_until(workshop.at_work, "all writers to commit", PATIENCE)
            time.sleep(rng.uniform(0, 0.5))
            present = [writer for workshop in opened for writer in workshop.present]
            moment = time.monotonic_ns()
            root.kill_daemon()
            for writer in present:
                # Reading a mapped page that nobody serves any more is SIGBUS.
                assert writer.process.wait(timeout=PATIENCE) in {3, -signal.SIGBUS}, writer.error
            for workshop in opened:
                workshop.present.clear()
            in_flight = sum(writer.in_flight(moment) for writer in present)
            root.mount("--seal-after", "0")
            for workshop in opened:
                assert workshop.problems() == [], workshop.kind
            print(f"round {number}: {in_flight} of {len(opened)} databases within a transaction")
            assert in_flight > 0, "nothing was in flight: this proved nothing"
        done = {w.kind.name: sum(writer.last("done") for writer in w.writers) for w in opened}
        print(f"{caught} of {killed} killed writers within a transaction; committed: {done}")
        assert caught > 0, "no killed writer was within a transaction: this proved nothing"
        unmounted_in_order(root)
        root.mount()
        for workshop in opened:
            assert workshop.problems() == [], workshop.kind
