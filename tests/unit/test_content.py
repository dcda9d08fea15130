"""Content maps: arithmetic, nodes, and what is no node."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagefs.errors import Corrupt
from imagefs.format.content import (
    FANOUT,
    NO_ID,
    check_node,
    chunk_count,
    chunk_length,
    encode_node,
    is_zero,
    map_depth,
    node_child,
    node_span,
)
from imagefs.model import CHUNK_SIZE, MAX_FILE_SIZE, OBJECT_ID_SIZE, ObjectId

A = ObjectId(b"a" * OBJECT_ID_SIZE)
Z = ObjectId(bytes(OBJECT_ID_SIZE - 1) + b"z")


@pytest.mark.parametrize(
    "length", [0, 1, 7, 4096, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE + 5]
)
def test_zeros_are_told_from_anything_else(length: int) -> None:
    zeros = bytes(length)
    assert is_zero(zeros)
    assert is_zero(memoryview(zeros))
    for at in {0, length // 2, length - 1} if length else ():
        data = bytearray(zeros)
        data[at] = 1
        assert not is_zero(bytes(data))
        assert not is_zero(memoryview(data))


@pytest.mark.parametrize(
    ("size", "chunks", "depth"),
    [
        (0, 0, 0),
        (1, 1, 0),
        (CHUNK_SIZE, 1, 0),
        (CHUNK_SIZE + 1, 2, 1),
        (CHUNK_SIZE * FANOUT, FANOUT, 1),
        (CHUNK_SIZE * FANOUT + 1, FANOUT + 1, 2),
        (CHUNK_SIZE * FANOUT**2, FANOUT**2, 2),
        (MAX_FILE_SIZE, 2**46, 5),
    ],
)
def test_chunks_and_levels_follow_from_the_size(size: int, chunks: int, depth: int) -> None:
    assert chunk_count(size) == chunks
    assert map_depth(size) == depth
    assert node_span(depth) >= chunks
    if chunks:
        assert 0 < chunk_length(chunks - 1, size) <= CHUNK_SIZE
    assert chunk_length(chunks, size) == 0


@given(st.lists(st.sampled_from([None, A, Z]), max_size=20))
def test_a_node_gives_back_its_children(children: list[ObjectId | None]) -> None:
    data = encode_node(children)
    assert [node_child(data, i) for i in range(len(children))] == children
    assert node_child(data, len(children)) is None
    if any(children):
        check_node(data, len(children))
    else:
        assert data == b""


@pytest.mark.parametrize(
    "data", [b"", A[:-1], A + b"x", NO_ID, A + NO_ID, NO_ID + A + A + A, A * (FANOUT + 1)]
)
def test_what_is_no_node_of_three_children(data: bytes) -> None:
    with pytest.raises(Corrupt):
        check_node(data, 3)


def test_an_id_may_begin_and_end_with_zeros() -> None:
    child = ObjectId(b"\0x" + bytes(OBJECT_ID_SIZE - 2))
    data = encode_node([None, child, None])
    check_node(data, 2)
    assert node_child(data, 1) == child
