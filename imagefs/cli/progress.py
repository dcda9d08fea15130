"""Showing that something goes on, once it has gone on for a second and only on a terminal."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Self

from imagefs.cli import text

_PATIENCE = 1.0
_INTERVAL = 0.1
_TURNS = "|/-\\"
_CLEAR = "\r\x1b[K"


class Waiting:
    """Turns a spinner beside `what` while the block runs; the work itself need do nothing."""

    def __init__(self, what: str) -> None:
        self.visible = sys.stderr.isatty()
        self._what = text.safe(what)
        self._done = threading.Event()
        self._spinner = threading.Thread(target=self._spin, daemon=True)

    def __enter__(self) -> Self:
        if self.visible:
            self._spinner.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.visible:
            self._done.set()
            self._spinner.join()

    def told(self) -> str:
        """What is shown beside the spinner."""
        return self._what

    def _spin(self) -> None:
        if self._done.wait(_PATIENCE):
            return
        turn = 0
        while not self._done.wait(_INTERVAL):
            turn = (turn + 1) % len(_TURNS)
            print(f"{_CLEAR}{_TURNS[turn]} {self.told()}", end="", file=sys.stderr, flush=True)
        print(_CLEAR, end="", file=sys.stderr, flush=True)


class Counter(Waiting):
    """The same with the entries and bytes done so far."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self._entries = 0
        self._bytes = 0

    def show(self, entries: int, size: int) -> None:
        """So much is done."""
        self._entries, self._bytes = entries, size

    def told(self) -> str:
        return f"{self._what}: {text.count(self._entries)} entries, {text.size(self._bytes)}"
