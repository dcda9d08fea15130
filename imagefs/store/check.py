"""Reading objects to see whether they are good: each once, however often it is asked for.

Good means: the index knows it, its record is readable, the record's checksum is right, and the
object's bytes have its id. (What the store's packs lack altogether may be good upstream.) A few threads read and hash; `ObjectCheck` itself belongs to one.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from imagefs.errors import Corrupt, IOFailure
from imagefs.format.record import object_id
from imagefs.model import ObjectId
from imagefs.store.known import KnownIds
from imagefs.store.store import Store

_WORKERS = 3
_AT_ONCE = 16
"""Objects a thread takes at a time: small ones share records, so neighbours stay together."""

Verdict = int | str
"""The length of a good object, or what is wrong with it."""


class ObjectCheck:
    """One check of a store's objects; use as a context manager.

    Memory grows by 40 bytes for each object, and by a sentence for each bad one.
    """

    def __init__(self, store: Store) -> None:
        self.bytes = 0
        """Plain bytes of the good objects."""
        self._store = store
        self._good = KnownIds()
        self._bad: dict[ObjectId, str] = {}
        self._pool = ThreadPoolExecutor(_WORKERS, "check")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __repr__(self) -> str:
        return f"<ObjectCheck: {len(self._good)} good, {len(self._bad)} bad>"

    @property
    def objects(self) -> int:
        """How many objects were asked for, good or bad."""
        return len(self._good) + len(self._bad)

    def verdict(self, oid: ObjectId) -> Verdict:
        """The length of an object that was checked, or what is wrong with it."""
        length = self._good.get(oid)
        return self._bad[oid] if length is None else length

    def check(self, oids: Iterable[ObjectId]) -> None:
        """Read those of the objects that were not read before. Blocks."""
        unknown = [
            oid
            for oid in dict.fromkeys(oids)
            if self._good.get(oid) is None and oid not in self._bad
        ]
        slices = [unknown[at : at + _AT_ONCE] for at in range(0, len(unknown), _AT_ONCE)]
        for part, verdicts in zip(slices, self._pool.map(self._read_all, slices), strict=True):
            for oid, verdict in zip(part, verdicts, strict=True):
                self._note(oid, verdict)

    def read(self, oid: ObjectId) -> bytes:
        """The bytes of a good object; raises Corrupt for a bad one. Blocks."""
        if oid not in self._bad:
            try:
                data = self._store.inspect(oid)
            except (Corrupt, IOFailure) as error:
                self._note(oid, str(error))
            else:
                self._note(oid, _judge(oid, data))
                if oid not in self._bad:
                    return data
        raise Corrupt(self._bad[oid])

    def _read_all(self, oids: list[ObjectId]) -> list[Verdict]:
        return [self._read(oid) for oid in oids]

    def _read(self, oid: ObjectId) -> Verdict:
        try:
            return _judge(oid, self._store.inspect(oid))
        except (Corrupt, IOFailure) as error:
            return str(error)

    def _note(self, oid: ObjectId, verdict: Verdict) -> None:
        if isinstance(verdict, str):
            self._bad[oid] = verdict
        elif self._good.get(oid) is None:
            self._good.put(oid, verdict)
            self.bytes += verdict


def _judge(oid: ObjectId, data: bytes) -> Verdict:
    if object_id(data) == oid:
        return len(data)
    return f"Object {oid.hex()} is damaged: its record is intact but holds other bytes"
