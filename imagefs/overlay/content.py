"""The content of regular files: store below, heap above, chunk by chunk.

Three things decide what a chunk of a file reads: its extent in the heap if it has one, else
the stored chunk as far as `keep` reaches, else zeros. Cutting a file lowers `keep`, so what
was cut off never shows again however the file grows. Bytes of the heap behind the end of
the file are garbage; growing over them zeroes them first.

The first write to a stored chunk copies that chunk to the heap, or nothing if it covers all
that shows of it. Data is written before the row that makes it part of the file.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from itertools import count, groupby
from typing import Any, NamedTuple

from msgspec.structs import replace

from imagefs.errors import FileTooBig, ImagefsError, NoSpace, NotReady
from imagefs.format.content import chunk_count, chunk_length
from imagefs.model import CHUNK_SIZE, MAX_FILE_SIZE, ObjectId
from imagefs.overlay.copies import Copy
from imagefs.overlay.extents import Place
from imagefs.overlay.heap import whole_pages
from imagefs.overlay.inodes import Inode
from imagefs.overlay.layer import Layer
from imagefs.tree.contents import allocated, chunk_ids

log = logging.getLogger(__name__)


class _Piece(NamedTuple):
    """What a write does to one chunk: `data` goes to `begin`.

    `place` is where the chunk lies now, None to give it a new place that starts with
    `below`. `left` is the place it gives up, `stored` the bytes of a stored chunk that
    shows no longer. `source` stands for where `below` comes from, which may be durable: so it
    is copied durably first, and `ready` is that copy.
    """

    chunk: int
    begin: int
    data: memoryview
    place: Place | None
    below: bytes = b""
    left: Place | None = None
    stored: int = 0
    source: Hashable = None
    ready: Place | None = None

    @property
    def needs_copy(self) -> bool:
        return self.ready is None and bool(self.below)


class Content:
    """Reads and changes file content. What changes it stores the inode's row as well."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._inodes = layer.inodes
        self._extents = layer.extents

    def __repr__(self) -> str:
        return f"<Content of {self._layer}>"

    # -- reading ------------------------------------------------------------------------

    def read(self, inode: Inode, offset: int, size: int) -> bytes:
        """The bytes from `offset`, fewer than `size` only at the end of the file.

        Raises NotReady for everything that is missing at once.
        """
        end = min(offset + size, inode.size)
        if offset >= end:
            return b""
        first, last = offset // CHUNK_SIZE, (end - 1) // CHUNK_SIZE
        if first == last:
            start = first * CHUNK_SIZE
            return self._read(inode, first, offset - start, end - start)
        parts: list[bytes] = []
        missing: list[NotReady] = []
        for place, chunk, begin, stop in self._runs(inode, offset, end):
            try:
                if place is not None:
                    parts.append(self._layer.heap.read_now(place, stop - begin))
                else:
                    parts.append(self._read(inode, chunk, begin, stop))
            except NotReady as reason:
                missing.append(reason)
        if missing:
            raise _together(missing)
        return b"".join(parts)

    def _runs(self, inode: Inode, offset: int, end: int) -> list[tuple[int | None, int, int, int]]:
        """What to read, piece by piece: address (None: not simply in the heap), chunk, begin
        and stop. Chunks that follow each other in the heap are one piece."""
        runs: list[tuple[int | None, int, int, int]] = []
        for chunk in range(offset // CHUNK_SIZE, (end - 1) // CHUNK_SIZE + 1):
            start = chunk * CHUNK_SIZE
            begin, stop = max(offset - start, 0), min(end - start, CHUNK_SIZE)
            place = self._place(inode, chunk)
            if place is None or place[1] < stop:
                runs.append((None, chunk, begin, stop))
                continue
            address = place[0] + begin
            if runs:
                before, chunk_before, begin_before, stop_before = runs[-1]
                if before is not None and before + stop_before - begin_before == address:
                    stop += stop_before - begin
                    runs[-1] = (before, chunk_before, begin_before, stop)
                    continue
            runs.append((address, chunk, begin, stop))
        return runs

    def _read(self, inode: Inode, chunk: int, begin: int, stop: int) -> bytes:
        place = self._place(inode, chunk)
        if place is None:
            data = self._stored(inode, chunk)
            if begin or stop != len(data):
                data = data[begin:stop]
        else:
            address, capacity = place
            if begin >= capacity:
                return bytes(stop - begin)
            data = self._layer.heap.read_now(address + begin, min(stop, capacity) - begin)
        return data if len(data) == stop - begin else data.ljust(stop - begin, b"\0")

    def _place(self, inode: Inode, chunk: int) -> Place | None:
        if chunk == 0:
            return (inode.place, inode.capacity) if inode.capacity else None
        if not self._inodes.may_be_stored(inode.ino):
            return None
        return self._extents.get(inode.ino, chunk)

    def _stored_id(self, inode: Inode, chunk: int) -> ObjectId | None:
        if inode.ref is None or chunk * CHUNK_SIZE >= inode.keep:
            return None
        ref = ObjectId(inode.ref)
        return chunk_ids(self._layer.fetch, ref, inode.ref_size, chunk, chunk)[0]

    def _stored(self, inode: Inode, chunk: int) -> bytes:
        """What shows of the stored chunk; nothing of a hole."""
        oid = self._stored_id(inode, chunk)
        if oid is None:
            return b""
        data = self._layer.fetch(oid)
        shown = inode.keep - chunk * CHUNK_SIZE
        return data if shown >= len(data) else data[:shown]

    # -- writing ------------------------------------------------------------------------

    def write(self, inode: Inode, offset: int, data: bytes) -> Inode:
        """Write `data`, which is not empty, and return the inode as it is then."""
        end = offset + len(data)
        if end > MAX_FILE_SIZE:
            raise FileTooBig(f"A file cannot reach beyond {MAX_FILE_SIZE} bytes")
        pieces = self._plan(inode, offset, data)
        self._layer.prepare()
        room = sum(1 + piece.needs_copy for piece in pieces) * CHUNK_SIZE
        if not self._layer.space.fits(room):
            self._layer.recycle(room)
            pieces = self._plan(inode, offset, data)
        self._require_copies(inode, pieces)
        self._layer.begin()
        if offset > inode.size:
            self._zero_tail(inode, offset)
        taken = [piece.ready for piece in pieces if piece.ready is not None]
        try:
            placed = [self._write_piece(piece, taken) for piece in pieces]
            new = self._written(inode, end, pieces, placed)
            self._store(new, pieces, placed)
        except BaseException:
            for address, length in taken:
                self._layer.heap.release(address, length)
            raise
        finally:
            for piece in pieces:
                if piece.ready is not None:
                    self._layer.copies.used(inode.ino, piece.chunk)
        for piece in pieces:
            if piece.left is not None:
                self._layer.heap.release(*piece.left)
        return new

    def _plan(self, inode: Inode, offset: int, data: bytes) -> list[_Piece]:
        """What the write does to each chunk; everything that may raise NotReady is here."""
        view = memoryview(data)
        pieces = []
        at = 0
        for chunk in range(offset // CHUNK_SIZE, (offset + len(data) - 1) // CHUNK_SIZE + 1):
            begin = offset + at - chunk * CHUNK_SIZE
            length = min(len(data) - at, CHUNK_SIZE - begin)
            pieces.append(self._plan_piece(inode, chunk, begin, view[at : at + length]))
            at += length
        return pieces

    def _plan_piece(self, inode: Inode, chunk: int, begin: int, data: memoryview) -> _Piece:
        stop = begin + len(data)
        place = self._place(inode, chunk)
        if place is not None:
            address, capacity = place
            more = whole_pages(stop) - capacity
            if more <= 0 or self._layer.space.can_extend(address + capacity, more):
                return _Piece(chunk, begin, data, place)
            # Only chunk 0 ever lacks capacity.
            below = self._layer.heap.read_now(address, min(capacity, inode.size))
            if begin == 0 and stop >= len(below):
                below = b""
            # What was just written may be durable already: sync(2) does not ask this daemon.
            ready = self._layer.copies.find(inode.ino, chunk, below, stop)
            return _Piece(chunk, begin, data, None, below, place, 0, below, ready)
        oid = self._stored_id(inode, chunk)
        if oid is None:
            return _Piece(chunk, begin, data, None)
        stored = chunk_length(chunk, inode.ref_size)
        shown = min(stored, inode.keep - chunk * CHUNK_SIZE)
        if begin == 0 and stop >= shown:
            return _Piece(chunk, begin, data, None, b"", None, stored)
        ready = self._layer.copies.find(inode.ino, chunk, (oid, shown), stop)
        below = self._stored(inode, chunk) if ready is None else b""
        return _Piece(chunk, begin, data, None, below, None, stored, (oid, shown), ready)

    def _require_copies(self, inode: Inode, pieces: list[_Piece]) -> None:
        """Raise NotReady with the work that copies what must be durable before its row."""
        copies = []
        for piece in pieces:
            if piece.needs_copy:
                capacity = _capacity(piece)
                place = self._layer.space.take(capacity), capacity
                copies.append((piece.chunk, piece.below, Copy(piece.source, place)))
        if not copies:
            return
        heap = self._layer.heap

        def copy() -> None:
            try:
                self._copy([(made.place[0], below) for _, below, made in copies])
            except BaseException:
                for _, _, made in copies:
                    heap.release(*made.place)
                raise

        def copied(_: object) -> None:
            for chunk, _, made in copies:
                for place in self._layer.copies.put(inode.ino, chunk, made):
                    heap.release(*place)

        key = "copy", heap.path, inode.ino, tuple(chunk for chunk, _, _ in copies)
        raise NotReady(key, copy, copied)

    def _copy(self, copies: list[tuple[int, bytes]]) -> None:
        """Write data to addresses durably; on a full disk, what was deleted makes room."""
        heap = self._layer.heap
        try:
            for address, data in copies:
                heap.write_durably(address, data)
        except NoSpace:
            if not heap.has_released:
                raise
            self._layer.sync()
            for address, data in copies:
                heap.write_durably(address, data)

    def _write_piece(self, piece: _Piece, taken: list[Place]) -> Place:
        """Write the data; returns where the chunk lies then."""
        heap = self._layer.heap
        stop = piece.begin + len(piece.data)
        if piece.place is not None:
            address, capacity = piece.place
            more = whole_pages(stop) - capacity
            if more > 0:
                taken.append((self._layer.space.take(more), more))
                capacity += more
            heap.write(address + piece.begin, piece.data)
            return address, capacity
        if piece.ready is not None:
            heap.write(piece.ready[0] + piece.begin, piece.data)
            return piece.ready
        capacity = _capacity(piece)
        address = self._layer.space.take(capacity)
        taken.append((address, capacity))
        heap.write(address + piece.begin, piece.data)
        return address, capacity

    def _written(self, inode: Inode, end: int, pieces: list[_Piece], placed: list[Place]) -> Inode:
        growth = 0
        for piece, (_, capacity) in zip(pieces, placed, strict=True):
            old = piece.place or piece.left
            growth += capacity - piece.stored - (old[1] if old is not None else 0)
        address, capacity = placed[0] if pieces[0].chunk == 0 else (inode.place, inode.capacity)
        size = max(inode.size, end)
        now = self._layer.clock()
        return replace(
            inode,
            size=size,
            allocated=inode.allocated + growth,
            mtime=now,
            ctime=now,
            place=address,
            capacity=capacity,
            added_bytes=inode.added_bytes + (size - inode.size) * inode.nlink,
        )

    def _store(self, new: Inode, pieces: list[_Piece], placed: list[Place]) -> None:
        rows = [
            (piece.chunk, place)
            for piece, place in zip(pieces, placed, strict=True)
            if piece.chunk and place != piece.place
        ]
        if not rows:
            self._inodes.put(new)
            return
        with self._layer.begin().transaction():
            if not new.nlink:
                self._extents.adopt(new.ino)
            for chunk, place in rows:
                self._extents.put(new.ino, chunk, place)
            self._inodes.put(new)

    def _zero_tail(self, inode: Inode, until: int) -> None:
        """Zero what lies in the heap behind the end of the file, before it grows to `until`
        or over it. Nobody sees it yet, so a crash in between does no harm."""
        chunk, begin = divmod(inode.size, CHUNK_SIZE)
        if begin == 0:
            return
        place = self._place(inode, chunk)
        if place is None:
            return
        stop = min(place[1], until - chunk * CHUNK_SIZE)
        if stop > begin:
            self._layer.heap.write(place[0] + begin, bytes(stop - begin))

    # -- cutting and growing ------------------------------------------------------------

    def resized(self, inode: Inode, size: int) -> Inode:
        """The inode as it is with another size; changes nothing, may raise NotReady."""
        if size > MAX_FILE_SIZE:
            raise FileTooBig(f"A file cannot have {size} bytes: the most are {MAX_FILE_SIZE}")
        added = inode.added_bytes + (size - inode.size) * inode.nlink
        if size >= inode.size:
            return replace(inode, size=size, added_bytes=added)
        if size == 0:
            return replace(
                inode, size=0, added_bytes=added, allocated=0, ref=None, ref_size=0,
                ref_count=0, keep=0, place=0, capacity=0,
            )  # fmt: skip
        gone = sum(capacity for _, capacity in self._ranges_behind(inode, size))
        gone += self._stored_behind(inode, size)
        return replace(
            inode,
            size=size,
            added_bytes=added,
            allocated=inode.allocated - gone,
            keep=min(inode.keep, size),
        )

    def store_resized(self, old: Inode, new: Inode) -> None:
        """Make the change that `resized` and the caller worked out."""
        self._layer.begin()
        if new.size > old.size:
            self._zero_tail(old, new.size)
        ranges = self._ranges_behind(old, new.size) if new.size < old.size else []
        if old.size > CHUNK_SIZE and ranges:
            with self._layer.begin().transaction():
                self._extents.cut(old.ino, max(chunk_count(new.size), 1))
                self._inodes.put(new)
        else:
            self._inodes.put(new)
        for address, length in ranges:
            self._layer.heap.release(address, length)
        if new.size < old.size:
            self._clear_tail(new, old.size)

    def _clear_tail(self, inode: Inode, old_size: int) -> None:
        """Zero what was cut off and has kept its place, so that it is gone durably with the next
        sync. Growing zeroes it again, so nothing depends on it when all goes well."""
        chunk, begin = divmod(inode.size, CHUNK_SIZE)
        place = self._place(inode, chunk) if begin else None
        if place is None:
            return
        stop = min(place[1], old_size - chunk * CHUNK_SIZE)
        try:
            if stop > begin:
                self._layer.heap.write(place[0] + begin, bytes(stop - begin))
        except ImagefsError as error:
            log.warning(
                "What was cut off inode %d is still in %s: %s", inode.ino, self._layer, error
            )

    def _ranges_behind(self, inode: Inode, size: int) -> list[Place]:
        """What the heap has of the chunks that a file of `size` does not have."""
        ranges = [(inode.place, inode.capacity)] if size == 0 and inode.capacity else []
        if inode.size > CHUNK_SIZE and self._inodes.may_be_stored(inode.ino):
            ranges += self._extents.ranges(inode.ino, max(chunk_count(size), 1))
        return ranges

    def _stored_behind(self, inode: Inode, size: int) -> int:
        """Bytes of stored chunks that show now and do not in a file of `size`."""
        first, last = chunk_count(size), chunk_count(inode.keep) - 1
        if inode.ref is None or first > last:
            return 0
        fetch, ref = self._layer.fetch, ObjectId(inode.ref)
        total = allocated(fetch, ref, inode.ref_size, first, last)
        replaced = self._extents.chunks(inode.ino, first, last)
        for begin, end in _ranges(replaced):
            total -= allocated(fetch, ref, inode.ref_size, begin, end)
        return total

    # -- files without a name -----------------------------------------------------------

    def abandon(self, inode: Inode) -> None:
        """The inode lost its last name and row; inside that transaction."""
        if inode.size > CHUNK_SIZE:
            self._extents.adopt(inode.ino)

    def discard(self, ino: int) -> None:
        """Give up an orphan and its data; does nothing for other inodes.

        A failure is only logged: what is left is removed when the overlay is opened next.
        """
        inode = self._inodes.release_orphan(ino)
        if inode is None:
            return
        try:
            ranges = self._ranges_behind(inode, 0)
            if inode.size > CHUNK_SIZE:
                with self._layer.begin().transaction():
                    self._extents.remove_orphan(ino)
        except ImagefsError as error:
            self._layer.note_leftovers()
            log.warning("Data of removed inode %d is still in %s: %s", ino, self._layer, error)
            return
        for address, length in ranges:
            self._layer.heap.release(address, length)


def _capacity(piece: _Piece) -> int:
    """How much room a chunk is given."""
    if piece.chunk:
        return CHUNK_SIZE
    capacity = whole_pages(max(piece.begin + len(piece.data), len(piece.below)))
    if piece.left is not None:
        # A file that grows in small steps is copied a few times only.
        capacity = min(max(capacity, 2 * piece.left[1]), CHUNK_SIZE)
    return capacity


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Ascending numbers as ranges, both ends included."""
    counter = count()
    runs = [list(run) for _, run in groupby(numbers, lambda number: number - next(counter))]
    return [(run[0], run[-1]) for run in runs]


def _together(missing: list[NotReady]) -> NotReady:
    """One piece of work for several; what is asked for twice is loaded once."""
    if len(missing) == 1:
        return missing[0]
    wanted = list({reason.key: reason for reason in missing}.values())

    def work() -> list[Any]:
        return [reason.work() if reason.work is not None else None for reason in wanted]

    def finish(results: list[Any]) -> None:
        for reason, result in zip(wanted, results, strict=True):
            if reason.finish is not None:
                reason.finish(result)

    key = tuple(reason.key for reason in wanted)
    return NotReady(key, work, finish, remote=any(reason.remote for reason in wanted))
