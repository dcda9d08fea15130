"""Lookup counts are exact and small."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagefs.model import Ino
from imagefs.vfs.lookups import LookupCounts


@given(st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 3))))
def test_counts_match_a_dictionary(operations: list[tuple[int, int]]) -> None:
    counts = LookupCounts()
    expected: dict[int, int] = {}
    for ino, times in operations:
        for _ in range(times):
            counts.add(Ino(ino))
        expected[ino] = expected.get(ino, 0) + times
    assert counts.total == sum(expected.values())
    for ino, times in expected.items():
        assert counts[Ino(ino)] == times
        assert counts.subtract(Ino(ino), times) == 0
    assert counts.total == 0
    assert "0 in 0 pages" in repr(counts)


def test_forgetting_too_often_is_an_error() -> None:
    counts = LookupCounts()
    counts.add(Ino(5))
    with pytest.raises(ValueError, match="Inode 5"):
        counts.subtract(Ino(5), 2)
    with pytest.raises(ValueError, match="Inode 700"):
        counts.subtract(Ino(700), 1)
    assert counts[Ino(5)] == 1
