"""Options that are amounts: numbers from 0 to what makes sense."""

from __future__ import annotations

import math
from typing import Any

import click


class Amount(click.FloatRange):
    """A number of seconds, days and the like, `most` at the most."""

    name = "number"

    def __init__(self, most: float) -> None:
        super().__init__(min=0, max=most)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = super().convert(value, param, ctx)
        if math.isnan(number):  # neither smaller nor larger than any bound
            self.fail(f"{value!r} is not a valid number.", param, ctx)
        return float(number)
