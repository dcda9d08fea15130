"""One mount and its actors, in which worlds come and go."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.model import base
from tests.model.actor import Actor
from tests.model.mount import Mount
from tests.model.operation import Operation, parse_script
from tests.model.users import USERS
from tests.model.world import BASE, Disagreement, World

ALARM = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b|Traceback")
# What a killed writer had stored already is taken into the index.
EXPECTED = re.compile(r".*bytes from offset [0-9]+ on are indexed.*\n")

SHORTENING = 120.0
"""Seconds to spend on a shorter script."""


class Session:
    """Use as a context manager; `operations` counts the steps that were done in it."""

    def __init__(self, home: Path) -> None:
        self.mount = Mount(home)
        self.actors = {name: Actor(*user) for name, user in USERS.items()}
        self.worlds = 0
        self.operations = 0
        self.found: Disagreement | None = None
        base.build(home / BASE)
        self.mount.publish(home / BASE, BASE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self.actors.values():
            actor.end()
        self.mount.end()

    def world(self, start: str) -> World:
        self.worlds += 1
        return World(self.mount, self.actors, start)

    def leave(self, world: World, *, finish: bool) -> None:
        """The end of a script; whatever happens, its trees are removed."""
        self.operations += len(world.done)
        try:
            if finish:
                world.finish()
                self.check_log(world)
        finally:
            world.remove()

    def replay(self, script: str) -> None:
        """Do a script that begins with the line `# instance` or `# draft`."""
        first, _, rest = script.strip().partition("\n")
        self.perform(first.removeprefix("# "), parse_script(rest.splitlines()))

    def perform(self, start: str, operations: Sequence[Operation]) -> None:
        """Do some steps in a world of their own, and compare everything at the end."""
        world = self.world(start)
        finish = False
        try:
            for operation in operations:
                world.perform(operation)
            finish = True
        finally:
            self.leave(world, finish=finish)

    def shortest(self, found: Disagreement) -> Disagreement:
        """The same or another disagreement with as few steps as can be found by leaving some out.

        Steps stand for themselves, so that a script without some of them is a script, too.
        """
        size = max(len(found.script) // 2, 1)
        end = time.monotonic() + SHORTENING
        while True:
            at = 0
            while at < len(found.script) and time.monotonic() < end:
                shorter = found.script[:at] + found.script[at + size :]
                again = self._disagreement(found.start, shorter)
                if again is None:
                    at += size
                else:
                    found = again
            if size == 1 or time.monotonic() > end:
                return found
            size //= 2

    def _disagreement(self, start: str, script: Sequence[Operation]) -> Disagreement | None:
        try:
            self.perform(start, script)
        except Disagreement as found:
            return found
        return None

    def check_log(self, world: World) -> None:
        """The daemon has nothing to complain about."""
        text = "".join(EXPECTED.split(self.mount.log()))
        if ALARM.search(text):
            world.fail(f"The daemon's log has\n{text[-5000:]}")
