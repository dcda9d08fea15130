"""The index of regions: what it finds, what it forgets, and what its document says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.disk import Disk
from imagefs.errors import StoreError
from imagefs.format.record import object_id
from imagefs.format.region import Descriptor, IndexedRecord, PackName
from imagefs.model import CHUNK_SIZE
from imagefs.region.index import REGION_INDEX_VERSION, WINDOW, RegionIndex, split
from tests.columns import columns, section, told

A, B, C = (object_id(name) for name in (b"a", b"b", b"c"))
PACK = PackName(b"p" * 32, 200)
OTHER = PackName(b"q" * 32, 200)
TREE = Descriptor(A, 1, 1, 0, None, (PACK,))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[RegionIndex]:
    found, fresh = RegionIndex.make(tmp_path / "index.db", Disk())
    assert fresh
    yield found
    found.close()


def test_objects_are_found_in_every_pack_that_has_them(index: RegionIndex) -> None:
    index.add("eu", PACK, 1000, [IndexedRecord(24, 100, (A, B)), IndexedRecord(124, 300, (C,))])
    index.add("us", PACK, 1000, [IndexedRecord(24, 100, (A,))])
    index.add("eu", PACK, 1000, [IndexedRecord(24, 100, (A,))])  # is known already
    numbers = [index.packs("eu")[PACK], index.packs("us")[PACK]]
    assert [(place.pack, *place[1:]) for place in index.find(A)] == [
        (numbers[0], 24, 100, 0, 24, 400),
        (numbers[1], 24, 100, 0, 24, 100),
    ]
    assert index.find(C) == [(numbers[0], 124, 300, 0, 24, 400)]
    assert index.find(object_id(b"nowhere")) == []
    assert index.objects() == 4
    pack = index.pack(numbers[1])
    assert pack is not None
    assert (pack.region, pack.name, pack.size) == ("us", PACK, 1000)


def test_a_pack_that_is_dropped_leaves_its_number_unused(index: RegionIndex) -> None:
    index.add("eu", PACK, 1000, [IndexedRecord(24, 100, (A,))])
    index.remember("eu", [TREE])
    index.learned("eu", TREE)
    number = index.packs("eu")[PACK]
    index.drop(number)
    index.drop(number)
    assert index.find(A) == []
    assert index.windows(number, 0, 9) == []
    assert index.images() == [("eu", A, False)]
    index.add("eu", PACK, 1000, [IndexedRecord(24, 100, (A,))])
    assert index.packs("eu")[PACK] > number


def test_a_region_that_is_forgotten_leaves_the_others(index: RegionIndex) -> None:
    for region in ("eu", "us"):
        index.add(region, PACK, 1000, [IndexedRecord(24, 100, (A,))])
        index.remember(region, [TREE])
    assert index.forget("eu") == [PACK]
    assert [place.pack for place in index.find(A)] == [index.packs("us")[PACK]]
    assert index.images() == [("us", A, False)]
    assert index.packs("eu") == {}


def test_what_is_remembered_twice_is_no_news(index: RegionIndex) -> None:
    assert index.remember("eu", [TREE])
    index.learned("eu", TREE)
    assert not index.remember("eu", [TREE])
    assert index.images() == [("eu", A, True)]
    moved = Descriptor(A, 1, 1, 0, None, (OTHER,))
    assert index.remember("eu", [moved])
    assert index.images() == [("eu", A, False)]
    index.learned("eu", TREE)  # of what it was before
    assert index.images() == [("eu", A, False)]
    assert index.descriptor("eu", A) == moved
    assert index.descriptor("us", A) is None


def test_packs_are_cut_into_windows() -> None:
    record = CHUNK_SIZE + 60
    records = [IndexedRecord(24 + n * record, record, (A,)) for n in range(5)]
    assert [(window.offset, len(window.records)) for window in split(records)] == [
        (24, 2), (24 + 2 * record, 2), (24 + 4 * record, 1),
    ]  # fmt: skip
    apart = [IndexedRecord(24, 100, (A,)), IndexedRecord(125, 100, (A,))]
    assert [window.size for window in split(apart)] == [100, 100]
    large = [IndexedRecord(24, 100, (A,)), IndexedRecord(124, 10 * WINDOW, (A,))]
    assert [window.size for window in split(large)] == [100, 10 * WINDOW]
    assert split([]) == []


def test_an_index_of_a_later_version_is_left_alone(index: RegionIndex, tmp_path: Path) -> None:
    with index._transaction() as connection:
        connection.execute(f"PRAGMA user_version = {REGION_INDEX_VERSION + 1}")
    with pytest.raises(StoreError, match="newer imagefs"):
        RegionIndex.make(tmp_path / "index.db", Disk())
    assert (tmp_path / "index.db").exists()


def test_every_column_is_told(index: RegionIndex, tmp_path: Path) -> None:
    assert told("The index of regions") == columns(tmp_path / "index.db")
    assert f"its version, {REGION_INDEX_VERSION}." in section("The index of regions")
    assert f"{WINDOW:,} bytes" in section("The index of regions")
