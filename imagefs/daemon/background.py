"""Work that is due at some time: sealing drafts nobody writes to, clearing up.

Sleeps until something is due. Nothing due means sleeping until something changes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from functools import partial
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
    """Do what becomes due, until cancelled. Bugs are counted and do not end the mount.

    No step waits for another one: publishing a large draft in a region may take hours.
    """
    running: set[Hashable] = set()
    async with trio.open_nursery() as nursery:
        while True:
            try:
                await _wait_until_due(vfs, operations)
                for step in vfs.tick():
                    if _key(step) not in running:
                        running.add(_key(step))
                        nursery.start_soon(_do, step, operations, steps, running)
            except Exception as error:  # noqa: BLE001 - logged and counted there
                operations.unexpected("in the background", error)
            await trio.sleep(_PAUSE)


def _key(step: Callable[[], object]) -> Hashable:
    """What a step does to what: the same is not done twice at a time."""
    return (step.func, step.args) if isinstance(step, partial) else step


async def _wait_until_due(vfs: Vfs, operations: FuseOperations) -> None:
    """Return when something is due, or something has changed."""
    due = vfs.next_due()
    seconds = float("inf") if due is None else max(0.0, (due - clock.now()) / SECOND + _TICK)
    with trio.move_on_after(seconds):
        await operations.next_change()


async def _do(
    step: Callable[[], object], operations: FuseOperations, steps: Steps, running: set[Hashable]
) -> None:
    try:
        await steps.run(step)
    except Busy as error:
        log.info("Work in the background waits: %s", error)
    except ImagefsError as error:
        log.warning("Work in the background failed, to be tried again: %s", error)
    except Exception as error:  # noqa: BLE001 - logged and counted there
        operations.unexpected("in the background", error)
    finally:
        running.discard(_key(step))
