"""File content: chunk by chunk over what is stored, holes, cutting and growing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagefs.errors import Corrupt, FileTooBig, IOFailure, NoSpace, NotReady
from imagefs.model import CHUNK_SIZE, MAX_FILE_SIZE, ROOT_INO, AttributeChange, Ino, ObjectId
from imagefs.overlay import layer
from imagefs.overlay.heap import Heap
from imagefs.store import Store
from imagefs.tree import Tree
from tests.overlay.workbench import START, Bench, empty_tree
from tests.store.watched import WatchedDisk

GIB = 1 << 30


def cut(bench: Bench, ino: Ino, size: int) -> None:
    bench.run(bench.overlay.change_attributes, ino, AttributeChange(size=size))


def blocks(bench: Bench, ino: Ino) -> int:
    return bench.overlay.attributes(ino).blocks * 512


def over(bench: Bench, name: str = "upper") -> Bench:
    return Bench(bench.directory.with_name(name), bench.store, bench.commit())


def random_chunks(count: int) -> bytes:
    return os.urandom(count * CHUNK_SIZE)


def test_reading_gives_what_is_there_and_no_more(bench: Bench) -> None:
    ino = bench.make(b"f", content=b"0123456789")
    assert bench.overlay.read(ino, 3, 4) == b"3456"
    assert bench.overlay.read(ino, 8, 100) == b"89"
    assert bench.overlay.read(ino, 10, 1) == b""
    assert bench.overlay.read(ino, 1 << 40, 1) == b""
    assert bench.overlay.write(ino, 5, b"") == 0


def test_a_stored_file_that_lost_its_name_is_written_and_read_on(bench: Bench) -> None:
    """Also where nobody changed it before, so that it has no row."""
    content = random_chunks(3)
    bench.make(b"f", content=content)
    upper = over(bench)
    ino = upper.ino(b"f")
    upper.run(upper.overlay.unlink, ROOT_INO, b"f")
    upper.run(upper.overlay.write, ino, CHUNK_SIZE + 5, b"still here")
    expected = content[: CHUNK_SIZE + 5] + b"still here" + content[CHUNK_SIZE + 15 :]
    assert upper.content(ino) == expected
    cut(upper, ino, CHUNK_SIZE + 7)
    assert upper.content(ino) == expected[: CHUNK_SIZE + 7]
    upper.overlay.discard(ino)
    assert upper.overlay.check(upper.store.get) == []
    assert upper.overlay.changed_bytes == 0


def test_a_file_written_in_small_steps_moves_to_larger_places(bench: Bench) -> None:
    files = [bench.make(b"%d" % number) for number in range(3)]
    content = os.urandom(3 * 4096 + 100)
    for offset in range(0, 2 * CHUNK_SIZE, 1000):
        for ino in files:
            bench.run(bench.overlay.write, ino, offset, content[offset % 12000 :][:1000])
    expected = b"".join(
        content[offset % 12000 :][:1000] for offset in range(0, 2 * CHUNK_SIZE, 1000)
    )
    for ino in files:
        assert bench.content(ino) == expected
    assert bench.overlay.check(bench.store.get) == []
    # Chunk 0, and the chunks behind it at their full capacity.
    assert bench.overlay.changed_bytes <= 3 * 3 * CHUNK_SIZE + 3 * 4096


def test_one_file_that_grows_alone_stays_in_place(bench: Bench) -> None:
    ino = bench.make(b"log")
    for number in range(100):
        bench.overlay.write(ino, number * 1000, b"%1000d" % number)
    inode = bench.overlay._inodes.get(ino)
    assert inode.capacity == 102400
    assert inode.place + inode.capacity == bench.overlay._layer.space._end
    assert bench.overlay.attributes(ino).blocks == 102400 // 512


def test_holes_stay_holes(bench: Bench) -> None:
    ino = bench.make(b"sparse")
    cut(bench, ino, 50 * GIB)
    assert blocks(bench, ino) == 0
    bench.overlay.write(ino, 40 * GIB, b"x")
    assert blocks(bench, ino) == CHUNK_SIZE
    assert bench.run(bench.overlay.read, ino, 40 * GIB - 2, 4) == b"\0\0x\0"
    upper = over(bench)
    below = upper.ino(b"sparse")
    assert upper.tree.entry(below).count == CHUNK_SIZE
    assert blocks(upper, below) == CHUNK_SIZE


def test_the_largest_file(bench: Bench) -> None:
    ino = bench.make(b"huge")
    cut(bench, ino, MAX_FILE_SIZE)
    assert bench.overlay.attributes(ino).size == MAX_FILE_SIZE
    bench.overlay.write(ino, MAX_FILE_SIZE - 3, b"end")
    assert bench.run(bench.overlay.read, ino, MAX_FILE_SIZE - 4, 100) == b"\0end"
    with pytest.raises(FileTooBig):
        bench.overlay.write(ino, MAX_FILE_SIZE - 2, b"end")
    with pytest.raises(FileTooBig):
        cut(bench, ino, MAX_FILE_SIZE + 1)
    upper = over(bench)
    below = upper.ino(b"huge")
    assert upper.run(upper.overlay.read, below, MAX_FILE_SIZE - 4, 100) == b"\0end"
    upper.run(upper.overlay.write, below, 1 << 60, b"middle")
    cut(upper, below, (1 << 60) + 3)
    assert blocks(upper, below) == CHUNK_SIZE
    assert upper.run(upper.overlay.read, below, (1 << 60) - 1, 10) == b"\0mid"
    third = over(upper, "third")
    assert third.run(third.overlay.read, third.ino(b"huge"), (1 << 60) - 1, 10) == b"\0mid"


@pytest.mark.parametrize("first", [10, 5000, CHUNK_SIZE - 1, CHUNK_SIZE + 10])
@pytest.mark.parametrize("stored", [False, True])
def test_what_was_cut_off_never_shows_again(bench: Bench, first: int, stored: bool) -> None:
    content = random_chunks(3)
    ino = bench.make(b"f", content=content)
    if stored:
        bench = over(bench)
        ino = bench.ino(b"f")
    cut(bench, ino, first)
    cut(bench, ino, len(content))
    assert bench.content(ino) == content[:first].ljust(len(content), b"\0")
    cut(bench, ino, first)
    bench.run(bench.overlay.write, ino, first + 20000, b"x")
    assert bench.content(ino) == content[:first] + bytes(20000) + b"x"
    cut(bench, ino, 0)
    assert blocks(bench, ino) == 0
    cut(bench, ino, 2 * CHUNK_SIZE)
    assert bench.content(ino) == bytes(2 * CHUNK_SIZE)
    assert bench.overlay.check(bench.store.get) == []


def test_blocks_count_what_is_stored_and_what_is_written(bench: Bench) -> None:
    content = random_chunks(2) + bytes(3 * CHUNK_SIZE) + random_chunks(2) + b"tail"
    bench.make(b"f", content=content)
    upper = over(bench)
    ino = upper.ino(b"f")
    full = 4 * CHUNK_SIZE + 4
    assert blocks(upper, ino) == -(-full // 512) * 512
    # Over a stored chunk nothing is added, into a hole a chunk is.
    upper.run(upper.overlay.write, ino, 100, b"x")
    assert blocks(upper, ino) == -(-full // 512) * 512
    upper.run(upper.overlay.write, ino, 3 * CHUNK_SIZE, b"x")
    assert blocks(upper, ino) == -(-(full + CHUNK_SIZE) // 512) * 512
    cut(upper, ino, 6 * CHUNK_SIZE)
    assert blocks(upper, ino) == 4 * CHUNK_SIZE
    cut(upper, ino, 4 * CHUNK_SIZE)
    assert blocks(upper, ino) == 3 * CHUNK_SIZE
    cut(upper, ino, CHUNK_SIZE)
    assert blocks(upper, ino) == CHUNK_SIZE


def test_a_write_copies_the_chunks_it_touches_and_no_other(bench: Bench) -> None:
    content = random_chunks(8)
    bench.make(b"f", content=content)
    upper = over(bench)
    ino = upper.ino(b"f")
    ids = upper.run(upper.tree.chunk_ids, upper.tree.entry(ino), 0, 7)
    asked: list[ObjectId] = []
    original = upper.fetch.__call__

    def noting(oid: ObjectId) -> bytes:
        asked.append(oid)
        return original(oid)

    upper.overlay._layer.fetch = noting
    upper.run(upper.overlay.write, ino, 3 * CHUNK_SIZE + 5, b"inside")
    assert {oid for oid in asked if oid in ids} == {ids[3]}
    asked.clear()
    upper.run(upper.overlay.write, ino, 5 * CHUNK_SIZE, bytes(CHUNK_SIZE))
    upper.run(upper.overlay.write, ino, 7 * CHUNK_SIZE + 5, os.urandom(4 * CHUNK_SIZE))
    # A chunk that is overwritten whole is not needed; of the last write only the first is.
    assert {oid for oid in asked if oid in ids} == {ids[7]}
    assert upper.overlay.changed_bytes == (1 + 1 + 5) * CHUNK_SIZE


def test_a_large_file_of_the_base_is_changed_by_the_chunk(bench: Bench) -> None:
    ino = bench.make(b"disk")
    cut(bench, ino, 4 * GIB)
    for place in range(0, 4 * GIB, 256 << 20):
        bench.overlay.write(ino, place, b"%20d" % place)
    upper = over(bench)
    below = upper.ino(b"disk")
    for place in range(0, 4 * GIB, 256 << 20):
        upper.run(upper.overlay.write, below, place + 4096, b"y" * 4096)
    assert upper.overlay.changed_bytes == 16 * CHUNK_SIZE
    heap = upper.directory / "heap"
    assert heap.stat().st_blocks * 512 <= 17 * CHUNK_SIZE
    third = over(upper, "third")
    for place in range(0, 4 * GIB, 256 << 20):
        data = third.run(third.overlay.read, third.ino(b"disk"), place, 8192)
        assert data == b"%20d" % place + bytes(4076) + b"y" * 4096


def test_everything_that_a_read_needs_is_asked_for_at_once(bench: Bench) -> None:
    content = random_chunks(6)
    bench.make(b"f", content=content)
    upper = over(bench)
    ino = upper.ino(b"f")
    upper.run(upper.overlay.read, ino, 0, 1)
    upper.fetch.start()
    # One round for the map node, one for all six chunks.
    for _ in range(2):
        with pytest.raises(NotReady) as caught:
            upper.overlay.read(ino, 10, 5 * CHUNK_SIZE)
        bench.do(caught.value)
    assert upper.overlay.read(ino, 10, 5 * CHUNK_SIZE) == content[10 : 10 + 5 * CHUNK_SIZE]


def test_a_heap_that_is_not_in_memory_is_read_by_a_worker(tmp_path: Path, store: Store) -> None:
    disk = WatchedDisk()
    bench = Bench(tmp_path / "overlay", store, empty_tree(store), disk)
    content = random_chunks(3)
    ino = bench.make(b"f", content=content)
    disk.in_memory = False
    disk.calls.clear()
    with pytest.raises(NotReady) as caught:
        bench.overlay.read(ino, 0, 100)
    assert "pread" not in dict(disk.calls)
    bench.do(caught.value)
    assert disk.names("pread") == ["heap"]
    # Although it is still not in memory, the second attempt does not ask again.
    assert bench.overlay.read(ino, 0, 100) == content[:100]
    assert (
        bench.run(bench.overlay.read, ino, 100, 2 * CHUNK_SIZE) == content[100:][: 2 * CHUNK_SIZE]
    )
    bench.overlay.close()


def test_a_damaged_chunk_is_told_with_the_file(bench: Bench) -> None:
    bench.make(b"d", 0o40755)
    bench.make(b"d/f", content=random_chunks(2))
    upper = over(bench)
    ino = upper.ino(b"d/f")
    ids = upper.run(upper.tree.chunk_ids, upper.tree.entry(ino), 0, 1)
    original = upper.fetch.__call__

    def damaged(oid: ObjectId) -> bytes:
        if oid == ids[1]:
            raise Corrupt("Object is damaged")
        return original(oid)

    upper.overlay._layer.fetch = damaged
    assert len(upper.run(upper.overlay.read, ino, 0, CHUNK_SIZE)) == CHUNK_SIZE
    with pytest.raises(Corrupt, match=r"d/f.*Object is damaged"):
        upper.run(upper.overlay.read, ino, CHUNK_SIZE, 1)
    with pytest.raises(Corrupt, match="d/f"):
        upper.run(upper.overlay.write, ino, CHUNK_SIZE + 1, b"x")
    upper.run(upper.overlay.write, ino, CHUNK_SIZE, bytes(CHUNK_SIZE))
    assert upper.content(ino)[CHUNK_SIZE:] == bytes(CHUNK_SIZE)


def test_small_files_lie_close_together(bench: Bench) -> None:
    for number in range(50):
        bench.make(b"%d" % number, content=b"x" * 100)
    assert bench.overlay.changed_bytes == 50 * 4096
    assert os.path.getsize(bench.directory / "heap") <= 50 * 4096


def test_freed_space_goes_back_to_the_host(bench: Bench) -> None:
    heap = bench.directory / "heap"
    ino = bench.make(b"f", content=random_chunks(20))
    bench.make(b"stays", content=b"x")
    bench.overlay.sync()
    assert heap.stat().st_blocks * 512 > 20 * CHUNK_SIZE
    wanted = [bench.overlay.wants_sync]
    bench.overlay.unlink(ROOT_INO, b"f")
    bench.overlay.discard(ino)
    wanted.append(bench.overlay.wants_sync)
    assert wanted == [False, True]
    bench.overlay.sync()
    assert heap.stat().st_blocks * 512 <= 2 * 4096
    cut(bench, bench.make(b"g", content=random_chunks(4)), CHUNK_SIZE)
    bench.overlay.sync()
    assert heap.stat().st_blocks * 512 <= CHUNK_SIZE + 2 * 4096


def test_used_up_addresses_are_taken_from_what_was_freed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[Ino, bytes] = {}
    for number in range(12):
        content = random_chunks(1)
        ino = bench.make(b"%02d" % number, content=content)
        if number % 4 == 3:
            kept[ino] = content
        else:
            bench.overlay.unlink(ROOT_INO, b"%02d" % number)
            if number != 4:
                bench.overlay.discard(ino)
            else:
                kept[ino] = content
    space = bench.overlay._layer.space
    space._limit = space._end + CHUNK_SIZE
    monkeypatch.setattr(layer, "LIMIT", space._limit)
    for number in range(3):
        content = random_chunks(1)
        kept[bench.make(b"new%d" % number, content=content)] = content
    # Files 0 to 2 left the first of the largest gaps; 4 is still open.
    assert space._limit == 3 * CHUNK_SIZE
    for ino, content in kept.items():
        assert bench.content(ino) == content
    assert bench.overlay.check(bench.store.get) == []
    bench.kill()
    more = bench.make(b"more", content=b"zeros before" + bytes(100))
    assert bench.content(more) == b"zeros before" + bytes(100)


def test_files_that_are_huge_together_are_told_of(bench: Bench) -> None:
    for name in (b"a", b"b", b"c"):
        ino = bench.make(name)
        bench.run(bench.overlay.change_attributes, ino, AttributeChange(size=MAX_FILE_SIZE))
    bench.run(bench.overlay.link, bench.ino(b"a"), ROOT_INO, b"linked")
    assert (bench.overlay.entries, bench.overlay.bytes) == (4, MAX_FILE_SIZE)
    for name in (b"a", b"linked"):
        bench.run(bench.overlay.unlink, ROOT_INO, name)
    assert bench.overlay.bytes == MAX_FILE_SIZE
    tree = Tree(bench.store.get, bench.commit())
    assert tree.manifest.root.size == MAX_FILE_SIZE


def interrupted(bench: Bench, ino: Ino, offset: int, data: bytes) -> NotReady:
    """What a write needs first that moves a chunk with durable bytes."""
    with pytest.raises(NotReady) as caught:
        bench.overlay.write(ino, offset, data)
    assert caught.value.key[0] == "copy"  # type: ignore[index]
    return caught.value


def durable_file(bench: Bench) -> Ino:
    """A file of one page that cannot grow in place."""
    ino = bench.make(b"f", content=b"a" * 4096)
    bench.make(b"behind", content=b"b" * 4096)
    bench.overlay.sync()
    return ino


def test_what_is_written_while_a_chunk_is_copied_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when all of it happens within one tick of the clock."""
    monkeypatch.setattr(bench.overlay._layer, "clock", lambda: START)
    ino = durable_file(bench)
    bench.run(bench.overlay.write, ino, 0, b"first")
    needed = interrupted(bench, ino, 5000, b"end")
    bench.run(bench.overlay.write, ino, 0, b"later")
    bench.do(needed)
    bench.run(bench.overlay.write, ino, 5000, b"end")
    assert bench.content(ino) == b"later" + b"a" * 4091 + bytes(904) + b"end"


