"""Storing the changed content of files: heap to store, in a few threads.

A file is cut into jobs, one for each chunk that is not stored as it is now: those in the
heap, and stored ones at an end that was cut off or grown over. Small jobs go to a thread
together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from typing import Final, NamedTuple

from imagefs.format.content import chunk_count, chunk_length, is_zero
from imagefs.model import CHUNK_SIZE, ObjectId
from imagefs.overlay.database import Database
from imagefs.overlay.fresh import Fresh
from imagefs.overlay.heap import Heap
from imagefs.overlay.inodes import Inode
from imagefs.tree.build import ContentBuilder, allocated_change, update_content
from imagefs.tree.contents import Fetch, Put, chunk_ids

_EXTENTS = "SELECT chunk, place, capacity FROM extent WHERE ino = ? ORDER BY chunk"

_SLICE: Final = 4 * CHUNK_SIZE
_SLICE_JOBS: Final = 64
_GAP: Final = 16 * 1024
"""Jobs this far apart in the heap are still read together."""

Changes = dict[int, ObjectId | None]


class Stored(NamedTuple):
    """What the store has of a file after it was committed."""

    ref: ObjectId | None
    allocated: int
    changed: bool
    """Whether that is not what the inode's row says."""


class _Job(NamedTuple):
    """One chunk to store: `length` bytes from the heap at `address`, or of the stored object
    `oid`, padded with zeros to `full`."""

    changes: Changes
    chunk: int
    address: int
    oid: ObjectId | None
    length: int
    full: int


class Sealer:
    """Stores files. `put` and `fetch` are called in the threads of `pool` and in the caller's."""

    def __init__(
        self, database: Database, heap: Heap, fetch: Fetch, put: Put, put_node: Put, pool: Executor
    ) -> None:
        self._database = database
        self._heap = heap
        self._fetch = fetch
        self._put = put
        self._put_node = put_node
        self._pool = pool

    def store(self, inodes: Iterable[Inode]) -> dict[int, Stored]:
        """Store the content of regular files; returns it by inode. Blocks."""
        files: list[tuple[Inode, Changes]] = [(inode, {}) for inode in inodes]
        jobs = [job for inode, changes in files for job in self._jobs(inode, changes)]
        slices = list(_sliced(jobs))
        if len(slices) > 1:
            for _ in self._pool.map(self._run, slices):
                pass
        else:
            for part in slices:
                self._run(part)
        return {inode.ino: self._finish(inode, changes) for inode, changes in files}

    def _jobs(self, inode: Inode, changes: Changes) -> Iterator[_Job]:
        in_heap = set()
        for chunk, address, capacity in self._extents(inode):
            full = chunk_length(chunk, inode.size)
            in_heap.add(chunk)
            yield _Job(changes, chunk, address, None, min(capacity, full), full)
        if inode.ref is None or not inode.keep:
            return
        last = chunk_count(inode.keep) - 1
        shown = chunk_length(last, inode.keep)
        full = chunk_length(last, inode.size)
        if last in in_heap or shown == full == chunk_length(last, inode.ref_size):
            return
        ids = chunk_ids(self._fetch, ObjectId(inode.ref), inode.ref_size, last, last)
        if ids[0] is not None:
            yield _Job(changes, last, 0, ids[0], shown, full)

    def _extents(self, inode: Inode) -> list[tuple[int, int, int]]:
        """Chunk, address and capacity."""
        found = [(0, inode.place, inode.capacity)] if inode.capacity else []
        if inode.size > CHUNK_SIZE:
            found += self._database.rows(_EXTENTS, (inode.ino,))
        return found

    def _run(self, jobs: list[_Job]) -> None:
        begin = jobs[0].address
        end = jobs[-1].address + jobs[-1].length
        together = jobs[0].oid is None and len(jobs) > 1
        content = memoryview(self._heap.read(begin, end - begin)) if together else None
        for job in jobs:
            if job.oid is not None:
                data: bytes | memoryview = self._fetch(job.oid)[: job.length]
            elif content is None:
                data = self._heap.read(job.address, job.length)
            else:
                data = content[job.address - begin : job.address - begin + job.length]
            if is_zero(data):
                job.changes[job.chunk] = None
            else:
                job.changes[job.chunk] = self._put(bytes(data).ljust(job.full, b"\0"))

    def _finish(self, inode: Inode, changes: Changes) -> Stored:
        """The content reference with the changed chunks in."""
        fresh = Fresh(self._fetch, self._put_node)
        size, ref, stored_size = inode.size, inode.ref, inode.ref_size
        if ref is None:
            return self._build(changes, size)
        old = ObjectId(ref)
        count = inode.ref_count
        kept: ObjectId | None = old
        if inode.keep < stored_size:
            # What is cut off must not show again where the file has grown since.
            cut = inode.keep // CHUNK_SIZE * CHUNK_SIZE
            count += allocated_change(self._fetch, old, stored_size, cut, {})
            kept = update_content(fresh.fetch, fresh.put, old, stored_size, cut, {})
            stored_size = cut
        if not changes and stored_size == size:
            return Stored(kept, count, inode.keep < inode.ref_size)
        count += allocated_change(fresh.fetch, kept, stored_size, size, changes)
        new = update_content(fresh.fetch, fresh.put, kept, stored_size, size, changes)
        return Stored(new, count, changed=True)

    def _build(self, changes: Changes, size: int) -> Stored:
        count = 0
        builder = ContentBuilder(self._put_node)
        for chunk, oid in sorted(changes.items()):
            if oid is not None:
                builder.add(chunk, oid)
                count += chunk_length(chunk, size)
        return Stored(builder.finish(size), count, bool(changes))


def _sliced(jobs: list[_Job]) -> Iterator[list[_Job]]:
    """Jobs that follow each other closely in the heap go together, up to a limit."""
    part: list[_Job] = []
    for job in jobs:
        if part and not _close(part, job):
            yield part
            part = []
        part.append(job)
    if part:
        yield part


def _close(part: list[_Job], job: _Job) -> bool:
    first, last = part[0], part[-1]
    if first.oid is not None or job.oid is not None or len(part) >= _SLICE_JOBS:
        return False
    end = last.address + last.length
    return end <= job.address <= end + _GAP and job.address + job.length <= first.address + _SLICE
