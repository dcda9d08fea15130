"""What a daemon tells about itself: `imagefs status`, and the log on SIGUSR1."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import trio

import imagefs
from imagefs.daemon.settings import MountSettings
from imagefs.fuse.operations import FuseOperations
from imagefs.fuse.session import Session
from imagefs.vfs import Vfs
from imagefs.vfs.regions import LOCAL

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Status:
    """Collects figures from the parts of one daemon."""

    def __init__(
        self, settings: MountSettings, vfs: Vfs, operations: FuseOperations, session: Session
    ) -> None:
        self._settings = settings
        self._vfs = vfs
        self._operations = operations
        self._session = session
        self._started = time.time_ns()

    def report(self) -> dict[str, Any]:
        """Plain values only: this travels to the command."""
        regions = self._vfs.lifecycle.regions
        return {
            "account": self._settings.account,
            "store": self._settings.store,
            "mountpoint": self._settings.mountpoint,
            "pid": os.getpid(),
            "version": imagefs.__version__,
            "started": self._started,
            "memory_bytes": _resident_bytes(),
            "cpu_seconds": round(time.process_time(), 2),
            "home": regions.home or LOCAL,
            "regions": [msgspec.structs.asdict(region) for region in regions.all()],
            **msgspec.structs.asdict(self._vfs.statistics()),
            "unexpected_errors": self._operations.failures,
            "work": repr(self._operations.steps),
            "polling": repr(self._session.polling),
            "vfs": repr(self._vfs),
        }

    def stacks(self) -> str:
        """The figures and every task's stack, for the log."""
        lines = [f"{name}: {value}" for name, value in self.report().items()]
        return "\n".join([*lines, *_task_stacks()])


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def _task_stacks() -> Iterator[str]:
    root = trio.lowlevel.current_root_task()
    waiting = [root] if root is not None else []
    while waiting:
        task = waiting.pop()
        yield f"Task {task.name}"
        for frame, line in task.iter_await_frames():
            yield "".join(traceback.format_list(traceback.StackSummary.extract([(frame, line)])))
        for nursery in task.child_nurseries:
            waiting.extend(nursery.child_tasks)
