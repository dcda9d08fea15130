"""Decoded records in memory: bounded in bytes, each loaded once however many wait for it.

Every method may be called from any thread; only `load` blocks. The newest few records are
kept whatever their size, so that who loaded one still finds it when he comes to take it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from imagefs.format.record import Record
from imagefs.store.flights import Flights

KEEP = 16
"""Records kept even when they are larger than the bound together, by default."""

RecordKey = tuple[int, int]
"""Pack and offset."""


class RecordCache:
    """Least recently used records go first when `limit` bytes are exceeded."""

    def __init__(self, limit: int, keep: int = KEEP) -> None:
        self._limit = limit
        self._keep = keep
        self._lock = threading.Lock()
        self._records: OrderedDict[RecordKey, Record] = OrderedDict()
        self._flights: Flights[RecordKey, Record] = Flights()
        self.bytes = 0
        self.hits = 0
        self.loads = 0

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        return (
            f"<RecordCache {len(self._records)} records, {self.bytes} of {self._limit} bytes,"
            f" {len(self._flights)} loading>"
        )

    def get(self, key: RecordKey) -> Record | None:
        with self._lock:
            return self._use(key)

    def is_loading(self, key: RecordKey) -> bool:
        return key in self._flights

    def holds(self, key: RecordKey) -> bool:
        """Like `get`, but does not count as a use."""
        return key in self._records

    def put(self, key: RecordKey, record: Record) -> None:
        with self._lock:
            self._insert(key, record)

    def load(self, key: RecordKey, loader: Callable[[], Record]) -> Record:
        """The record, through `loader` unless it is there or another thread is loading it.

        What `loader` raises is raised to everybody who waits; nothing is kept then.
        """
        record = self.get(key)
        if record is not None:
            return record
        return self._flights.get(key, partial(self._load, key, loader))

    def drop(self, key: RecordKey) -> None:
        with self._lock:
            record = self._records.pop(key, None)
            if record is not None:
                self.bytes -= record.cost

    def clear(self) -> None:
        with self._lock:
            self._records.clear()
            self.bytes = 0

    def _use(self, key: RecordKey) -> Record | None:
        record = self._records.get(key)
        if record is not None:
            self._records.move_to_end(key)
            self.hits += 1
        return record

    def _load(self, key: RecordKey, loader: Callable[[], Record]) -> Record:
        record = self._records.get(key)  # another thread may have been faster
        if record is None:
            record = loader()
            self.put(key, record)
        return record

    def _insert(self, key: RecordKey, record: Record) -> None:
        old = self._records.pop(key, None)
        if old is not None:
            self.bytes -= old.cost
        self._records[key] = record
        self.bytes += record.cost
        self.loads += 1
        while self.bytes > self._limit and len(self._records) > self._keep:
            self.bytes -= self._records.popitem(last=False)[1].cost
