"""Listings that go on while the directory changes, and what is certain about them.

A name that was there from beginning to end comes exactly once; one that nobody touched and that
was not there does not come. The order is each file system's own.
"""

import posixpath
from typing import NamedTuple

from tests.model.actor import Outcome
from tests.model.operation import Operation

END = b""


class Scan:
    """One open directory of one side."""

    def __init__(self, initial: set[bytes]) -> None:
        self.initial = initial
        self.touched: set[bytes] = set()
        self.seen: list[bytes] = []

    def take(self, names: list[bytes]) -> str | None:
        """What is wrong about these further names."""
        for name in names:
            if name == END:
                missing = self.initial - self.touched - set(self.seen)
                return f"{sorted(missing)} did not come" if missing else None
            if name not in self.initial | self.touched:
                return f"{name!r} came from nowhere"
            if name in self.seen and name not in self.touched:
                return f"{name!r} came twice"
            self.seen.append(name)
        return None


class _Key(NamedTuple):
    who: str
    slot: int


class Scans:
    """All of one world."""

    def __init__(self) -> None:
        self._open: dict[_Key, list[Scan]] = {}

    def touch(self, operation: Operation) -> None:
        """The names of this step may come and go from now on."""
        if operation.name in {"open", "close"}:
            self._open.pop(_Key(operation.who, operation.arguments[0]), None)
        names = {posixpath.basename(path.rstrip("/")).encode() for path in operation.paths}
        for scans in self._open.values():
            for scan in scans:
                scan.touched |= names

    def took(self, operation: Operation, host: Outcome, instance: Outcome) -> str | None:
        """What is wrong about an answer to getdents."""
        if host.error or instance.error:
            return None if host == instance else f"host {host}, instance {instance}"
        key = _Key(operation.who, operation.arguments[0])
        self._begin(key, host.value[0], instance.value[0])
        if key not in self._open:
            return None
        for side, scan, outcome in zip(
            ("host", "instance"), self._open[key], (host, instance), strict=True
        ):
            problem = scan.take(outcome.value[1])
            if problem:
                return f"{side}: {problem}"
        return None

    def _begin(self, key: _Key, host: list[bytes] | None, instance: list[bytes] | None) -> None:
        """Listings that begin have what the directory holds now; one of the two may go on, because
        it has come to a name that the other has not."""
        if host is not None and instance is not None:
            self._open[key] = [Scan(set(host)) for _ in range(2)]
        elif key in self._open:
            for side, initial in enumerate((host, instance)):
                if initial is not None:
                    self._open[key][side] = Scan(set(initial))

    def went(self, operation: Operation, host: Outcome, instance: Outcome) -> None:
        """An answer to seekdir: what lies behind that place is to come again."""
        key = _Key(operation.who, operation.arguments[0])
        if host.error or instance.error or key not in self._open:
            return
        for scan, outcome in zip(self._open[key], (host, instance), strict=True):
            del scan.seen[outcome.value :]
