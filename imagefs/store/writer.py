"""Writing objects: hash, deduplicate, group, compress, append, make durable, index.

`put` hashes in the caller's thread and looks for a known copy; new objects are grouped into
blocks, which a small pool compresses and appends. `finish` is the barrier: pack data is
synced first, index rows are committed second. Many threads may put at once; one lock guards
what waits to be written, another one the packs being appended to.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from concurrent.futures import Executor
from types import TracebackType
from typing import Self

from imagefs.errors import ImagefsError, InvalidArgument, NoSpace
from imagefs.format.record import DATA, MAX_BLOCK, METADATA, encode_record, object_id
from imagefs.model import ObjectId
from imagefs.store.grouping import Block, Grouping
from imagefs.store.index import Index, Row
from imagefs.store.packs import PackAppender, Packs
from imagefs.store.recovery import claim_pack

log = logging.getLogger(__name__)

_MAX_WAITING = 16
_CHECKPOINT_ROWS = 100_000


class StoreWriter:
    """Adds objects to a store; a context manager, got from `Store.writer`.

    Leaving the context without `finish` gives up what was put since the last one.
    """

    def __init__(
        self,
        packs: Packs,
        index: Index,
        pool: Executor,
        damaged: Collection[tuple[int, int]],
    ) -> None:
        self._packs = packs
        self._index = index
        self._pool = pool
        self._damaged = damaged
        self._look_up = not index.is_empty()
        self._state = threading.Condition()
        self._pending: set[ObjectId] = set()
        self._grouping = Grouping()
        self._waiting = 0
        self._failure: BaseException | None = None
        self._append_lock = threading.Lock()
        self._appenders: list[PackAppender] = []
        self._rows: list[Row] = []
        self.stored_bytes = 0
        """What this writer added to packs so far: objects the store had already add nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<StoreWriter {len(self._pending)} objects pending, {self._waiting} blocks waiting,"
            f" {len(self._rows)} rows, {self._appenders}>"
        )

    # -- putting ------------------------------------------------------------------------

    def put(self, data: bytes, *, metadata: bool = False) -> ObjectId:
        """Stores an object unless the store has it; returns its id. May wait for the disk."""
        oid = object_id(data)
        self.put_hashed(oid, data, metadata=metadata)
        return oid

    def put_hashed(self, oid: ObjectId, data: bytes, *, metadata: bool = False) -> None:
        """Like `put` for who knows the id already. Raises what went wrong in earlier puts."""
        if len(data) > MAX_BLOCK:
            raise InvalidArgument(f"An object of {len(data)} bytes is longer than {MAX_BLOCK}")
        if oid in self._pending or (self._look_up and self._is_stored(oid)):
            return
        kind = METADATA if metadata else DATA
        with self._state:
            if oid in self._pending:
                return
            self._pending.add(oid)
            block = self._grouping.add(oid, data, kind)
            if block is not None:
                self._submit(block)

    def _is_stored(self, oid: ObjectId) -> bool:
        location = self._index.find(oid)
        return location is not None and (location.pack, location.offset) not in self._damaged

    def _submit(self, block: Block) -> None:
        """Hands a block to the pool; waits while too many are there. The lock is held."""
        while self._waiting >= _MAX_WAITING:
            self._state.wait()
        if self._failure is not None:
            raise self._failure
        self._waiting += 1
        self._pool.submit(self._write, block)

    # -- in the pool --------------------------------------------------------------------

    def _write(self, block: Block) -> None:
        try:
            parts = encode_record(block.objects, block.kind)
            with self._append_lock:
                if self._failure is None:
                    self._append(block.objects, parts)
        except BaseException as error:  # noqa: BLE001 - raised by the next put or finish
            self._failure = self._failure or error
        finally:
            with self._state:
                self._waiting -= 1
                self._state.notify_all()

    def _append(self, objects: list[tuple[ObjectId, bytes]], parts: list[bytes]) -> None:
        pack = self._appender()
        offset, size = pack.append(parts)
        number = pack.number
        self.stored_bytes += size
        self._rows += [
            (oid, number, offset, size, ordinal) for ordinal, (oid, _) in enumerate(objects)
        ]
        if len(self._rows) >= _CHECKPOINT_ROWS:
            self._checkpoint()

    def _appender(self) -> PackAppender:
        if not self._appenders or self._appenders[-1].end >= self._packs.full:
            self._appenders.append(claim_pack(self._packs, self._index))
        return self._appenders[-1]

    # -- making durable -----------------------------------------------------------------

    def finish(self) -> None:
        """Returns when everything put so far is durable and found by every reader."""
        with self._state:
            for kind in (DATA, METADATA):
                block = self._grouping.rest(kind)
                if block is not None:
                    self._submit(block)
            self._wait_idle()
        with self._append_lock:
            if self._failure is not None:
                raise self._failure
            try:
                self._checkpoint()
            except BaseException as error:
                # A sync that failed once must not be believed when it succeeds later.
                self._failure = error
                raise

    def _wait_idle(self) -> None:
        while self._waiting:
            self._state.wait()

    def _checkpoint(self) -> None:
        """Pack data first, index rows second; the append lock is held."""
        if not self._rows:
            return
        for pack in self._appenders:
            pack.sync()
        if not all(pack.named for pack in self._appenders):
            self._packs.disk.fsync_dir(self._packs.directory)
        self._index_rows()
        self._appenders[-1].named = True
        self._look_up = True
        with self._state:
            self._pending.difference_update([row[0] for row in self._rows])
        self._rows = []
        for pack in self._appenders[:-1]:
            pack.close()
        del self._appenders[:-1]

    def _index_rows(self) -> None:
        try:
            self._index.add(self._rows, {pack.number: pack.end for pack in self._appenders})
        except NoSpace:  # then the index surely does not point to them
            raise
        except BaseException:
            self._keep()
            raise
        self._keep()

    def _keep(self) -> None:
        for pack in self._appenders:
            pack.keep()

    def close(self) -> None:
        """Ends the writer; what is not finished is cut off again."""
        with self._state:
            self._wait_idle()
        with self._append_lock:
            while self._appenders:
                pack = self._appenders.pop()
                try:
                    pack.cut()
                except ImagefsError as error:
                    log.warning("What was not finished stays in pack %s: %s", pack.number, error)
                finally:
                    pack.close()