def test_copies_nobody_came_back_for_leave_nothing(bench: Bench) -> None:
    ino = durable_file(bench)
    for offset in (5000, 9000, 13000):
        bench.do(interrupted(bench, ino, offset, b"end"))
    bench.reopen()
    assert (bench.directory / "heap").stat().st_blocks == 2 * 8


def test_copies_of_a_write_that_fails_leave_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = random_chunks(2)
    bench.make(b"f", content=content)
    upper = over(bench)
    ino = upper.ino(b"f")

    def fail(*_: object) -> None:
        raise IOFailure("Simulated")

    with monkeypatch.context() as patched:
        patched.setattr(Heap, "write", fail)
        with pytest.raises(IOFailure):
            upper.run(upper.overlay.write, ino, CHUNK_SIZE - 5, b"0123456789")
    upper.reopen()
    assert (upper.directory / "heap").stat().st_blocks == 0
    assert upper.content(ino) == content
    upper.overlay.close()


@pytest.mark.parametrize("deleted", [True, False])
def test_a_copy_that_finds_no_room_takes_what_was_deleted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, deleted: bool
) -> None:
    ino = durable_file(bench)
    gone = bench.make(b"gone", content=b"c" * 4096)
    bench.overlay.sync()
    if deleted:
        bench.overlay.unlink(ROOT_INO, b"gone")
        bench.overlay.discard(gone)
    heap = bench.overlay._layer.heap
    write = heap.write_durably

    def full(place: int, data: bytes) -> None:
        if not deleted or heap.has_released:
            raise NoSpace("Full")
        write(place, data)

    monkeypatch.setattr(heap, "write_durably", full)
    if not deleted:
        with pytest.raises(NoSpace):
            bench.run(bench.overlay.write, ino, 5000, b"end")
        assert bench.content(ino) == b"a" * 4096
        return
    bench.run(bench.overlay.write, ino, 5000, b"end")
    assert bench.content(ino) == b"a" * 4096 + bytes(904) + b"end"
