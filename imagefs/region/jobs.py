"""Waiting for work in other threads, with signs of life in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Final, TypeVar

PATIENCE: Final = 2.0
"""Seconds between two signs of life while nothing ends."""

T = TypeVar("T")


def completed(jobs: Iterable[Future[T]], alive: Callable[[], None]) -> Iterator[Future[T]]:
    """Jobs as they end. `alive` is called in between, and ends the waiting by raising."""
    rest = set(jobs)
    while rest:
        done, rest = wait(rest, PATIENCE, FIRST_COMPLETED)
        alive()
        yield from done
