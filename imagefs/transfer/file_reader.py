"""The content of one open file, as chunks in the store.

What the file's size was when it was opened is the most that is read. A file that turns out
shorter is stored as short as it is; so size, map and chunks fit each other whatever writers
do meanwhile.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from imagefs.format.content import chunk_count, chunk_length, is_zero
from imagefs.model import CHUNK_SIZE, ObjectId
from imagefs.store import StoreWriter
from imagefs.tree.build import ContentBuilder

_SECTOR: Final = 512


class Content(NamedTuple):
    """What the entry of a regular file says of its content."""

    size: int
    allocated: int
    ref: ObjectId | None


def store_content(writer: StoreWriter, descriptor: int, status: os.stat_result) -> Content:
    """Store the content of an open regular file. Waits for source and store."""
    size = status.st_size
    if size > CHUNK_SIZE:
        return _store_large(writer, descriptor, status)
    data = _read(descriptor, size, 0) if size else b""
    if is_zero(data):
        return Content(len(data), 0, None)
    return Content(len(data), len(data), writer.put(data))


def _store_large(writer: StoreWriter, descriptor: int, status: os.stat_result) -> Content:
    def put_node(data: bytes) -> ObjectId:
        return writer.put(data, metadata=True)

    size = status.st_size
    builder = ContentBuilder(put_node)
    count = 0
    for index in _chunks_with_data(descriptor, status):
        offset = index * CHUNK_SIZE
        length = chunk_length(index, size)
        data = _read(descriptor, length, offset)
        if data and not is_zero(data):
            builder.add(index, writer.put(data))
            count += len(data)
        if len(data) < length:
            size = offset + len(data)
            break
    return Content(size, count, builder.finish(size))


def _read(descriptor: int, length: int, offset: int) -> bytes:
    """The bytes there; fewer only where the file ends."""
    data = os.pread(descriptor, length, offset)
    while 0 < len(data) < length:
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def _chunks_with_data(descriptor: int, status: os.stat_result) -> Iterator[int]:
    """The chunks that are not all hole, in order."""
    if status.st_blocks * _SECTOR >= status.st_size:
        yield from range(chunk_count(status.st_size))
        return
    following = 0
    for start, end in _extents(descriptor, status.st_size):
        first = max(start // CHUNK_SIZE, following)
        following = chunk_count(end)
        yield from range(first, following)


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        except OSError as error:
            # No data after that offset: all hole, or cut off meanwhile.
            if error.errno == errno.ENXIO:
                return
            raise
        if start >= size:
            return
        yield start, end
