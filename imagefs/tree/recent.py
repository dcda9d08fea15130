"""A bounded memory of what was used recently.

Two generations instead of a strict order of use: a hit among the young costs one dict
lookup, and when the young weigh half the limit the old are dropped at once. What is used at
least once in between survives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps what was put or asked for recently, up to `limit` in total weight (by default
    every value weighs 1). Values are never None."""

    __slots__ = ("_half", "_old", "_weigh", "_weight", "_young")

    def __init__(self, limit: int, weigh: Callable[[V], int] | None = None) -> None:
        self._half = max(limit // 2, 1)
        self._weigh = weigh
        self._weight = 0
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __repr__(self) -> str:
        return f"<Recent {len(self._young)} young, {len(self._old)} old>"

    def get(self, key: K) -> V | None:
        """The value, None when it is not remembered."""
        value = self._young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Remember a value, in place of the one known under the key."""
        if self._weight >= self._half:
            self._old = self._young
            self._young = {}
            self._weight = 0
        self._young[key] = value
        self._weight += 1 if self._weigh is None else self._weigh(value)
