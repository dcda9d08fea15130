"""Starting a daemon in the background and waiting until it has mounted."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import msgspec

from imagefs.control.address import log_path
from imagefs.control.messages import Failed, raised
from imagefs.daemon.settings import MountSettings
from imagefs.errors import MountError


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a start went: the class and message of the error, if there was one."""

    error: str | None = None
    message: str = ""


def launch(settings: MountSettings, environment: Mapping[str, str]) -> None:
    """Start a daemon; returns once it has mounted, raises what kept it from that."""
    process, pipe = _spawn(settings, environment)
    with os.fdopen(pipe, "rb") as reading:
        text = reading.read()
    report = msgspec.json.decode(text, type=Report) if text else None
    if report is None:
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        log = log_path(settings.store_path, settings.account)
        raise MountError(f"The daemon ended at its start (exit code {code}); see {log}")
    if report.error is not None:
        os.waitpid(process, 0)
        raise raised(Failed(report.error, report.message))


def _spawn(settings: MountSettings, environment: Mapping[str, str]) -> tuple[int, int]:
    """The process, in a session of its own, and the pipe that its report comes through."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    # -P: what lies in the working directory must not be imported.
    command = [sys.executable, "-P", "-m", "imagefs.daemon"]
    command += [msgspec.json.encode(settings).decode(), str(writing)]
    nothing = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    try:
        process = os.posix_spawn(
            sys.executable, command, environment, file_actions=nothing, setsid=True
        )
    finally:
        os.close(writing)
    return process, reading
