"""Putting packs to a region, several at once, and noting those that arrived.

A pack that arrived is in the index at once, and is found by who lists the region: whatever comes
between, what it holds is never sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Final, Self

from imagefs.errors import ImagefsError
from imagefs.region.bucket import Bucket
from imagefs.region.index import RegionIndex
from imagefs.region.jobs import PATIENCE
from imagefs.region.layout import pack_key
from imagefs.region.packing import Pack

log = logging.getLogger(__name__)

AT_ONCE: Final = 4
"""Packs under way; as many bytes as these have are in memory, and those of one more."""


class Uploads:
    """A context manager: who leaves it without `finish` gives up what has not begun, and waits for
    what has. `look` is called often while others are waited for; it ends the work by raising.
    `arrived` is told of each pack that arrived."""

    def __init__(
        self,
        region: str,
        bucket: Bucket,
        index: RegionIndex,
        *,
        look: Callable[[], None],
        arrived: Callable[[Pack], None],
    ) -> None:
        self._region = region
        self._bucket = bucket
        self._index = index
        self._look = look
        self._arrived = arrived
        self._pool = ThreadPoolExecutor(AT_ONCE, "send")
        self._jobs: dict[Future[None], Pack] = {}

    def __repr__(self) -> str:
        return f"<Uploads: {len(self._jobs)} under way>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        for job, pack in self._jobs.items():
            if not job.cancelled() and job.exception() is None:
                try:
                    self._note(pack)
                except ImagefsError as failure:
                    log.warning("A pack that was sent is not noted: %s", failure)

    def put(self, pack: Pack) -> None:
        """Sends a pack; waits while `AT_ONCE` are under way. Raises what went wrong with one."""
        while len(self._jobs) >= AT_ONCE:
            self._wait()
        self._look()
        self._jobs[self._pool.submit(self._bucket.put, pack_key(pack.name), pack.data)] = pack

    def finish(self) -> None:
        """Returns when all have arrived."""
        while self._jobs:
            self._wait()

    def _wait(self) -> None:
        done, _ = wait(self._jobs, PATIENCE, FIRST_COMPLETED)
        self._look()
        for job in done:
            job.result()
            self._note(self._jobs.pop(job))

    def _note(self, pack: Pack) -> None:
        self._index.add(self._region, pack.name, len(pack.data), pack.records)
        self._arrived(pack)
