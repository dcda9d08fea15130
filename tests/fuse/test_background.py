"""Work in the background: what must not wait for other work does not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import cast

import pytest
import trio

from imagefs.daemon import background, clock
from imagefs.errors import NotReady
from imagefs.fuse.operations import FuseOperations
from imagefs.fuse.steps import Steps
from imagefs.vfs import Vfs


class Slow:
    """Stands for a vfs that has something to do that takes until `gate` opens."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.started = trio.Event()
        self.looked = trio.Event()
        self.sealing = 0

    def next_due(self) -> int:
        return 0

    def tick(self) -> list[Callable[[], object]]:
        return [self._seal, self.looked.set] if self.started.is_set() else [self._seal]

    def _seal(self) -> None:
        self.sealing += 1
        self.started.set()
        if not self.gate.is_set():
            raise NotReady("seal", self.gate.wait)


async def test_images_are_taken_away_while_a_draft_is_sealed(nursery: trio.Nursery) -> None:
    slow, steps = Slow(), Steps()
    vfs = cast(Vfs, slow)
    operations = FuseOperations(vfs, steps)
    nursery.start_soon(background.run, vfs, operations, steps)
    try:
        with trio.fail_after(30):
            await slow.started.wait()
            await slow.looked.wait()
        assert steps.statistics().running == 1
        assert slow.sealing == 1, "what goes on is not begun again"
    finally:
        slow.gate.set()
    assert operations.failures == 0


class Regular:
    """Stands for a vfs that has something to do every 7 ms."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.early = 0
        self.ended = trio.Event()
        self._due = clock.now()

    def next_due(self) -> int:
        return self._due

    def tick(self) -> list[Callable[[], object]]:
        if clock.now() < self._due:
            self.early += 1
            return []
        self._due = clock.now() + 7_000_000
        self.rounds -= 1
        if not self.rounds:
            self.ended.set()
        return []


async def test_who_wakes_finds_something_due(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock goes in steps: who woke before the step would pause once more."""
    monkeypatch.setattr(background, "_PAUSE", 0.0)
    regular, steps = Regular(rounds=20), Steps()
    vfs = cast(Vfs, regular)
    nursery.start_soon(background.run, vfs, FuseOperations(vfs, steps), steps)
    with trio.fail_after(30):
        await regular.ended.wait()
    assert regular.early == 0
