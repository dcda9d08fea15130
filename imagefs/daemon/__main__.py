"""`python -m imagefs.daemon SETTINGS REPORT_FD`: a daemon in the background.

SETTINGS is JSON. Once mounted, or when that failed, one JSON line goes to the descriptor
REPORT_FD, for the command that waits for it; the rest goes to the log.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys

import msgspec

from imagefs.control.address import log_path
from imagefs.daemon import log as logs
from imagefs.daemon.launch import Report
from imagefs.daemon.serve import serve
from imagefs.daemon.settings import MountSettings
from imagefs.errors import ImagefsError

log = logging.getLogger("imagefs.daemon")


def main() -> int:
    """Run to the end of the mount; returns the exit code."""
    settings = msgspec.json.decode(sys.argv[1], type=MountSettings)
    report = _Reporter(int(sys.argv[2]))
    faulthandler.enable()
    # The directory it was started from must be free to go.
    os.chdir("/")

    def ready() -> None:
        report.send(Report())

    try:
        serve(settings, ready, lambda: _log_to_file(settings))
    except ImagefsError as error:
        log.info("Not mounted, or not any more: %s", error)
        report.send(Report(type(error).__name__, str(error)))
        return error.exit_code
    except Exception as error:
        log.exception("The daemon failed")
        report.send(Report("ImagefsError", f"The daemon failed ({error!r}): its log says more"))
        return 1
    return 0


def _log_to_file(settings: MountSettings) -> None:
    logs.to_file(log_path(settings.store_path, settings.account), debug=settings.debug)


class _Reporter:
    """Sends one report."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, report: Report) -> None:
        """Tell the waiting command, unless it was told before."""
        if self._fd >= 0:
            os.write(self._fd, msgspec.json.encode(report))
            os.close(self._fd)
            self._fd = -1


if __name__ == "__main__":
    sys.exit(main())
