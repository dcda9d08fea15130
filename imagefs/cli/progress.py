"""Showing that something goes on, once it has gone on for a second and only on a terminal."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

_PATIENCE = 1.0
_INTERVAL = 0.1
_TURNS = "|/-\\"


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Turn a spinner beside `what` while the block runs."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    spinner = threading.Thread(target=_spin, args=(what, done), daemon=True)
    spinner.start()
    try:
        yield
    finally:
        done.set()
        spinner.join()


def _spin(what: str, done: threading.Event) -> None:
    if done.wait(_PATIENCE):
        return
    turn = 0
    while not done.wait(_INTERVAL):
        turn += 1
        print(f"\r{what} {_TURNS[turn % len(_TURNS)]}", end="", file=sys.stderr, flush=True)
    print("\r\x1b[K", end="", file=sys.stderr, flush=True)
