"""Content maps: what changes give is what writing everything gives; sparse is cheap."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagefs.errors import Corrupt
from imagefs.format.content import FANOUT, chunk_count, chunk_length
from imagefs.model import CHUNK_SIZE, MAX_FILE_SIZE, OBJECT_ID_SIZE, ObjectId
from imagefs.tree.contents import (
    ContentBuilder,
    allocated,
    allocated_change,
    chunk_ids,
    update_content,
    write_content,
)
from tests.tree.samples import Memory, take

Chunks = list[ObjectId | None]


def oid(number: int) -> ObjectId:
    return ObjectId(b"chunk%016d" % number + bytes(OBJECT_ID_SIZE - 21))


def size_of(rng: random.Random, chunks: int) -> int:
    return max(chunks * CHUNK_SIZE - rng.choice([0, 0, 1, CHUNK_SIZE - 1]), 0)


def sparse(rng: random.Random, chunks: int) -> Chunks:
    density = rng.choice([0, 0.001, 0.5, 1])
    return [oid(rng.randrange(10**9)) if rng.random() < density else None for _ in range(chunks)]


def naive_allocated(chunks: Chunks, size: int) -> int:
    return sum(chunk_length(i, size) for i, chunk in enumerate(chunks) if chunk is not None)


COUNTS = [0, 1, 2, 3, FANOUT - 1, FANOUT, FANOUT + 1, 2 * FANOUT, 5000]


@pytest.mark.parametrize("count", COUNTS)
def test_chunks_come_back(count: int) -> None:
    rng = random.Random(count)
    for _ in range(4):
        memory = Memory()
        chunks = sparse(rng, count)
        size = size_of(rng, count)
        ref = write_content(memory.put, chunks, size)
        assert (ref is None) == (not any(chunks))
        assert chunk_ids(memory.fetch, ref, size, 0, 10**9) == chunks
        low, high = sorted((rng.randint(0, count), rng.randint(0, count)))
        assert chunk_ids(memory.fetch, ref, size, low, high) == chunks[low : high + 1]
        assert allocated(memory.fetch, ref, size) == naive_allocated(chunks, size)


def changed(
    rng: random.Random, chunks: Chunks, size: int, new_size: int
) -> dict[int, ObjectId | None]:
    """Random changes for the change of size, with those that it makes necessary."""
    count = chunk_count(new_size)
    changes: dict[int, ObjectId | None] = {}
    for _ in range(rng.choice([0, 1, 5, 50]) if count else 0):
        index = rng.choice([rng.randrange(count), count - 1, max(count - FANOUT, 0)])
        changes[index] = rng.choice([None, oid(rng.randrange(10**9))])
    for end in (size, new_size):
        last = chunk_count(end) - 1
        if 0 <= last < min(count, len(chunks)) and chunks[last] is not None:
            changes.setdefault(last, oid(rng.randrange(10**9)))
    return changes


@pytest.mark.parametrize("seed", range(80))
def test_updates_give_what_writing_everything_gives(seed: int) -> None:
    rng = random.Random(seed)
    memory = Memory()
    count = rng.choice(COUNTS)
    chunks = sparse(rng, count)
    size = size_of(rng, count)
    ref = write_content(memory.put, chunks, size)
    for _ in range(6):
        new_size = size_of(rng, rng.choice([*COUNTS, count, count]))
        changes = changed(rng, chunks, size, new_size)
        before = naive_allocated(chunks, size)
        growth = allocated_change(memory.fetch, ref, size, new_size, changes)
        ref = update_content(memory.fetch, memory.put, ref, size, new_size, changes)
        count = chunk_count(new_size)
        chunks = (chunks + [None] * count)[:count]
        for index, chunk in changes.items():
            chunks[index] = chunk
        size = new_size
        assert ref == write_content(memory.put, chunks, size)
        assert before + growth == naive_allocated(chunks, size)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.integers(0, 2**46 - 1), st.booleans(), max_size=8),
    st.integers(0, MAX_FILE_SIZE),
)
def test_huge_sparse_files_by_either_way(places: dict[int, bool], size: int) -> None:
    memory = Memory()
    places = {index: there for index, there in places.items() if index < chunk_count(size)}
    chunks = {index: oid(index) for index, there in places.items() if there}
    builder = ContentBuilder(memory.put)
    for index in sorted(chunks):
        builder.add(index, chunks[index])
    ref = builder.finish(size)
    assert len(memory.objects) <= 5 * len(chunks)
    full = {index: chunks.get(index) for index in places}
    assert update_content(memory.fetch, memory.put, None, 0, size, full) == ref
    for index in places:
        found = chunk_ids(memory.fetch, ref, size, index, index + 1)
        assert found[0] == chunks.get(index)
    total = sum(chunk_length(index, size) for index in chunks)
    assert allocated(memory.fetch, ref, size) == total
    cut = update_content(memory.fetch, memory.put, ref, size, 0, {})
    assert cut is None


def test_a_change_in_a_large_file_touches_one_node_a_level() -> None:
    memory = Memory()
    count = FANOUT * 40
    size = count * CHUNK_SIZE
    ref = write_content(memory.put, list(map(oid, range(count))), size)
    memory.reads = memory.writes = 0
    update_content(memory.fetch, memory.put, ref, size, size, {20_000: oid(0), 20_001: None})
    assert memory.reads <= 4
    assert memory.writes == 2
    memory.reads = memory.writes = 0
    update_content(memory.fetch, memory.put, ref, size, size * 100, {})
    assert memory.writes <= 2
    assert memory.reads <= 4


def test_four_gib_with_a_byte_at_the_end() -> None:
    memory = Memory()
    size = 4 * 2**30 + 1
    last = chunk_count(size) - 1
    ref = update_content(memory.fetch, memory.put, None, 0, size, {last: oid(1)})
    assert len(memory.objects) == 2
    assert allocated(memory.fetch, ref, size) == 1
    assert chunk_ids(memory.fetch, ref, size, last - 2, last) == [None, None, oid(1)]


def test_a_chunk_that_changes_its_length_must_be_given() -> None:
    memory = Memory()
    ref = write_content(memory.put, [oid(1), oid(2)], CHUNK_SIZE + 5)
    for new_size in (CHUNK_SIZE + 4, CHUNK_SIZE + 6, 5 * CHUNK_SIZE, CHUNK_SIZE - 1):
        with pytest.raises(ValueError, match="give it anew"):
            update_content(memory.fetch, memory.put, ref, CHUNK_SIZE + 5, new_size, {})
    assert update_content(memory.fetch, memory.put, ref, CHUNK_SIZE + 5, CHUNK_SIZE, {}) == oid(1)


@pytest.mark.parametrize("arguments", [(5, {1: None}), (5, {-1: None}), (-1, {}), (2**63, {})])
def test_arguments_that_make_no_sense(arguments: tuple[int, dict[int, None]]) -> None:
    with pytest.raises(ValueError, match="bytes"):
        update_content(Memory().fetch, Memory().put, None, 0, *arguments)
    with pytest.raises(ValueError, match="chunks"):
        write_content(Memory().put, [None, None], 5)


def test_an_update_can_be_repeated_when_nodes_are_not_at_hand() -> None:
    memory = Memory()
    size = 3000 * CHUNK_SIZE
    ref = write_content(memory.put, list(map(oid, range(3000))), size)
    fetch = memory.unready_fetch()
    found = take(lambda: update_content(fetch, memory.put, ref, size, size, {7: None}))
    assert take(lambda: chunk_ids(fetch, found, size, 6, 8)) == [oid(6), None, oid(8)]
    chunks: Chunks = [*map(oid, range(3000))]
    chunks[7] = None
    assert found == write_content(memory.put, chunks, size)


def test_objects_that_are_no_nodes_are_named() -> None:
    memory = Memory()
    noise = memory.put(b"noise")
    size = 3 * CHUNK_SIZE
    with pytest.raises(Corrupt, match=noise.hex()):
        chunk_ids(memory.fetch, noise, size, 0, 1)
    with pytest.raises(Corrupt, match=noise.hex()):
        allocated(memory.fetch, noise, size)
    with pytest.raises(Corrupt, match=noise.hex()):
        update_content(memory.fetch, memory.put, noise, size, size, {0: None})
    too_long = memory.put(oid(1) * 4)
    with pytest.raises(Corrupt):
        chunk_ids(memory.fetch, too_long, size, 0, 1)
