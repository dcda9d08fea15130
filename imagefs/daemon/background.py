"""Work that is due at some time: sealing drafts nobody writes to, clearing up.

Sleeps until something is due. Nothing due means sleeping until something changes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NoReturn

import trio

from imagefs.daemon import clock
from imagefs.errors import Busy, ImagefsError
from imagefs.fuse.operations import FuseOperations
from imagefs.fuse.steps import Steps
from imagefs.model import SECOND
from imagefs.vfs import Vfs
from imagefs.vfs.withdrawal import LOOK_EVERY

log = logging.getLogger(__name__)

_PAUSE = LOOK_EVERY / SECOND
"""Seconds at least between two looks, however much changes: a longer pause would keep what is
shared no longer readable."""

_TICK = 0.01
"""Seconds that the clock may stand still: it goes on with the kernel's timer. Who wakes before it
has reached what is due finds nothing to do, and pauses once more."""


async def run(vfs: Vfs, operations: FuseOperations, steps: Steps) -> NoReturn:
    """Do what becomes due, until cancelled. Bugs are counted and do not end the mount."""
    while True:
        try:
            await _wait_until_due(vfs, operations)
            async with trio.open_nursery() as meanwhile:
                meanwhile.start_soon(_watch, vfs, operations, steps)
                for step in vfs.tick():
                    await _do(step, operations, steps)
                meanwhile.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001 - logged and counted there
            operations.unexpected("in the background", error)
        await trio.sleep(_PAUSE)


async def _wait_until_due(vfs: Vfs, operations: FuseOperations) -> None:
    """Return when something is due, or something has changed."""
    due = vfs.next_due()
    seconds = float("inf") if due is None else max(0.0, (due - clock.now()) / SECOND + _TICK)
    with trio.move_on_after(seconds):
        await operations.next_change()


async def _watch(vfs: Vfs, operations: FuseOperations, steps: Steps) -> NoReturn:
    """Go on taking away what is shared no longer: sealing a large draft can take minutes."""
    while True:
        await trio.sleep(_PAUSE)
        for step in vfs.withdrawal.due():
            await _do(step, operations, steps)


async def _do(step: Callable[[], object], operations: FuseOperations, steps: Steps) -> None:
    try:
        await steps.run(step)
    except Busy as error:
        log.info("Work in the background waits: %s", error)
    except ImagefsError as error:
        log.warning("Work in the background failed, to be tried again: %s", error)
    except Exception as error:  # noqa: BLE001 - logged and counted there
        operations.unexpected("in the background", error)
