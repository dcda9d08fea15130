"""A case: something that a program does in a directory, and what it sees of it.

A case runs in a directory of its own on ext4 and on imagefs, and must see the same; what
differs on purpose is declared with the name of its row in docs/differences.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.posix.observe import Seen
from tests.posix.template import standard


class By(Enum):
    """Who runs a case: the owner of everything, an ordinary user whose directory it is, or
    root, letting others act before the eyes of a kernel that enforces rights."""

    ROOT = "root"
    USER = "user"
    CAST = "cast"


@dataclass(frozen=True)
class Difference:
    """What imagefs shows instead of what ext4 shows, and the row that says why."""

    row: str
    value: Any


@dataclass(frozen=True, eq=False)
class Case:
    act: Callable[[], Seen]
    by: tuple[By, ...]
    prepare: Callable[[], None]
    differs: Mapping[str, Difference] = field(default_factory=dict)
    private: bool = True
    privately: Mapping[str, Difference] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.act.__name__


CASES: list[Case] = []
OWNERS = (By.ROOT, By.USER)


def case(
    *by: By,
    prepare: Callable[[], None] = standard,
    differs: Mapping[str, Difference] | None = None,
    private: bool = True,
    privately: Mapping[str, Difference] | None = None,
) -> Callable[[Callable[[], Seen]], Callable[[], Seen]]:
    """Put a case on the list. `private` says that it makes sense in an ordinary user's own
    mount, too, and `privately` what differs there in addition."""

    def listed(act: Callable[[], Seen]) -> Callable[[], Seen]:
        known = {one.name for one in CASES}
        assert act.__name__ not in known, f"There are two cases {act.__name__}"
        CASES.append(Case(act, by or OWNERS, prepare, differs or {}, private, privately or {}))
        return act

    return listed
