"""The state machine: hypothesis draws steps, the world does them on both sides."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.model.choices import Choices
from tests.model.operation import LIFE, Operation
from tests.model.session import Session
from tests.model.steps import GROUPS
from tests.model.steps import LIFE as LIVES
from tests.model.world import Disagreement, World

WHO = ("root", "root", "root", "alice", "alice", "bob")
STARTS = ("instance",) * 4 + ("draft",)
LIFES = tuple(name for name, times in LIVES.items() for _ in range(times))
Data = st.DataObject


def machine_in(session: Session) -> type[RuleBasedStateMachine]:
    """The machine's class, bound to one mount; every example gets an instance of its own."""

    class Model(RuleBasedStateMachine):
        world: World | None = None

        @initialize(start=st.sampled_from(STARTS))
        def begin(self, start: str) -> None:
            self.world = session.world(start)

        def step(self, data: Data, group: str) -> None:
            assert self.world is not None
            choices = Choices(data, self.world)
            who = choices.of(WHO)
            ways = GROUPS[group]
            name = choices.of(tuple(ways))
            arguments = ways[name](choices)
            self.done(Operation(who, name.rstrip(), arguments))

        def done(self, operation: Operation) -> None:
            assert self.world is not None
            try:
                self.world.perform(operation)
            except Disagreement as found:
                session.found = session.found or found
                self.end(finish=False)
                raise

        @rule(data=st.data())
        def life(self, data: Data) -> None:
            self.done(Operation(LIFE, data.draw(st.sampled_from(LIFES)), ()))

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
        setattr(Model, group, rule(data=st.data())(_rule_of(group)))
    return Model


def _rule_of(group: str) -> Any:
    def step(self: Any, data: Data) -> None:
        self.step(data, group)

    step.__name__ = group
    return step
