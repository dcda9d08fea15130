"""What a measurement is, and how contenders take turns."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

IMAGEFS = "imagefs"

Attempt = Callable[[], Mapping[str, float]]
"""One turn of one contender: the figures it measured, by the name of the figure."""


@dataclass(frozen=True)
class Target:
    """What imagefs is to reach: so many times the peer's figure, or a figure of its own."""

    limit: float
    peer: str | None = None


@dataclass(frozen=True)
class Figure:
    """One thing that a row measures."""

    row: int
    name: str
    unit: str
    targets: tuple[Target, ...] = ()
    more_is_better: bool = False


@dataclass
class Outcome:
    """All values of one figure, by contender."""

    figure: Figure
    values: dict[str, list[float]] = field(default_factory=dict)

    def median(self, contender: str) -> float | None:
        values = self.values.get(contender)
        return median(values) if values else None

    def ratio(self, peer: str) -> float | None:
        """The figure of imagefs as a multiple of the peer's."""
        own, other = self.median(IMAGEFS), self.median(peer)
        return own / other if own is not None and other else None

    def reached(self, target: Target) -> bool | None:
        """Whether the target holds; None when the peer was not there to compare with."""
        value = self.median(IMAGEFS) if target.peer is None else self.ratio(target.peer)
        if value is None:
            return None
        return value >= target.limit if self.figure.more_is_better else value <= target.limit


@dataclass(frozen=True)
class Skipped:
    """A contender that could not take part, and why."""

    row: int
    contender: str
    reason: str


@dataclass
class Report:
    """What a run found out."""

    outcomes: list[Outcome] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def take_turns(
    figures: tuple[Figure, ...], contenders: Mapping[str, Attempt], repeats: int
) -> Report:
    """Lets every contender try `repeats` times, in turns; a peer that fails is out."""
    outcomes = {figure.name: Outcome(figure) for figure in figures}
    failed: dict[str, str] = {}
    for _ in range(repeats):
        for name, attempt in contenders.items():
            if name in failed:
                continue
            try:
                values = attempt()
            except RuntimeError as error:
                if name == IMAGEFS:
                    raise
                failed[name] = str(error)
                continue
            for figure, value in values.items():
                outcomes[figure].values.setdefault(name, []).append(value)
    return Report(
        [outcome for outcome in outcomes.values() if outcome.values],
        [Skipped(figures[0].row, name, reason) for name, reason in failed.items()],
    )


class Watch:
    """Holds the seconds that a `with stopwatch()` block took, once it is over."""

    seconds = 0.0


@contextmanager
def stopwatch() -> Iterator[Watch]:
    watch = Watch()
    start = perf_counter()
    yield watch
    watch.seconds = perf_counter() - start
