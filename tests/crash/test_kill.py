"""kill -9 of the daemon in the middle of work: nothing that returned is lost."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from imagefs.control.messages import Remove
from tests.acceptance import samples
from tests.acceptance.manifest import assert_equal
from tests.acceptance.person import Person, wait_until
from tests.crash.deeds import Deeds
from tests.crash.journal import Journal
from tests.crash.manager import FILES, call
from tests.seed import SEED

pytestmark = [
    pytest.mark.mount,
    pytest.mark.root,
    # What a killed writer had stored already is taken into the index; a torn record is cut.
    pytest.mark.expected_log("bytes from offset [0-9]+ on are indexed|torn bytes behind them"),
]

KILLS = int(os.environ.get("IMAGEFS_TEST_KILLS", "100"))
VERIFIED = 10
"""Every so many kills, `imagefs verify` looks at everything."""

ENOUGH = 60
"""With so many kills, each kind of deed must have been struck."""

LONGEST = 0.4
AIMED = 0.7
"""How many of the kills wait until the manager has begun something, and strike soon after."""

SHORT = 0.02
CHECKOUT = Path(__file__).resolve().parent.parent.parent
GONE = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO}
KINDS = tuple(FILES)


class Worker:
    """A program at work (see tests.crash.worker); started again after it was killed itself."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.journal = Path()
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.crash.worker", self.kind]
        self.process = subprocess.Popen(
            command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def give(self, journal: Path, *job: Any) -> None:
        self.journal = journal
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([str(journal), *map(str_or_number, job)]) + "\n")
        self.process.stdin.flush()

    def is_at_work(self) -> bool:
        noted = self.journal.read_text() if self.journal.exists() else ""
        assert '"is": "end"' not in noted, noted
        return noted.count("\n") >= 2

    def lines(self) -> list[str]:
        """What was noted, once the worker met the crash; the last line may be torn if the
        worker was killed, too."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "\n"
        return self.journal.read_text().splitlines()

    def kill(self) -> list[str]:
        self.end()
        self.start()
        text = self.journal.read_text()
        return text[: text.rindex("\n") + 1].splitlines()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def str_or_number(value: Any) -> Any:
    return value if isinstance(value, int) else str(value)


class Crew:
    """Two copiers, one in a draft and one in an instance, a syncer, and a manager."""

    def __init__(self, root: Person, folder: Path) -> None:
        self.root = root
        self.folder = folder
        self.source = folder / "import"
        self.source.mkdir()
        self.drafting, self.changing = Worker("copier"), Worker("copier")
        self.syncing, self.managing = Worker("syncer"), Worker("manager")
        self.workers = (self.drafting, self.changing, self.syncing, self.managing)
        self.kind = ""
        self.daemons: list[int] = []

    def begin(self, seed: int) -> None:
        """Everybody gets to work, the manager on what is next."""
        root, noted = self.root, self.folder / "journals"
        noted.mkdir(exist_ok=True)
        self.kind = KINDS[seed % len(KINDS)]
        # Found now, because looking takes longer than many a deed.
        self.daemons = root.daemons()
        assert self.daemons
        (root.images / f"draft-{seed}").mkdir()
        for kind in ("node", "synced"):
            (root.instances / f"base/{kind}-{seed}").mkdir()
        self.drafting.give(noted / f"draft-{seed}", root.images / f"draft-{seed}", seed)
        self.changing.give(noted / f"node-{seed}", root.instances / f"base/node-{seed}", seed)
        synced = root.instances / f"base/synced-{seed}/files"
        self.syncing.give(noted / f"synced-{seed}", synced, seed)
        place = (root.cloud, root.store, self.source)
        self.managing.give(noted / f"managed-{seed}", self.kind, *place, seed)
        for worker in self.workers:
            wait_until(worker.is_at_work, f"{worker.kind} to get going", 60)

    def is_doing_it(self) -> bool:
        """Whether the manager's deed has begun and not returned."""
        return '"is": "begun"' in self.managing.journal.read_text().rsplit("\n", 2)[-2]

    def crash(self, rng: random.Random) -> tuple[list[Journal], Deeds]:
        """The daemon dies, and with it the manager where that is what stores an import."""
        importer_too = self.kind == "import" and rng.random() < 0.7
        managed: list[str] = []
        if importer_too and rng.random() < 0.5:
            managed = self.managing.kill()
        for pid in self.daemons:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.root.daemons(), "the killed daemon to be gone")
        if importer_too and not managed:
            managed = self.managing.kill()
        journals = [
            Journal.read(worker.lines()) for worker in (self.drafting, self.changing, self.syncing)
        ]
        assert all(journal.ended in GONE for journal in journals)
        return journals, Deeds.read(managed if importer_too else self.managing.lines())

    def clear(self, seed: int) -> None:
        """What was checked is deleted: verify goes on to look at it, nobody else does."""
        for reference in (f"draft-{seed}", f"base/node-{seed}", f"base/synced-{seed}"):
            call(self.root.store, Remove(reference))


@pytest.fixture
def crew(root: Person, tmp_path: Path) -> Iterator[Crew]:
    with ExitStack() as ending:
        crew = Crew(root, tmp_path)
        for worker in crew.workers:
            ending.callback(worker.end)
        yield crew


def seeds() -> range:
    print(f"IMAGEFS_TEST_SEED={SEED}")
    return range(SEED, SEED + KILLS)


def test_nothing_that_returned_is_lost(root: Person, crew: Crew, tmp_path: Path) -> None:
    """A hundred times, at random moments, while files are written and synced in a draft and in
    instances, and whole images are made, sealed, moved, reset, removed and imported."""
    source = tmp_path / "source"
    samples.build(source, privileged=True)
    root.mount("--seal-after", "0")
    root.imagefs("import", source, "base")
    (root.instances / "base/untouched").mkdir()
    untouched = root.manifest(root.instances / "base/untouched")
    digest = root.digest("base")
    struck: Counter[str] = Counter()
    for number, seed in enumerate(seeds(), 1):
        rng = random.Random(seed)
        crew.begin(seed)
        time.sleep(rng.uniform(0, LONGEST))
        if rng.random() < AIMED:
            wait_until(crew.is_doing_it, "the manager to begin", 60)
            time.sleep(rng.uniform(0, SHORT))
        journals, deeds = crew.crash(rng)
        root.mount("--seal-after", "0")

        for name, journal in zip(("draft", "instance", "fsync"), journals, strict=True):
            assert journal.problems() == [], (seed, name)
            struck[name] += journal.under_way
        assert deeds.problems(root.cloud, root.store) == [], seed
        struck.update(deed.kind for deed in deeds.under_way)
        caught = sum(journal.under_way for journal in journals) + len(deeds.under_way)
        struck["kills with something under way"] += caught > 0
        assert os.getxattr(root.images / f"draft-{seed}", "user.imagefs.state") == b"draft"
        if number % VERIFIED == 0:
            root.verify()
        crew.clear(seed)
    assert root.digest("base") == digest
    assert_equal(untouched, root.manifest(root.instances / "base/untouched"))
    print(f"{KILLS} kills, under way were: {dict(sorted(struck.items()))}")
    assert struck["kills with something under way"] > KILLS * 0.9, "this proved nothing"
    if KILLS >= ENOUGH:
        assert not {"draft", "instance", "fsync", *KINDS} - set(struck), "never struck"
