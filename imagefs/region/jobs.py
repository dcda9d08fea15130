"""Waiting for work in other threads, with signs of life in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Final, TypeVar

PATIENCE: Final = 2.0
"""Seconds between two signs of life while nothing ends."""

_AT_ONCE: Final = 16

T = TypeVar("T")


def completed(jobs: Iterable[Future[T]], alive: Callable[[], None]) -> Iterator[Future[T]]:
    """Jobs as they end. `alive` is called in between, and ends the waiting by raising."""
    rest = set(jobs)
    while rest:
        done, rest = wait(rest, PATIENCE, FIRST_COMPLETED)
        alive()
        yield from done


def together(works: Sequence[Callable[[], T]]) -> list[T]:
    """The results of pieces of work that wait for one request each, done at once, in their order.

    Raises what the first of them raises, when all have ended.
    """
    if len(works) <= 1:
        return [work() for work in works]
    with ThreadPoolExecutor(min(len(works), _AT_ONCE), "together") as pool:
        jobs = [pool.submit(work) for work in works]
    return [job.result() for job in jobs]


@contextmanager
def beside(*works: Callable[[], object]) -> Iterator[None]:
    """Does these while the block runs, and ends when all have; what they raise comes first."""
    with ThreadPoolExecutor(len(works), "beside") as pool:
        jobs = [pool.submit(work) for work in works]
        try:
            yield
        finally:
            for job in jobs:
                job.result()
