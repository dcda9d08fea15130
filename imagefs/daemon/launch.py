"""Starting a daemon in the background and waiting until it has mounted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

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
    reading, writing = os.pipe()
    try:
        # -P: what lies in the working directory must not be imported.
        command = [sys.executable, "-P", "-m", "imagefs.daemon"]
        options: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
            "start_new_session": True,
            "pass_fds": (writing,),
            "cwd": "/",
            "env": dict(environment),
        }
        arguments = [msgspec.json.encode(settings).decode(), str(writing)]
        child = subprocess.Popen([*command, *arguments], **options)
    finally:
        os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    if not text:
        code = child.wait()
        log = log_path(settings.store_path, settings.account)
        raise MountError(f"The daemon ended at its start (exit code {code}); see {log}")
    report = msgspec.json.decode(text, type=Report)
    if report.error is not None:
        child.wait()
        raise raised(Failed(report.error, report.message))
