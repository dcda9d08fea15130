"""PostgreSQL in an instance: kill -9 of the daemon under load, and clones of a running database."""

import os
import random
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.acceptance.person import Person, wait_until
from tests.programs.ending import unmounted_in_order
from tests.programs.postgres import PATIENCE, Ledger, Promise, Server, problems, working
from tests.seed import SEED

pytestmark = [
    pytest.mark.mount,
    pytest.mark.root,
    # What a killed writer had stored already is taken into the index.
    pytest.mark.expected_log("bytes from offset [0-9]+ on are indexed"),
]

ROUNDS = int(os.environ.get("IMAGEFS_TEST_ROUNDS", "3"))
CLONES = 2
LEDGERS = 2
LONGEST = 1.5


class Place:
    """A mount with an instance, and a server whose cluster is in it.

    Root mounts for the user postgres; an ordinary user mounts for himself.
    """

    def __init__(self, person: Person) -> None:
        self.person = person
        self.servant = person
        self.options: tuple[str, ...] = ("--seal-after", "0")
        if person.is_root:
            become = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
            self.servant = replace(person, name="postgres", prefix=become)
            self.options += ("--allow-other",)
        self.mount()
        person.run("mkdir", person.images / "empty")
        person.run("mkdir", person.instances / "empty/db")
        self.server = self.server_on(person.instances / "empty/db/data", "server")

    def mount(self) -> None:
        self.person.mount(*self.options)

    def server_on(self, data: Path, name: str) -> Server:
        beside = self.person.home / name
        beside.mkdir()
        shutil.chown(beside, self.servant.name)
        return Server(self.servant, data, beside)

    def fill(self) -> None:
        self.person.run("mkdir", "-m", "700", self.server.data)
        if self.person.is_root:
            shutil.chown(self.server.data, self.servant.name)
        # One syncs its WAL with fdatasync, as is usual here; the other opens it with O_DSYNC.
        self.server.create("" if self.person.is_root else "wal_sync_method = open_datasync\n")
        self.server.start()
        self.server.fill()


@pytest.fixture
def place(anyone: Person) -> Iterator[Place]:
    place = Place(anyone)
    try:
        yield place
    finally:
        place.server.end()


def test_a_database_recovers_after_the_daemon_was_killed(place: Place) -> None:
    server = place.server
    place.fill()
    print(f"IMAGEFS_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    paid, promises = 0, [Promise(client, 0, 0) for client in range(LEDGERS)]
    for number in range(ROUNDS):
        with working(server, [promise.most for promise in promises]) as (bench, ledgers):
            time.sleep(rng.uniform(0, LONGEST))
            place.person.kill_daemon()
            done, under_way = bench.result()
            for ledger in ledgers:
                ledger.join(PATIENCE)
        server.end()
        place.mount()
        said = server.start()

        assert "automatic recovery in progress" in said
        assert problems(server, [ledger.promise for ledger in ledgers]) == []
        before, paid = paid, int(server.sql("select count(*) from pgbench_history")[0])
        assert before + done <= paid <= before + done + under_way
        assert len(set(server.balances())) == 1
        in_flight = [ledger.promise.in_flight for ledger in ledgers]
        promises = [ledger.numbered_anew(server) for ledger in ledgers]
        print(
            f"round {number}: pgbench was promised {done} transactions, with {under_way} in flight,"
            f" the ledger {sum(promise.most for promise in promises)}, with {sum(in_flight)};"
            f" checked {server.check()}"
        )
        assert under_way + sum(in_flight) > 0, "nothing was in flight: this proved nothing"
    print(f"all databases: checked {server.check('--all')}")
    server.stop()
    print(f"checksums of {server.check_pages()}")
    unmounted_in_order(place.person)
    place.mount()
    server.start()
    assert problems(server, promises) == []
    server.stop()


def test_a_running_database_is_cloned(root: Person) -> None:
    """Committed under load: a server on the clone finds what was committed before, and the
    server on the original does not notice."""
    with ExitStack() as stack:
        place = Place(root)
        server = place.server
        stack.callback(server.end)
        place.fill()
        bench, ledgers = stack.enter_context(working(server, [0] * LEDGERS))
        for number in range(CLONES):
            clone = clone_running(place, ledgers, f"snapshot-{number}")
            stack.callback(clone.end)
            clone.run("pgbench", "--transactions=50", "--no-vacuum")
            assert len(set(clone.balances())) == 1
            print(f"clone {number}: checked {clone.check()}")
            clone.stop()
            print(f"clone {number}: checksums of {clone.check_pages()}")
        begun = [ledger.sent for ledger in ledgers]
        wait_until(lambda: went_on(ledgers, begun), "commits after the clones", PATIENCE)
        assert bench.process.poll() is None
        assert not re.search(
            "PANIC|ERROR|automatic recovery|was terminated", server.log.read_text()
        )
        bench.end()
        for ledger in ledgers:
            ledger.end()
        assert problems(server, [ledger.promise for ledger in ledgers]) == []
        assert len(set(server.balances())) == 1
        print(f"original: checked {server.check()}")
        server.stop()
        server.check_pages()
        unmounted_in_order(root)


def clone_running(place: Place, ledgers: list[Ledger], name: str) -> Server:
    """A server on an instance of a new image of the running one, recovered and compared."""
    person = place.person
    person.run("sync")
    before = [ledger.promise for ledger in ledgers]
    person.imagefs("commit", "empty/db", name)
    after = [ledger.promise for ledger in ledgers]
    person.run("mkdir", person.instances / name / "db")
    data = person.instances / name / "db/data"
    # It names the original's process, which is alive: as in any copy of a running cluster.
    (data / "postmaster.pid").unlink()
    clone = place.server_on(data, name)
    assert "automatic recovery in progress" in clone.start()
    promised = [Promise(a.client, a.least, b.most) for a, b in zip(before, after, strict=True)]
    assert problems(clone, promised) == []
    assert len(set(clone.balances())) == 1
    meanwhile = [promise.in_flight for promise in promised]
    print(f"{name}: {sum(meanwhile)} ledger transactions were begun and not acknowledged by then")
    assert sum(meanwhile) > 0, "nothing was in flight: this proved nothing"
    return clone


def went_on(ledgers: list[Ledger], begun: list[int]) -> bool:
    return all(ledger.acknowledged > number for ledger, number in zip(ledgers, begun, strict=True))
