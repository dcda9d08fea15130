"""Single flight: who asks for what another thread is getting waits for that thread's result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class _Flight(Generic[T]):
    """Work that is going on; `error` or `results` is set before `done`."""

    __slots__ = ("done", "error", "results")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.results: list[T] = []
        self.error: BaseException | None = None

    def result(self) -> T:
        self.done.wait()
        if self.error is not None:
            raise self.error
        return self.results[0]


class Flights(Generic[K, T]):
    """What is being got now, by key. Any thread; `get` blocks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[K, _Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    def __repr__(self) -> str:
        return f"<Flights: {len(self)}>"

    def get(self, key: K, work: Callable[[], T]) -> T:
        """The result of `work`, or of the same work that another thread has begun.

        What `work` raises is raised to everybody who waits. Nothing is kept when it is over, so
        `work` looks first whether its result is there already.
        """
        with self._lock:
            flight = self._flights.get(key)
            mine = flight is None
            if flight is None:
                flight = self._flights[key] = _Flight()
        if mine:
            try:
                flight.results.append(work())
            except BaseException as error:  # noqa: BLE001 - raised to everybody who waits
                flight.error = error
            with self._lock:
                del self._flights[key]
            flight.done.set()
        return flight.result()
