"""A program that commits numbered transactions to an SQLite database and says when each is safe.

It prints "begin N" within transaction N and "done N" after its commit returned, each
with the time. A transaction adds three rows of this writer and counts them in a row that all writers share, so that halves and
lost updates show. It goes on until it is killed or the database fails.
"""

import os
import sqlite3
import sys
import time

ROWS = 3
BUSY_SECONDS = 120
PAUSE = 0.03
SCHEMA = """
    create table if not exists ledger (writer int, number int, part int, padding blob);
    create index if not exists padded on ledger (padding);
    create table if not exists counted (id integer primary key, rows int);
    insert or ignore into counted values (1, 0);
"""


def connect(path: str, journal: str, mapped: int) -> sqlite3.Connection:
    """A database with this journal mode, read through a mapping of up to `mapped` bytes."""
    database = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)
    database.execute(f"pragma mmap_size = {mapped}")
    database.execute(f"pragma journal_mode = {journal}")
    database.execute("pragma synchronous = full")
    # A small cache, so that pages of a transaction go to the file before its commit.
    database.execute("pragma cache_size = 10")
    database.execute("pragma wal_autocheckpoint = 50")
    return database


def create(path: str, journal: str) -> None:
    database = connect(path, journal, 0)
    database.executescript(SCHEMA)
    database.close()


def say(word: str, number: int) -> None:
    # One write: a reader never sees half a line of a killed writer.
    os.write(sys.stdout.fileno(), f"{word} {number} {time.monotonic_ns()}\n".encode())


def transact(database: sqlite3.Connection, writer: int, number: int) -> None:
    database.execute("begin immediate")
    # Said with the lock held: whoever waits for it has nothing in flight yet.
    say("begin", number)
    for part in range(ROWS):
        row = (writer, number, part, os.urandom(700))
        database.execute("insert into ledger values (?, ?, ?, ?)", row)
    database.execute("update counted set rows = rows + ?", (ROWS,))
    if number % 7 == 0:
        # Pages become free and are used again.
        older = "update ledger set padding = null where writer = ? and number between ? and ?"
        database.execute(older, (writer, number - 7, number - 3))
    database.execute("commit")


def main(path: str, journal: str, mapped: str, writer: str) -> None:
    number = 0
    try:
        database = connect(path, journal, int(mapped))
        while True:
            number += 1
            transact(database, int(writer), number)
            say("done", number)
            # Who waits for SQLite's lock polls for it: without a pause nobody else ever gets it.
            time.sleep(PAUSE)
    except (sqlite3.Error, OSError) as error:
        print(f"failed {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main(*sys.argv[1:])
