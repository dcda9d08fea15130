"""What the command says on standard error: failures, and what is logged while it works itself.

A daemon has a log; the command has standard error, where a failure is one line. So warnings that
are logged while it works on a store as a daemon would are held until it has come to its end: one
that succeeds tells them then, one that fails says why it failed, and the warnings only with --debug.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from imagefs.cli import text

if TYPE_CHECKING:
    import logging

_MOST = 1000
"""Warnings that are held; beyond, they are told at once."""

_handlers: list[logging.Handler] = []
_held: list[str] = []


def hold() -> None:
    """Hold warnings from now on. To be called before work on a store; again does nothing."""
    if _handlers:
        return
    import logging

    class Holding(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            _held.append(record.getMessage())
            if len(_held) >= _MOST:
                tell()

    _handlers.append(Holding(logging.WARNING))
    logging.getLogger().addHandler(_handlers[0])


def tell() -> None:
    """Tell what is held, a line each."""
    for message in _held:
        say(message)
    _held.clear()


def fail(message: str, *, debug: bool) -> None:
    """Say in one line why something failed; to debug also what was logged, and where the error
    that is being handled happened."""
    if debug:
        import traceback

        tell()
        traceback.print_exc()
    _held.clear()
    say(message)


def say(message: str) -> None:
    """Say something that is usually one line."""
    lines = map(text.safe, message.splitlines() or [""])
    print("imagefs: " + "\n".join(lines), file=sys.stderr)


def end() -> None:
    """Tell what is still held, and hold no more."""
    tell()
    if _handlers:
        import logging

        logging.getLogger().removeHandler(_handlers.pop())
