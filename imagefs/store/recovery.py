"""Finding what the index does not know: tails of packs, or all of them when it is new.

A writer makes records durable first and indexes them second, so a crash between the two,
or power loss that takes back an index transaction, leaves intact records behind the part
of the pack that is indexed. They are indexed when the store is opened or the pack is next
written to; a torn record at the end is cut off. Packs that a living writer has locked are
left to him.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from imagefs.disk import Disk
from imagefs.format.record import PACK_HEADER_SIZE, encode_pack_header, scan
from imagefs.store import layout
from imagefs.store.index import Index, Row
from imagefs.store.packs import PackAppender, Packs, create_pack, has_header, newest
from imagefs.store.packs import open_for_appending as _open

log = logging.getLogger(__name__)

_BATCH = 50_000


def open_index(path: Path, packs: Packs) -> Index:
    """The index of a store, complete: made anew when it is missing, tails of packs indexed."""
    if packs.disk.size_of(layout.index(path)) is None:
        with _recovery_lock(path, packs.disk):
            _clear_leftovers(path, packs)
            return _completed(Index.open(layout.index(path)), packs)
    index = Index.open(layout.index(path))
    if not unindexed(packs, index):
        return index
    with _recovery_lock(path, packs.disk):
        return _completed(index, packs)


def _completed(index: Index, packs: Packs) -> Index:
    try:
        recover(packs, index)
    except BaseException:
        index.close()
        raise
    return index


@contextmanager
def _recovery_lock(path: Path, disk: Disk) -> Iterator[None]:
    """Who opens a store while another process recovers its index waits until that is done."""
    fd = disk.open(layout.format_file(path), os.O_RDWR)
    try:
        disk.lock(fd)
        yield
    finally:
        disk.close(fd)


def _clear_leftovers(path: Path, packs: Packs) -> None:
    """Removes what belongs to an index file that is gone."""
    index = layout.index(path)
    if packs.disk.size_of(index) is not None:  # another process was faster
        return
    if packs.numbers():
        log.warning("Index %s is missing, it is rebuilt from %s packs", index, len(packs.numbers()))
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            packs.disk.unlink(f"{index}{suffix}")


def unindexed(packs: Packs, index: Index) -> list[int]:
    """The packs that hold more than the index knows."""
    indexed = index.indexed()
    return [
        number
        for number, size in packs.sizes().items()
        if size > max(indexed.get(number, 0), PACK_HEADER_SIZE)
    ]


def recover(packs: Packs, index: Index) -> None:
    """Indexes the tails of all packs that no living writer has."""
    numbers = unindexed(packs, index)
    if numbers:
        packs.disk.fsync_dir(packs.directory)
    for number in numbers:
        fd = _open(packs, number)
        if fd is None:
            log.info("Pack %s is being written, its tail is left to its writer", number)
            continue
        try:
            index_tail(packs.disk, fd, number, index)
        finally:
            packs.disk.close(fd)


def index_tail(disk: Disk, fd: int, number: int, index: Index) -> int:
    """Indexes the tail of a locked pack, cuts what is torn, returns where the pack then ends."""
    size = disk.size(fd)
    known = index.indexed().get(number, 0)
    start = max(known, PACK_HEADER_SIZE)
    if size <= start:
        return size
    if known == 0:
        _complete_header(disk, fd)
    # What the index points to must be durable, and nobody knows whether the crash was before that.
    disk.fdatasync(fd)
    end = _index_records(disk, fd, number, index, start, size)
    log.warning("Pack %s: the %s bytes from offset %s on are indexed", number, end - start, start)
    if end < size and not has_header(disk, fd):
        # Whatever this file is, it is not one of ours whose end is torn: it is left as it is.
        index.add([], {number: size})
    elif end < size:
        log.warning("Pack %s: the %s torn bytes behind them are cut", number, size - end)
        disk.truncate(fd, end)
    return end


def _complete_header(disk: Disk, fd: int) -> None:
    """Writes the header of a pack of which nothing was synced yet, where power loss took it or a
    part of it and left what came later. What does not look like that is left as it is."""
    header = encode_pack_header()
    present = disk.pread(fd, PACK_HEADER_SIZE, 0)
    torn = all(byte in (0, right) for byte, right in zip(present, header, strict=True))
    if torn and present != header:
        disk.pwrite(fd, header, 0)


def _index_records(disk: Disk, fd: int, number: int, index: Index, start: int, size: int) -> int:
    """Indexes the intact records between two offsets of a pack; returns where the last one ends."""
    end = start
    rows: list[Row] = []
    for found in scan(lambda size, offset: disk.pread(fd, size, offset), start, size):
        end = found.offset + found.size
        for ordinal, (oid, _) in enumerate(found.record.objects()):
            rows.append((oid, number, found.offset, found.size, ordinal))
        if len(rows) >= _BATCH:
            index.add(rows, {number: end})
            rows = []
    index.add(rows, {number: end})
    return end


def claim_pack(packs: Packs, index: Index) -> PackAppender:
    """A pack to append to: one that is not full and nobody writes to, else a new one."""
    indexed = index.indexed()
    for number in newest(packs):
        if indexed.get(number, 0) >= packs.full:
            continue
        fd = _open(packs, number)
        if fd is None:
            continue
        with ExitStack() as opened:
            opened.callback(packs.disk.close, fd)
            end = _prepare(packs.disk, fd, number, index)
            if end is not None and end < packs.full:
                opened.pop_all()
                return PackAppender(packs.disk, number, fd, end, named=number in indexed)
    return create_pack(packs)


def _prepare(disk: Disk, fd: int, number: int, index: Index) -> int | None:
    """Where appending to a locked pack may begin, None when it must not be appended to."""
    size = disk.size(fd)
    known = index.indexed().get(number, 0)
    if size < PACK_HEADER_SIZE and known == 0:  # a crash while it was created
        disk.truncate(fd, 0)
        disk.pwrite(fd, encode_pack_header(), 0)
        return PACK_HEADER_SIZE
    if known == 0:
        _complete_header(disk, fd)
    if size < known or not has_header(disk, fd):
        log.error("Pack %s is damaged at its end or its header, nothing is added to it", number)
        return None
    return index_tail(disk, fd, number, index)
