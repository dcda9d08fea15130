"""A report for people and for programs."""

import json
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench_rows.measure import IMAGEFS, Outcome, Report, Target

REACHED = {True: "[green]yes[/]", False: "[red]no[/]", None: "-"}


def show(report: Report, facts: dict[str, str], console: Console) -> None:
    """Prints the facts of the machine, a table of medians and ratios, and who was not there."""
    for name, fact in facts.items():
        console.print(f"{name + ':':<12} {fact}", highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("work, contender", no_wrap=True)
    for heading in ("median", "least", "most", "imagefs is", "target", "reached"):
        table.add_column(heading, justify="right", no_wrap=True)
    for outcome in report.outcomes:
        add_rows(table, outcome)
        table.add_section()
    console.print(table)
    for skipped in report.skipped:
        console.print(f"row {skipped.row}: without {skipped.contender}: {skipped.reason}")


def add_rows(table: Table, outcome: Outcome) -> None:
    figure = outcome.figure
    table.add_row(str(figure.row), f"[bold]{figure.name}[/], {figure.unit}")
    for contender, values in outcome.values.items():
        target = target_for(outcome, contender)
        ratio = outcome.ratio(contender) if contender != IMAGEFS else None
        table.add_row(
            "",
            f"  {contender}",
            number_text(outcome.median(contender) or 0.0),
            number_text(min(values)),
            number_text(max(values)),
            f"x {ratio:.2f}" if ratio is not None else "",
            target_text(outcome, target),
            REACHED[outcome.reached(target)] if target else "",
        )


def target_for(outcome: Outcome, contender: str) -> Target | None:
    """The target that is about this contender; an absolute one is about imagefs."""
    wanted = None if contender == IMAGEFS else contender
    return next((target for target in outcome.figure.targets if target.peer == wanted), None)


def target_text(outcome: Outcome, target: Target | None) -> str:
    if target is None:
        return ""
    sign = ">=" if outcome.figure.more_is_better else "<="
    return f"{sign} {target.limit:g}" + (" x" if target.peer else "")


def number_text(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 1 else f"{value:.3f}"


def save(report: Report, facts: dict[str, str], path: Path) -> None:
    """Writes the same as JSON."""
    data = {
        "machine": facts,
        "rows": [as_data(outcome) for outcome in report.outcomes],
        "skipped": [vars(skipped) for skipped in report.skipped],
    }
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def as_data(outcome: Outcome) -> dict[str, Any]:
    peers = [name for name in outcome.values if name != IMAGEFS]
    return {
        "row": outcome.figure.row,
        "work": outcome.figure.name,
        "unit": outcome.figure.unit,
        "median": {name: outcome.median(name) for name in outcome.values},
        "values": outcome.values,
        "imagefs_to_peer": {name: outcome.ratio(name) for name in peers},
        "targets": [
            {"limit": target.limit, "peer": target.peer, "reached": outcome.reached(target)}
            for target in outcome.figure.targets
        ],
    }
