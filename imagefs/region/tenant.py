"""A store as regions know it: its id, how long its leases last, and what keeps its threads and its
processes apart, whose leases would be one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from imagefs.disk import Disk
from imagefs.errors import Busy
from imagefs.region.claims import Claims
from imagefs.region.identity import store_id
from imagefs.region.lease import Terms
from imagefs.store.store import Store


class Tenant:
    """Thread-safe. `claims` are names that threads of this process are at work at."""

    def __init__(self, store: Store, disk: Disk, terms: Terms) -> None:
        self.store = store
        self.terms = terms
        self.claims = Claims()
        self._disk = disk
        self._id: bytes | None = None
        self._lock = threading.Lock()

    @contextmanager
    def cleaning(self) -> Iterator[None]:
        """Keeps processes of this store apart, whose leases would be one. Raises `Busy`."""
        fd = self._disk.open(self.store.path / "regions" / "cleaning.lock", os.O_RDWR | os.O_CREAT)
        try:
            if not self._disk.try_lock(fd):
                raise Busy("A region is being cleaned from here already: wait until that has ended")
            yield
        finally:
            self._disk.close(fd)

    def store_id(self) -> bytes:
        """The id by which regions know this store."""
        with self._lock:
            if self._id is None:
                self._id = store_id(self.store.path, self._disk)
            return self._id
