"""Writing and reading the chunk lists of files (see format.content for their form).

`put` stores an object and returns its id; `fetch` gets stored objects and may raise
NotReady, after which the call is simply made again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

from imagefs.errors import Corrupt
from imagefs.format.content import (
    FANOUT,
    NO_ID,
    check_node,
    chunk_count,
    chunk_length,
    map_depth,
    node_child,
    node_span,
    trim_node,
)
from imagefs.model import MAX_FILE_SIZE, OBJECT_ID_SIZE, ObjectId

Fetch = Callable[[ObjectId], bytes]
Put = Callable[[bytes], ObjectId]


class ContentBuilder:
    """Collects the chunks of one file in ascending order; what is left out is a hole. Holds
    one map node a level."""

    def __init__(self, put: Put) -> None:
        self._put = put
        self._nodes: list[tuple[int, bytearray]] = []
        """The open node of each level: its number on that level and its children so far."""

    def add(self, index: int, chunk: ObjectId) -> None:
        """The chunk at that index, which is larger than those before."""
        self._place(0, index, chunk)

    def finish(self, size: int) -> ObjectId | None:
        """Store the map and return the content reference of a file of that size, which all
        chunks lie within."""
        if not self._nodes:
            return None
        depth = map_depth(size)
        for level in range(depth):
            self._flush(level)
        number, children = self._nodes[depth]
        assert number == 0
        return node_child(children, 0)

    def _place(self, level: int, index: int, child: ObjectId) -> None:
        number, place = divmod(index, FANOUT)
        if level == len(self._nodes):
            self._nodes.append((number, bytearray()))
        elif self._nodes[level][0] != number:
            self._flush(level)
            self._nodes[level] = (number, bytearray())
        children = self._nodes[level][1]
        children += bytes(place * OBJECT_ID_SIZE - len(children))
        children += child

    def _flush(self, level: int) -> None:
        number, children = self._nodes[level]
        self._place(level + 1, number, self._put(bytes(children)))


def write_content(put: Put, chunk_ids: Sequence[ObjectId | None], size: int) -> ObjectId | None:
    """Store the map of a file with these chunks (None: a hole), one for every CHUNK_SIZE
    begun; returns its content reference."""
    if len(chunk_ids) != chunk_count(size):
        raise ValueError(f"A file of {size} bytes does not have {len(chunk_ids)} chunks")
    builder = ContentBuilder(put)
    for index, chunk in enumerate(chunk_ids):
        if chunk is not None:
            builder.add(index, chunk)
    return builder.finish(size)


def update_content(
    fetch: Fetch,
    put: Put,
    ref: ObjectId | None,
    old_size: int,
    new_size: int,
    changes: Mapping[int, ObjectId | None],
) -> ObjectId | None:
    """Store the map of the file `ref` with another size and other chunks (None: a hole).

    Chunks beyond the old size that are not given are holes, those beyond the new size go. A
    chunk that the change of size makes longer or shorter must be among the changes, unless
    it is a hole: its object is another one. Reads and writes only the nodes concerned.
    """
    if not 0 <= new_size <= MAX_FILE_SIZE:
        raise ValueError(f"A file cannot have {new_size} bytes")
    ordered = sorted(changes.items())
    if ordered and not 0 <= ordered[0][0] <= ordered[-1][0] < chunk_count(new_size):
        raise ValueError(f"Chunk {ordered[-1][0]} does not lie within {new_size} bytes")
    if new_size == 0:
        return None
    _check_ends(fetch, ref, old_size, new_size, changes)
    update = _Update(fetch, put, ordered, chunk_count(old_size), chunk_count(new_size))
    held = map_depth(old_size)
    depth = map_depth(new_size)
    while held > depth and ref is not None:
        ref = node_child(_node(fetch, ref, FANOUT), 0)
        held -= 1
    return update.run(ref, min(held, depth), depth, 0, 0, len(ordered))


def chunk_ids(
    fetch: Fetch, ref: ObjectId | None, size: int, first: int, last: int
) -> list[ObjectId | None]:
    """The chunks `first` to `last` (inclusive; cut at the end of the file), None for holes."""
    last = min(last, chunk_count(size) - 1)
    if first > last:
        return []
    if ref is None:
        return [None] * (last - first + 1)
    return _read(fetch, ref, map_depth(size), chunk_count(size), first, last)


def allocated(
    fetch: Fetch, ref: ObjectId | None, size: int, first: int = 0, last: int | None = None
) -> int:
    """Bytes of the chunks `first` to `last` (default: all) that are not holes: an entry's
    `count` for a regular file. Costs time by what is not a hole, not by `size`."""
    chunks = chunk_count(size)
    last = chunks - 1 if last is None else min(last, chunks - 1)
    if ref is None or first > last:
        return 0
    return _allocated(fetch, ref, map_depth(size), 0, (first, last, size))


def allocated_change(
    fetch: Fetch,
    ref: ObjectId | None,
    old_size: int,
    new_size: int,
    changes: Mapping[int, ObjectId | None],
) -> int:
    """By how much `allocated` grows when `update_content` is called with these arguments."""
    old_chunks = chunk_count(old_size)
    new_chunks = chunk_count(new_size)
    growth = 0
    if new_chunks < old_chunks:
        growth -= allocated(fetch, ref, old_size, new_chunks)
    for index, chunk in changes.items():
        if index < old_chunks and chunk_ids(fetch, ref, old_size, index, index) != [None]:
            growth -= chunk_length(index, old_size)
        if chunk is not None:
            growth += chunk_length(index, new_size)
    return growth


class _Update:
    """One change of a map. Numbers are in chunks; see node_span for what a node covers."""

    def __init__(
        self,
        fetch: Fetch,
        put: Put,
        changes: Sequence[tuple[int, ObjectId | None]],
        old_end: int,
        new_end: int,
    ) -> None:
        self._fetch = fetch
        self._put = put
        self._changes = changes
        self._indices = [index for index, _ in changes]
        self._old_end = old_end
        self._end = new_end

    def run(
        self, ref: ObjectId | None, held: int, depth: int, base: int, low: int, high: int
    ) -> ObjectId | None:
        """The node for the chunks from `base`, with the changes low to high.

        `ref` has the depth `held`; where that is less than `depth` it is to become the
        first child's first child and so on.
        """
        if depth == 0:
            return self._changes[low][1] if low < high else ref
        cut = self._old_end > self._end and base + node_span(depth) > self._end
        if low == high and ((held == depth and not cut) or ref is None):
            return ref
        span = node_span(depth - 1)
        old = b""
        if held == depth and ref is not None:
            old = _node(self._fetch, ref, _children(depth, base, self._old_end))
        node = bytearray(old)
        del node[-(-(self._end - base) // span) * OBJECT_ID_SIZE :]
        for place in self._touched(base, span, low, high, held < depth, cut):
            start = base + place * span
            first = bisect_left(self._indices, start, low, high)
            last = bisect_left(self._indices, start + span, first, high)
            if held < depth:
                child, child_held = (ref, held) if place == 0 else (None, depth - 1)
            else:
                child, child_held = node_child(node, place), depth - 1
            _set_child(node, place, self.run(child, child_held, depth - 1, start, first, last))
        new = trim_node(node)
        if not new:
            return None
        return ref if new == old else self._put(new)

    def _touched(
        self, base: int, span: int, low: int, high: int, raised: bool, cut: bool
    ) -> list[int]:
        """The children that will not stay as they are, in order."""
        places = {(index - base) // span for index in self._indices[low:high]}
        if raised:
            places.add(0)
        if cut:
            places.add(min((self._end - 1 - base) // span, FANOUT - 1))
        return sorted(places)


def _check_ends(
    fetch: Fetch,
    ref: ObjectId | None,
    old_size: int,
    new_size: int,
    changes: Mapping[int, ObjectId | None],
) -> None:
    """Raise ValueError when a chunk that changes its length is not given."""
    for size in (old_size, new_size):
        index = chunk_count(size) - 1
        old_length = chunk_length(index, old_size)
        if index < 0 or index in changes or not old_length:
            continue
        length = chunk_length(index, new_size)
        if length in {0, old_length}:
            continue
        if chunk_ids(fetch, ref, old_size, index, index) != [None]:
            raise ValueError(f"Chunk {index} has {old_length} bytes, not {length}: give it anew")


def _children(depth: int, base: int, end: int) -> int:
    """How many children the node of that depth can have in a file of `end` chunks."""
    return min(-(-(end - base) // node_span(depth - 1)), FANOUT)


def _node(fetch: Fetch, ref: ObjectId, children: int) -> bytes:
    data = fetch(ref)
    try:
        check_node(data, children)
    except Corrupt as error:
        raise Corrupt(f"{error} (object {ref.hex()})") from error
    return data


def _set_child(node: bytearray, place: int, child: ObjectId | None) -> None:
    start = place * OBJECT_ID_SIZE
    if start > len(node):
        node += bytes(start - len(node))
    node[start : start + OBJECT_ID_SIZE] = child or NO_ID


def _read(
    fetch: Fetch, ref: ObjectId, depth: int, chunks: int, first: int, last: int
) -> list[ObjectId | None]:
    """Chunks `first` to `last` of the map `ref`, which covers `chunks` of them."""
    if depth == 0:
        return [ref]
    span = node_span(depth - 1)
    node = _node(fetch, ref, -(-chunks // span))
    found: list[ObjectId | None] = []
    for place in range(first // span, last // span + 1):
        base = place * span
        begin, end = max(first, base) - base, min(last, base + span - 1) - base
        child = node_child(node, place)
        if child is None:
            found += [None] * (end - begin + 1)
        elif depth == 1:
            found.append(child)
        else:
            found += _read(fetch, child, depth - 1, min(chunks - base, span), begin, end)
    return found


def _allocated(
    fetch: Fetch, ref: ObjectId, depth: int, base: int, scope: tuple[int, int, int]
) -> int:
    first, last, size = scope
    if depth == 0:
        return chunk_length(base, size) if first <= base <= last else 0
    span = node_span(depth - 1)
    node = _node(fetch, ref, _children(depth, base, chunk_count(size)))
    total = 0
    for place in range(len(node) // OBJECT_ID_SIZE):
        start = base + place * span
        child = node_child(node, place)
        if child is None or start > last or start + span <= first:
            continue
        if depth == 1:
            total += chunk_length(start, size)
        else:
            total += _allocated(fetch, child, depth - 1, start, scope)
    return total
