"""The programs that are at work when the daemon is killed: `python -m tests.crash.worker KIND`.

A worker takes jobs from standard input, each a line of JSON: a list with the journal to write and
what the kind of worker needs. It works until an operation fails, as all do once the daemon is gone,
answers with an empty line and takes the next job. What it was told is done it notes in the journal:
one JSON line before and after every operation, each written before the next step.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from imagefs.errors import ImagefsError
from tests.crash import copier, manager, syncer

Event = dict[str, Any]

KINDS: dict[str, Callable[..., Iterator[Event]]] = {
    "copier": lambda folder, seed: copier.operations(Path(folder), seed),
    "syncer": lambda folder, seed: syncer.operations(Path(folder), seed),
    "manager": manager.operations,
}


def work(kind: str, journal: str, *job: Any) -> None:
    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for event in KINDS[kind](*job):
            # One write: the reader sees whole lines only.
            os.write(descriptor, (json.dumps(event) + "\n").encode())
    except (OSError, ImagefsError) as error:
        code = error.errno
        end = {"path": "", "is": "end", "errno": code, "why": str(error)}
        os.write(descriptor, (json.dumps(end) + "\n").encode())
    finally:
        os.close(descriptor)


def main(kind: str) -> None:
    for line in sys.stdin:
        work(kind, *json.loads(line))
        print(flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
