"""The daemon's log: STORE/log/ACCOUNT.log, a few files of limited size.

Standard error goes to the same file, for what does not come through `logging`: the
interpreter's last words, stack dumps, libfuse.
"""

from __future__ import annotations

import logging
import os
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

MAX_BYTES = 1024 * 1024
KEPT = 2
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _LogFile(RotatingFileHandler):
    """A rotating log that takes standard error along."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=MAX_BYTES, backupCount=KEPT, encoding="utf-8")
        self._follow()

    def doRollover(self) -> None:  # noqa: N802 - logging's own name
        super().doRollover()
        self._follow()

    def _follow(self) -> None:
        if self.stream is not None:
            os.dup2(self.stream.fileno(), sys.stderr.fileno())


def to_file(path: Path, *, debug: bool = False) -> None:
    """Log to a file from now on."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    _install(_LogFile(path), debug)


def to_stderr(*, debug: bool = False) -> None:
    """Log to standard error, for a daemon in the foreground."""
    _install(logging.StreamHandler(), debug)


def _install(handler: logging.Handler, debug: bool) -> None:
    handler.setFormatter(logging.Formatter(_FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else logging.INFO)
