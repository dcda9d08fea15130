"""A PostgreSQL server on a directory of its own, and clients that write down what was promised.

Servers listen on a Unix socket only and are started and ended by process number, so that no other
server of the machine is touched.
"""

import contextlib
import glob
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.acceptance.person import Person, Result, wait_until

BINARIES = Path(max(glob.glob("/usr/lib/postgresql/*/bin"), default="/usr/lib/postgresql/bin"))
PATIENCE = 120.0
CLIENTS = 4
BALANCES = """
    select coalesce(sum(abalance), 0) from pgbench_accounts union all
    select coalesce(sum(tbalance), 0) from pgbench_tellers union all
    select coalesce(sum(bbalance), 0) from pgbench_branches union all
    select coalesce(sum(delta), 0) from pgbench_history
"""
# Small segments and few of them, so that within seconds WAL files are made, filled and renamed,
# and checkpoints write tables and sync them.
SETTINGS = """
    listen_addresses = ''
    shared_buffers = 4MB
    max_wal_size = 8MB
    min_wal_size = 4MB
    checkpoint_timeout = 30s
    bgwriter_delay = 20ms
    autovacuum_naptime = 1s
    max_connections = 30
"""


@dataclass(frozen=True)
class Promise:
    """Of the numbers that a ledger client committed, those up to `least` must be there, and none
    beyond `most` may be."""

    client: int
    least: int
    most: int

    @property
    def in_flight(self) -> int:
        return self.most - self.least


class Server:
    """One cluster in the directory `data`; what is not data lies in `beside`."""

    def __init__(self, person: Person, data: Path, beside: Path) -> None:
        to_reach = {"PGHOST": str(beside), "PGUSER": "postgres", "PGDATABASE": "postgres"}
        self.person = replace(person, environment={**person.environment, **to_reach})
        self.data = data
        self.beside = beside
        self.log = beside / "server-said"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, program: str) -> list[str]:
        return [*self.person.prefix, str(BINARIES / program)]

    def run(self, program: str, *arguments: str | Path) -> Result:
        return self.person.run(BINARIES / program, *arguments, cwd=self.beside)

    def create(self, more: str = "") -> None:
        """initdb, with checksums of pages and `more` settings."""
        options = ("--data-checksums", "--auth=trust", "--username=postgres", "--no-locale")
        self.run("initdb", "--pgdata", self.data, *options, "--encoding=UTF8", "--wal-segsize=1")
        self.person.run("tee", "-a", self.data / "postgresql.conf", input=SETTINGS + more)

    def start(self) -> str:
        """Starts and waits until it answers; returns what it said meanwhile."""
        offset = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*self.command("postgres"), "-D", self.data, "-k", self.beside],
                env=dict(self.person.environment),
                cwd=self.beside,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: self.answers() or self.ended, "the server to start", PATIENCE)
        said = self.log.read_bytes()[offset:].decode()
        assert not self.ended, said
        return said

    def answers(self) -> bool:
        ready = [*self.command("pg_isready"), "--quiet"]
        env = dict(self.person.environment)
        return subprocess.run(ready, check=False, env=env).returncode == 0

    @property
    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> None:
        """Waits until the server and its children are gone; fails if they stay."""
        assert self.process is not None
        self.process.wait(timeout=PATIENCE)
        wait_until(lambda: not writers(self.log), "the server's children to end", PATIENCE)

    def stop(self) -> None:
        """In order: clients are thrown out, a checkpoint is made."""
        self.signal(signal.SIGINT)
        self.wait()

    def end(self) -> None:
        """At the end of a test that may have failed anywhere."""
        if not self.ended:
            self.signal(signal.SIGQUIT)
            self.wait()

    def sql(self, statement: str) -> list[str]:
        options = ("-XqAt", "-v", "ON_ERROR_STOP=1")
        return self.run("psql", *options, "-c", statement).stdout.splitlines()

    # -- work ---------------------------------------------------------------------------

    def fill(self) -> None:
        """The tables of pgbench and of the ledger clients."""
        self.run("pgbench", "--initialize", "--scale=1", "--quiet")
        self.sql(
            "create table ledger (client int, number int, half text, padding text);"
            "create index on ledger (client, number); create index on ledger (padding)"
        )

    # -- judgement ----------------------------------------------------------------------

    def balances(self) -> list[int]:
        """What accounts, tellers, branches and history say was paid; all the same."""
        return [int(line) for line in self.sql(BALANCES)]

    def check(self, *which: str) -> str:
        """The server's own checks of every table and index, of one database unless told otherwise;
        returns what was checked.

        Fails on any finding. Includes catalogs, and that every row is in its indexes.
        """
        options = ("--heapallindexed", "--parent-check", "--rootdescend", "--install-missing")
        result = self.run("pg_amcheck", "--verbose", *options, *which)
        heaps = len(re.findall("checking heap table", result.stderr))
        indexes = len(re.findall("checking btree index", result.stderr))
        assert heaps > 50, result.stderr
        assert indexes > 100, result.stderr
        return f"{heaps} tables and {indexes} indexes"

    def check_pages(self) -> str:
        """The checksums of all pages, of a server that is stopped."""
        said = self.run("pg_checksums", "--check", "--pgdata", self.data).stdout
        assert re.search(r"Bad checksums: +0\n", said), said
        counted = re.search(r"Blocks scanned: +(\d+)", said)
        assert counted, said
        return f"{counted[1]} pages"


