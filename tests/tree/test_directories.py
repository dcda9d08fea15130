"""Writing directories: the pages follow from the entries, however they came about."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagefs.errors import Corrupt, InvalidArgument, InvalidName, NotSupported
from imagefs.format.directory import (
    MAX_INODES,
    PAGE_LIMIT,
    Entry,
    Index,
    boundary_rank,
    decode_page,
    encode_index,
)
from imagefs.tree.directories import (
    DirectoryBuilder,
    DirectorySummary,
    update_directory,
    write_directory,
)
from imagefs.tree.pages import Pages
from tests.tree.samples import Memory, take

Entries = dict[bytes, Entry]


def a_file(name: bytes, mtime: int = 0, size: int = 0) -> Entry:
    return Entry(name, 0o100644, 0, 0, mtime, size, 0, None, 0, None)


def a_directory(memory: Memory, name: bytes, files: int) -> Entry:
    below = write_directory(memory.put, [a_file(b"%d" % i, size=10) for i in range(files)])
    return Entry(name, 0o040755, 0, 0, 0, below.size, below.count, below.ref, below.links, None)


def many(rng: random.Random, count: int) -> Entries:
    names = {b"%x" % rng.getrandbits(rng.choice([16, 40])) for _ in range(count)}
    return {name: a_file(name, size=rng.randrange(5)) for name in names}


def random_changes(rng: random.Random, entries: Entries) -> dict[bytes, Entry | None]:
    """Removals of single names, of whole stretches and of names that begin pages;
    replacements; additions all over or close together."""
    changes: dict[bytes, Entry | None] = {}
    ordered = sorted(entries)
    if ordered and rng.random() < 0.5:
        changes.update(dict.fromkeys(rng.sample(ordered, rng.randint(1, min(9, len(ordered))))))
    if ordered and rng.random() < 0.4:
        low, high = sorted((rng.randint(0, len(ordered)), rng.randint(0, len(ordered))))
        changes.update(dict.fromkeys(ordered[low:high]))
    if rng.random() < 0.4:
        first_names = [name for name in ordered if boundary_rank(name)]
        changes.update(dict.fromkeys(rng.sample(first_names, len(first_names) // 2)))
    if ordered and rng.random() < 0.4:
        name = rng.choice(ordered)
        changes[name] = a_file(name, mtime=rng.randrange(9))
    if rng.random() < 0.6:
        changes.update(many(rng, rng.choice([1, 10, 300])))
    if rng.random() < 0.3:
        changes.update({name: a_file(name) for name in (b"f%05x" % i for i in range(200))})
    if rng.random() < 0.3:
        changes[b"not there %d" % rng.randrange(9)] = None
    return changes


def apply(entries: Entries, changes: dict[bytes, Entry | None]) -> Entries:
    merged = {**entries, **changes}
    return {name: entry for name, entry in merged.items() if entry is not None}


@pytest.mark.parametrize("seed", range(60))
def test_updates_give_what_writing_everything_gives(seed: int) -> None:
    rng = random.Random(seed)
    memory = Memory()
    entries = many(rng, rng.choice([0, 1, PAGE_LIMIT - 1, PAGE_LIMIT, PAGE_LIMIT + 2, 1000, 9000]))
    summary = write_directory(memory.put, entries.values())
    for _ in range(6):
        changes = random_changes(rng, entries)
        entries = apply(entries, changes)
        summary = update_directory(memory.fetch, memory.put, summary.ref, changes)
        assert summary == write_directory(memory.put, entries.values())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, 700)), min_size=1, max_size=4),
    st.integers(0, 2**32),
)
def test_any_sequence_of_edits(edits: list[set[int]], seed: int) -> None:
    """Each edit removes what is there and adds what is not."""
    memory = Memory()
    entries = {name: a_file(name) for name in (b"%d" % (i + seed) for i in range(0, 700, 2))}
    summary = write_directory(memory.put, entries.values())
    for edit in edits:
        changes: dict[bytes, Entry | None] = {}
        for name in (b"%d" % (i + seed) for i in edit):
            changes[name] = None if name in entries else a_file(name)
        entries = apply(entries, changes)
        summary = update_directory(memory.fetch, memory.put, summary.ref, changes)
    assert summary == write_directory(memory.put, entries.values())


def test_the_order_of_writing_does_not_matter() -> None:
    memory = Memory()
    entries = list(many(random.Random(1), 2000).values())
    summaries = []
    for seed in range(3):
        random.Random(seed).shuffle(entries)
        summaries.append(write_directory(memory.put, entries))
    grown = write_directory(memory.put, [])
    for start in range(0, 2000, 400):
        piece: dict[bytes, Entry | None] = {e.name: e for e in entries[start : start + 400]}
        grown = update_directory(memory.fetch, memory.put, grown.ref, piece)
    assert all(summary == grown for summary in summaries)


def test_totals_count_everything_below() -> None:
    memory = Memory()
    inner = [a_directory(memory, b"%03d" % i, 3) for i in range(300)]
    summary = write_directory(memory.put, [*inner, a_file(b"x", size=5)])
    assert summary == DirectorySummary(summary.ref, 300 * 30 + 5, 300 * 4 + 1, 300)
    changes: dict[bytes, Entry | None] = {b"007": None, b"x": None, b"y": a_file(b"y", size=1)}
    summary = update_directory(memory.fetch, memory.put, summary.ref, changes)
    assert (summary.size, summary.count, summary.links) == (299 * 30 + 1, 299 * 4 + 1, 299)


def test_no_change_changes_nothing() -> None:
    memory = Memory()
    entries = many(random.Random(2), 1000)
    summary = write_directory(memory.put, entries.values())
    name = min(entries)
    nothings: list[dict[bytes, Entry | None]] = [{}, {name: entries[name]}, {b"none of them": None}]
    for changes in nothings:
        assert update_directory(memory.fetch, memory.put, summary.ref, changes) == summary


def test_an_update_can_be_repeated_when_pages_are_not_at_hand() -> None:
    memory = Memory()
    entries = many(random.Random(3), 3000)
    summary = write_directory(memory.put, entries.values())
    changes: dict[bytes, Entry | None] = dict.fromkeys(sorted(entries)[100:2800:300])
    fetch = memory.unready_fetch()
    found = take(lambda: update_directory(fetch, memory.put, summary.ref, changes))
    assert found == write_directory(memory.put, apply(entries, changes).values())


@pytest.mark.parametrize("names", [[b"b", b"a"], [b"a", b"a"], [b""], [b"a/b"], [b".."]])
def test_names_that_cannot_come_next(names: list[bytes]) -> None:
    builder = DirectoryBuilder(Memory().put)
    for name in names[:-1]:
        builder.add(a_file(name))
    with pytest.raises(InvalidName):
        builder.add(a_file(names[-1]))


@pytest.mark.parametrize(
    "fields",
    [
        {"mtime": 2**63},
        {"mtime": -(2**63) - 1},
        {"uid": 2**32},
        {"gid": -1},
        {"size": 2**63},
        {"size": 5, "count": 5},
        {"mode": 0o644},
        {"mode": 0o120777, "ref": b""},
    ],
    ids=str,
)
def test_entries_that_could_not_be_read_again_are_not_written(fields: dict[str, Any]) -> None:
    entry = msgspec.structs.replace(a_file(b"f"), **fields)
    with pytest.raises(InvalidArgument):
        write_directory(Memory().put, [entry])


def test_more_inodes_than_a_tree_can_have() -> None:
    memory = Memory()
    half = msgspec.structs.replace(a_directory(memory, b"a", 1), count=MAX_INODES // 2)
    with pytest.raises(NotSupported, match="at most"):
        write_directory(memory.put, [half, msgspec.structs.replace(half, name=b"b")])


def test_pages_stay_small() -> None:
    memory = Memory()
    write_directory(memory.put, [a_file(b"%06d" % i) for i in range(50_000)])
    lengths = sorted(len(decode_page(data).names) for data in memory.objects.values())
    assert lengths[len(lengths) // 2] < 80
    assert lengths[-1] < 1000


# -- pages that do not fit each other ---------------------------------------------------


def replaced_child(memory: Memory, root: Index, **lies: object) -> Entry:
    """The entry of a directory whose second page is listed with other figures."""
    rows = list(root.pages)
    rows[1] = msgspec.structs.replace(rows[1], **lies)
    total = Index(root.level, rows, 0).claim
    ref = memory.put(encode_index(root.level, rows))
    return Entry(b"d", 0o040755, 0, 0, 0, total.size, total.total, ref, total.links, None)


def test_pages_that_are_not_what_their_index_says() -> None:
    memory = Memory()
    entries = many(random.Random(5), 2000)
    summary = write_directory(memory.put, entries.values())
    root = decode_page(memory.objects[summary.ref])
    assert isinstance(root, Index)
    page = root.pages[1]
    lies: list[dict[str, object]] = [
        {"names": page.names + 1, "total": page.total + 1},
        {"total": page.total + 1},
        {"size": page.size + 1},
        {"links": 1},
        {"ref": root.pages[0].ref},
        {"ref": summary.ref},
    ]
    name = page.first
    for lie in lies:
        directory = replaced_child(memory, root, **lie)
        with pytest.raises(Corrupt, match="not what its index page says"):
            Pages(memory.fetch).find(directory, name)
        warm = Pages(memory.fetch)
        honest = Entry(b"d", 0o040755, 0, 0, 0, summary.size, summary.count, summary.ref, 0, None)
        assert warm.find(honest, name) is not None
        assert warm.find(honest, root.pages[0].first) is not None
        with pytest.raises(Corrupt):
            warm.find(directory, name)


def test_a_directory_split_without_need_is_refused() -> None:
    memory = Memory()
    entries = many(random.Random(6), 2000)
    summary = write_directory(memory.put, entries.values())
    root = decode_page(memory.objects[summary.ref])
    assert isinstance(root, Index)
    few = memory.put(encode_index(root.level, list(root.pages[:1])))
    one = root.pages[0]
    directory = Entry(b"d", 0o040755, 0, 0, 0, one.size, one.total, few, one.links, None)
    with pytest.raises(Corrupt, match="should not have been split"):
        Pages(memory.fetch).root(directory)
    with pytest.raises(Corrupt, match="should not have been split"):
        update_directory(memory.fetch, memory.put, few, {})
