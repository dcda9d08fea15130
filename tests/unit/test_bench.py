"""The arithmetic of the benchmark: turns, medians, ratios, targets."""

import pytest

from bench_rows.measure import IMAGEFS, Attempt, Figure, Outcome, Target, take_turns

LESS = Figure(1, "time", "s", (Target(0.5, "peer"),))
MORE = Figure(2, "speed", "1/s", (Target(1.5, "peer"), Target(10.0)), more_is_better=True)


def test_contenders_take_turns() -> None:
    order: list[str] = []

    def contender(name: str, value: float) -> Attempt:
        def attempt() -> dict[str, float]:
            order.append(name)
            return {"time": value}

        return attempt

    report = take_turns(
        (LESS,), {IMAGEFS: contender("own", 1.0), "peer": contender("peer", 4.0)}, 2
    )
    assert order == ["own", "peer", "own", "peer"]
    (outcome,) = report.outcomes
    assert outcome.values == {IMAGEFS: [1.0, 1.0], "peer": [4.0, 4.0]}
    assert outcome.ratio("peer") == 0.25


def test_a_peer_that_fails_is_left_out_by_name() -> None:
    def failing() -> dict[str, float]:
        raise RuntimeError("peer ended with 1")

    report = take_turns((LESS,), {IMAGEFS: lambda: {"time": 1.0}, "peer": failing}, 3)
    assert [(skipped.contender, skipped.reason) for skipped in report.skipped] == [
        ("peer", "peer ended with 1")
    ]
    assert report.outcomes[0].values == {IMAGEFS: [1.0] * 3}


def test_a_failure_of_imagefs_ends_the_run() -> None:
    def failing() -> dict[str, float]:
        raise RuntimeError("imagefs ended with 1")

    with pytest.raises(RuntimeError, match="imagefs ended"):
        take_turns((LESS,), {IMAGEFS: failing}, 1)


def test_targets_are_ratios_of_medians() -> None:
    outcome = Outcome(LESS, {IMAGEFS: [1.0, 9.0, 2.0], "peer": [4.0, 4.0, 100.0]})
    assert outcome.ratio("peer") == 0.5
    assert outcome.reached(LESS.targets[0]) is True
    assert Outcome(LESS, {IMAGEFS: [3.0], "peer": [4.0]}).reached(LESS.targets[0]) is False
    assert Outcome(LESS, {IMAGEFS: [3.0]}).reached(LESS.targets[0]) is None


def test_more_may_be_better_and_targets_absolute() -> None:
    outcome = Outcome(MORE, {IMAGEFS: [12.0], "peer": [10.0]})
    relative, absolute = MORE.targets
    assert outcome.reached(relative) is False
    assert outcome.reached(absolute) is True