def writers(log: Path) -> list[int]:
    """The processes whose standard error goes to this log: a server and its children."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(folder / "fd/2") == str(log):
                found.append(int(folder.name))
    return found


class Bench:
    """pgbench at work, with everything it says in files."""

    def __init__(self, server: Server, clients: int) -> None:
        self.said = server.beside / "bench-said"
        options = ["--client", str(clients), "--jobs=2", "--time=3600", "--no-vacuum"]
        with open(self.said, "wb") as said:
            self.process = subprocess.Popen(
                [*server.command("pgbench"), *options],
                env=dict(server.person.environment),
                cwd=server.beside,
                stdout=said,
                stderr=said,
            )

    def result(self) -> tuple[int, int]:
        """After the server's death: transactions acknowledged, and transactions under way then."""
        self.process.wait(timeout=PATIENCE)
        said = self.said.read_text()
        done = re.search(r"transactions actually processed: (\d+)", said)
        assert done, said
        return int(done[1]), len(set(re.findall(r"client (\d+) aborted in command", said)))

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def working(server: Server, firsts: Sequence[int]) -> Iterator[tuple[Bench, list["Ledger"]]]:
    """pgbench and one ledger client for each number given, at work; ended afterwards."""
    ledgers = [Ledger(server, client, first) for client, first in enumerate(firsts)]
    bench = Bench(server, CLIENTS)
    try:
        for ledger in ledgers:
            ledger.start()
        wait_until(lambda: all(ledger.at_work for ledger in ledgers), "commits", PATIENCE)
        yield bench, ledgers
    finally:
        bench.end()
        for ledger in ledgers:
            ledger.end()


class Ledger(threading.Thread):
    """A client that commits numbered transactions, one after the other, until its server is gone.

    Each inserts two rows in two statements. `sent` is the last number begun, `acknowledged` the last
    whose commit the server confirmed: what comes back after a crash must lie between the two.
    """

    def __init__(self, server: Server, client: int, start: int) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.first = self.sent = self.acknowledged = start
        command = [*server.command("psql"), "-XqAt", "-v", "ON_ERROR_STOP=1"]
        self.psql = subprocess.Popen(
            [*command],
            env=dict(server.person.environment),
            cwd=server.beside,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )

    def run(self) -> None:
        assert self.psql.stdin is not None
        assert self.psql.stdout is not None
        try:
            while True:
                number = self.sent + 1
                self.sent = number
                self.psql.stdin.write(self.transaction(number))
                if self.psql.stdout.readline() != f"{number}\n":
                    return
                self.acknowledged = number
        except BrokenPipeError:
            return

    def transaction(self, number: int) -> str:
        """Answered only if the commit was: the first error ends psql."""
        rows = [f"({self.client}, {number}, '{half}', md5('{number}'))" for half in "ab"]
        inserts = "".join(f"insert into ledger values {row};\n" for row in rows)
        return f"begin;\n{inserts}commit;\nselect {number};\n"

    @property
    def at_work(self) -> bool:
        """Whether some transactions were acknowledged; fails if none ever will be."""
        assert self.is_alive(), "a client ended at once"
        return self.acknowledged >= self.first + 20

    @property
    def promise(self) -> Promise:
        # In this order, because the client goes on meanwhile.
        least = self.acknowledged
        return Promise(self.client, least, self.sent)

    def numbered_anew(self, server: Server) -> Promise:
        """What a recovered server has is what it must have from now on."""
        last = f"select coalesce(max(number), 0) from ledger where client = {self.client}"
        number = int(server.sql(last)[0])
        return Promise(self.client, number, number)

    def end(self) -> None:
        """Ends psql and with it the thread."""
        self.psql.kill()
        self.join(PATIENCE)
        self.psql.wait()
        for pipe in (self.psql.stdin, self.psql.stdout):
            with contextlib.suppress(BrokenPipeError):
                assert pipe is not None
                pipe.close()


def problems(server: Server, promises: list[Promise]) -> list[str]:
    """Acknowledged transactions that are not there, halves, and rows nobody wrote."""
    found = []
    for promise in promises:
        where = f"from ledger where client = {promise.client}"
        rows = server.sql(f"select number, count(*), min(half), max(half) {where} group by 1")
        whole = {int(row.split("|")[0]) for row in rows if row.endswith("|2|a|b")}
        if len(whole) != len(rows):
            found.append(f"client {promise.client}: {len(rows) - len(whole)} halves")
        if lost := set(range(1, promise.least + 1)) - whole:
            found.append(f"client {promise.client}: lost {sorted(lost)}")
        if strange := whole - set(range(1, promise.most + 1)):
            found.append(f"client {promise.client}: nobody committed {sorted(strange)}")
    return found
