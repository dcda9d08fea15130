"""The state machine: hypothesis draws steps, the world does them on both sides."""

import random
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.model.choices import Choices
from tests.model.operation import LIFE, Operation
from tests.model.session import Session
from tests.model.steps import GROUPS, draw
from tests.model.steps import LIFE as LIVES
from tests.model.world import Disagreement, World

WHO = ("root", "root", "root", "alice", "alice", "bob")
STARTS = ("instance",) * 4 + ("draft",)
LIFES = tuple(name for name, times in LIVES.items() for _ in range(times))
NUMBERS = st.integers(0, 2**63 - 1)


def machine_in(session: Session) -> type[RuleBasedStateMachine]:
    """The machine's class, bound to one mount; every example gets an instance of its own."""

    class Model(RuleBasedStateMachine):
        world: World | None = None

        @initialize(start=st.sampled_from(STARTS))
        def begin(self, start: str) -> None:
            self.world = session.world(start)

        def step(self, number: int, group: str) -> None:
            assert self.world is not None
            # What hypothesis draws again and again is another step each time.
            rng = random.Random(f"{number} {len(self.world.done)}")
            who = rng.choice(WHO)
            name, arguments = draw(Choices(rng, self.world, who), group)
            self.done(Operation(who, name, arguments))

        def done(self, operation: Operation) -> None:
            assert self.world is not None
            try:
                self.world.perform(operation)
            except Disagreement as found:
                session.found = session.found or found
                self.end(finish=False)
                raise

        @rule(number=NUMBERS)
        def life(self, number: int) -> None:
            assert self.world is not None
            name = random.Random(f"{number} {len(self.world.done)}").choice(LIFES)
            self.done(Operation(LIFE, name, ()))

        def end(self, *, finish: bool) -> None:
            world, self.world = self.world, None
            if world is None:
                return
            try:
                session.leave(world, finish=finish)
            except Disagreement as found:
                session.found = session.found or found
                raise

        def teardown(self) -> None:
            self.end(finish=True)

    for group in GROUPS:
        setattr(Model, group, rule(number=NUMBERS)(_rule_of(group)))
    return Model


def _rule_of(group: str) -> Any:
    def step(self: Any, number: int) -> None:
        self.step(number, group)

    step.__name__ = group
    return step
