"""A process of one user that does every step on both trees, one after the other."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.model.side import Facts

ROOT = Path(__file__).resolve().parent.parent.parent
SLOTTED = frozenset({
    "open", "read", "pread", "preadv", "write", "pwrite", "pwritev", "lseek", "ftruncate",
    "fsync", "fdatasync", "copy_range", "link_open", "look", "mwrite",
})  # fmt: skip
"""Methods whose first argument is an open file: its attributes are part of the outcome."""


class Outcome(NamedTuple):
    """What one tree answered: the name of an errno, or a value and the file as it is then."""

    error: str | None
    value: Any = None
    facts: Facts | None = None


class Trouble(NamedTuple):
    """The process could not do what it was asked: a mistake in the tests."""

    traceback: str


class ActorFailed(Exception):
    """The other end has Trouble."""


class Actor:
    """The other end: starts the process and asks it."""

    def __init__(self, uid: int, gid: int, groups: list[int]) -> None:
        user = f"{uid}:{gid}:{','.join(map(str, groups))}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.model.worker", user],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, *request: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        pickle.dump(request, self.process.stdin)
        self.process.stdin.flush()
        answer = pickle.load(self.process.stdout)
        if isinstance(answer, Trouble):
            raise ActorFailed(f"{request}\n{answer.traceback}")
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
