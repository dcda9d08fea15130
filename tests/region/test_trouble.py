"""What a region gives may be damaged, gone, or made by somebody who means harm."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from imagefs.disk import Disk, Entry
from imagefs.errors import Corrupt, ImagefsError
from imagefs.format import directory as pages
from imagefs.format.directory import encode_leaf
from imagefs.format.manifest import Manifest, encode_manifest
from imagefs.format.record import (
    DATA,
    METADATA,
    PACK_HEADER_SIZE,
    encode_pack_header,
    encode_record,
    object_id,
)
from imagefs.format.region import Descriptor, IndexedRecord, PackName, encode_pack_index
from imagefs.model import CHUNK_SIZE, ObjectId
from imagefs.region.bringing import bring
from imagefs.region.bucket import Bucket
from imagefs.region.layout import pack_key
from imagefs.region.url import RegionUrl
from imagefs.tree.objects import tree_objects
from tests.region.machine import Machine, numbered
from tests.seed import SEED
from tests.tree.samples import directory, grown, regular

DISK = Disk()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A region's directory."""
    path = tmp_path / "region"
    path.mkdir()
    return path


@pytest.fixture
def here(tmp_path: Path, place: Path) -> Iterator[Machine]:
    """The machine that sends."""
    with Machine(tmp_path / "here", Bucket(RegionUrl.parse(f"file://{place}"))) as machine:
        yield machine


@pytest.fixture
def there(tmp_path: Path, here: Machine) -> Iterator[Machine]:
    """The machine that reads."""
    with Machine(tmp_path / "there", here.bucket) as machine:
        yield machine


def path_of(place: Path, pack: PackName) -> Path:
    return place / pack_key(pack)


def change(path: Path, at: int, bits: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= bits
    path.write_bytes(data)


def outcome(machine: Machine, oid: ObjectId) -> bytes | None:
    """The object, or None for an error that users may see; the same both ways."""
    found: list[bytes | None] = []
    for get in (machine.store.get, machine.taken):
        try:
            found.append(get(oid))
        except ImagefsError:
            found.append(None)
    assert found[0] == found[1]
    return found[0]


# -- damage -----------------------------------------------------------------------------


def test_any_flipped_byte_costs_some_objects_and_never_gives_wrong_ones(
    here: Machine, place: Path, tmp_path: Path
) -> None:
    rng = random.Random(SEED)
    manifest = here.keep(grown(rng, 40))
    descriptor = here.send(manifest)
    objects = {oid: here.store.get(oid) for oid, _ in tree_objects(here.store.get, manifest)}
    (pack,) = descriptor.packs
    path = path_of(place, pack)
    size = path.stat().st_size
    for number, at in enumerate(sorted(rng.sample(range(size), 40))):
        change(path, at)
        with Machine(tmp_path / f"reader{number}", here.bucket) as reader:
            reader.remember(descriptor)
            for oid, data in objects.items():
                assert outcome(reader, oid) in (None, data)
            change(path, at)
            # As soon as it is good again it is read.
            reader.remember(descriptor)
        with Machine(tmp_path / f"reader{number}", here.bucket) as reader:
            assert {oid: outcome(reader, oid) for oid in objects} == objects


def test_damage_costs_the_objects_of_its_record_only(
    here: Machine, there: Machine, place: Path
) -> None:
    manifest = here.keep(numbered(10, CHUNK_SIZE))
    descriptor = here.send(manifest)
    chunks = [oid for oid, metadata in tree_objects(here.store.get, manifest) if not metadata]
    (where,) = here.upstream.index.find(chunks[3])
    change(path_of(place, descriptor.packs[0]), where.offset + 100)
    there.remember(descriptor)
    there.store.get(manifest)
    assert [oid for oid in chunks if outcome(there, oid) is None] == [chunks[3]]
    with pytest.raises(Corrupt, match=f"{chunks[3].hex()}.*offset {where.offset} of pack"):
        there.store.get(chunks[3])


def test_what_arrives_damaged_is_fetched_three_times(
    here: Machine, there: Machine, place: Path
) -> None:
    manifest = here.keep(numbered(1, CHUNK_SIZE))
    descriptor = here.send(manifest)
    oid = next(oid for oid, metadata in tree_objects(here.store.get, manifest) if not metadata)
    (where,) = here.upstream.index.find(oid)
    there.remember(descriptor)
    there.store.get(manifest)
    path = path_of(place, descriptor.packs[0])
    there.upstream.cache.clear()
    change(path, where.offset + 100)
    before = here.bucket.statistics().requests["get"]
    with pytest.raises(Corrupt):
        there.store.get(oid)
    assert here.bucket.statistics().requests["get"] - before == 3
    change(path, where.offset + 100)
    assert object_id(there.store.get(oid)) == oid


def test_a_pack_that_is_cut_or_gone_costs_what_it_held(
    here: Machine, there: Machine, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = numbered(10, CHUNK_SIZE)
    first = here.send(here.keep(root))
    root.children[b"more"] = regular(b"more")
    manifest = here.keep(root)
    descriptor = here.send(manifest)
    there.remember(descriptor)
    assert len(there.dump(manifest)) == len(here.dump(manifest))
    there.forget_contents()
    path = path_of(place, first.packs[0])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    lost = [oid for oid, _ in tree_objects(here.store.get, manifest) if not outcome(there, oid)]
    assert 0 < len(lost) < 10
    path.unlink()
    there.forget_contents()
    lost = [oid for oid, _ in tree_objects(here.store.get, manifest) if not outcome(there, oid)]
    assert len(lost) == 10
    # Put back, it is found again after a while.
    monkeypatch.setattr("imagefs.region.upstream._LOOK", 0.0)
    there.upstream._tried.clear()
    path.write_bytes(data)
    assert [
        oid for oid, _ in tree_objects(here.store.get, manifest) if not outcome(there, oid)
    ] == []


def test_what_is_damaged_here_is_read_from_the_region(here: Machine) -> None:
    manifest = here.keep(numbered(3, CHUNK_SIZE))
    here.send(manifest)
    expected = here.dump(manifest)
    pack = here.path / "packs/00000001.pack"
    for at in range(100, pack.stat().st_size, 50_000):
        change(pack, at)
    here.store._cache.clear()
    assert here.dump(manifest) == expected
    assert here.store.statistics().damaged_records > 0
    # Bringing it here makes it good again.
    bring(here.store, here.upstream, manifest, lambda *_: None)
    here.store.upstream = None
    assert here.dump(manifest) == expected


def test_what_is_damaged_in_the_region_is_sent_anew(
    here: Machine, there: Machine, place: Path
) -> None:
    root = numbered(5, CHUNK_SIZE)
    manifest = here.keep(root)
    base = here.send(manifest)
    oid = next(oid for oid, metadata in tree_objects(here.store.get, manifest) if not metadata)
    (where,) = here.upstream.index.find(oid)
    change(path_of(place, base.packs[0]), where.offset + 100)
    there.remember(base)
    assert outcome(there, manifest) is not None
    assert outcome(there, oid) is None
    # Who has found the damage and has the object makes it good, also on top of a base.
    there.keep(root)
    root.children[b"new"] = regular(b"new")
    descriptor = there.send(there.keep(root), base)
    with Machine(there.path.with_name("third"), here.bucket) as third:
        third.remember(descriptor)
        assert object_id(third.store.get(oid)) == oid


# -- the local disk ---------------------------------------------------------------------


def windows(machine: Machine) -> list[Path]:
    return sorted((machine.path / "regions/cache").glob("*/*"))


def stored_windows(machine: Machine) -> list[Entry]:
    """What lies there while some of it may be going."""
    cache = machine.path / "regions/cache"
    found: list[Entry] = []
    for pack in DISK.entries(cache):
        with suppress(FileNotFoundError):
            found += DISK.entries(cache / pack.name)
    return found


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
        lambda path: change(path, path.stat().st_size // 2),
    ],
)
def test_windows_that_are_harmed_are_fetched_anew(
    here: Machine, there: Machine, harm: Callable[[Path], object]
) -> None:
    manifest = here.keep(numbered(6, CHUNK_SIZE))
    there.remember(here.send(manifest))
    expected = here.dump(manifest)
    oids = [oid for oid, _ in tree_objects(here.store.get, manifest)]
    assert there.dump(manifest) == expected
    before = here.bucket.statistics().requests["get"]
    for get in (there.store.get, there.taken):
        there.settle()
        there.upstream._records.clear()
        for path in windows(there):
            harm(path)
        for oid in oids:
            assert object_id(get(oid)) == oid
    there.settle()
    there.upstream._records.clear()
    between = here.bucket.statistics().requests["get"]
    assert between - before >= 2
    for oid in oids:
        there.taken(oid)
    assert here.bucket.statistics().requests["get"] == between


def test_nothing_is_fetched_twice_not_even_by_two_processes(
    here: Machine, there: Machine, tmp_path: Path
) -> None:
    manifest = here.keep(numbered(40, CHUNK_SIZE))
    there.remember(here.send(manifest))
    before = here.bucket.statistics().received
    expected = there.dump(manifest)
    received = here.bucket.statistics().received - before
    assert received < 41 * CHUNK_SIZE
    with Machine(there.path, here.bucket) as other:
        assert other.dump(manifest) == expected
    there.upstream._records.clear()
    assert there.dump(manifest) == expected
    assert here.bucket.statistics().received - before == received


def test_the_cache_stays_near_its_bound_and_what_is_used_stays(
    here: Machine, tmp_path: Path
) -> None:
    limit = 20 * CHUNK_SIZE
    manifest = here.keep(numbered(100, CHUNK_SIZE))
    descriptor = here.send(manifest)
    with Machine(tmp_path / "there", here.bucket, cache_bytes=limit) as there:
        there.remember(descriptor)
        oids = [oid for oid, _ in tree_objects(there.store.get, manifest)]
        used = oids[0]
        before = here.bucket.statistics().requests["get"]
        for oid in oids:
            there.upstream._records.clear()
            assert object_id(there.store.get(oid)) == oid
            there.upstream._records.clear()
            there.store.get(used)
            size = sum(entry.size for entry in stored_windows(there))
            assert size <= limit * 1.2 + 9 * 2 * CHUNK_SIZE  # what is being read ahead
        assert there.upstream.statistics().windows_evicted > 20
        # The one that was used all the time was fetched once.
        assert here.bucket.statistics().requests["get"] - before <= 60


# -- harm -------------------------------------------------------------------------------


def put_pack(
    bucket: Bucket,
    blocks: Sequence[bytes],
    claims: Sequence[tuple[ObjectId, ...]],
    *,
    index: bytes | None = None,
    name: bytes | None = None,
) -> PackName:
    """A pack made by hand: `claims` says of each record which objects are in it."""
    records = []
    at = PACK_HEADER_SIZE
    for block, objects in zip(blocks, claims, strict=True):
        records.append(IndexedRecord(at, len(block), objects))
        at += len(block)
    if index is None:
        index = encode_pack_index(records, secrets.token_bytes(16))
    data = b"".join([encode_pack_header(), *blocks, index])
    pack = PackName(name or object_id(data), len(index))
    bucket.put(pack_key(pack), data)
    return pack


def block(*contents: bytes, kind: int = DATA, ids: Sequence[ObjectId] | None = None) -> bytes:
    named = ids or [object_id(content) for content in contents]
    return b"".join(encode_record(list(zip(named, contents, strict=True)), kind))


def small_tree(content: bytes) -> tuple[ObjectId, list[bytes]]:
    """The manifest of a tree of one file, and its metadata."""
    entry = pages.Entry(
        b"f", 0o100644, 0, 0, 0, len(content), len(content), object_id(content), 0, None
    )
    leaf = encode_leaf([entry])
    root = pages.Entry(b"", 0o40755, 0, 0, 0, len(content), 1, object_id(leaf), 0, None)
    manifest = encode_manifest(Manifest(root, None))
    return object_id(manifest), [manifest, leaf]


def remembered(machine: Machine, manifest: ObjectId, *packs: PackName) -> None:
    machine.remember(Descriptor(manifest, 1, 1, 0, None, tuple(sorted(packs))))


WANTED = b"what is wanted"
OTHER = b"something else"


@pytest.mark.parametrize("kind", ["table", "index", "ordinal", "both"])
def test_bytes_that_are_not_the_object_are_not_given(there: Machine, kind: str) -> None:
    manifest, metadata = small_tree(WANTED)
    wanted, other = object_id(WANTED), object_id(OTHER)
    bad, claims = {
        # The table of the record lies, and so does the index.
        "table": (block(OTHER, ids=[wanted]), (wanted,)),
        # Only the index does.
        "index": (block(OTHER), (wanted,)),
        "ordinal": (block(OTHER, WANTED), (wanted, other)),
        "both": (block(OTHER, b"third", ids=[other, wanted]), (other, wanted)),
    }[kind]
    good = block(*metadata, kind=METADATA)
    pack = put_pack(there.bucket, [good, bad], [tuple(map(object_id, metadata)), claims])
    remembered(there, manifest, pack)
    assert outcome(there, manifest) == metadata[0]
    assert outcome(there, wanted) is None
    # Another pack that has it makes up for that.
    better = put_pack(there.bucket, [block(WANTED)], [(wanted,)])
    remembered(there, manifest, pack, better)
    assert outcome(there, wanted) == WANTED


def test_a_pack_whose_name_is_not_its_hash_harms_nobody(there: Machine) -> None:
    manifest, metadata = small_tree(WANTED)
    pack = put_pack(
        there.bucket,
        [block(*metadata, WANTED, kind=METADATA)],
        [(*map(object_id, metadata), object_id(WANTED))],
        name=b"n" * 32,
    )
    remembered(there, manifest, pack)
    assert outcome(there, object_id(WANTED)) == WANTED


@pytest.mark.parametrize(
    "index",
    [
        bytes(100),
        secrets.token_bytes(100),
        encode_pack_index([IndexedRecord(24, 2**31, (object_id(WANTED),))], bytes(16)),
        encode_pack_index([IndexedRecord(2**31, 100, (object_id(WANTED),))], bytes(16)),
        encode_pack_index(
            [
                IndexedRecord(24, 70, (object_id(WANTED),)),
                IndexedRecord(50, 70, (ObjectId(b"x" * 32),)),
            ],
            bytes(16),
        ),
    ],
)
def test_an_index_that_cannot_be_is_left_out(there: Machine, index: bytes) -> None:
    manifest, metadata = small_tree(WANTED)
    good = put_pack(
        there.bucket, [block(*metadata, kind=METADATA)], [tuple(map(object_id, metadata))]
    )
    bad = put_pack(there.bucket, [block(WANTED)], [()], index=index)
    remembered(there, manifest, good, bad)
    assert outcome(there, manifest) == metadata[0]
    assert outcome(there, object_id(WANTED)) is None
    # A sender does not count on it.
    here_too = there.keep(directory({b"f": regular(WANTED)}))
    there.send(here_too)
    assert object_id(WANTED) in there.store


def test_a_descriptor_of_packs_that_are_not_there(there: Machine) -> None:
    manifest, _ = small_tree(WANTED)
    for count in (1, 100):
        packs = [PackName(bytes([n]) * 32, 100) for n in range(count)]
        remembered(there, manifest, *packs)
        assert outcome(there, manifest) is None


def test_a_tree_that_contradicts_itself_is_not_brought(there: Machine) -> None:
    entry = pages.Entry(b"f", 0o100644, 0, 0, 0, 99, 99, object_id(WANTED), 0, None)
    leaf = encode_leaf([entry])
    root = pages.Entry(b"", 0o40755, 0, 0, 0, 99, 1, object_id(leaf), 0, None)
    manifest = encode_manifest(Manifest(root, None))
    oids = tuple(map(object_id, (manifest, leaf, WANTED)))
    pack = put_pack(there.bucket, [block(manifest, leaf, WANTED, kind=METADATA)], [oids])
    remembered(there, oids[0], pack)
    with pytest.raises(Corrupt, match=r"f: Bytes 0 to 98: .* has 14 bytes where 99 belong"):
        bring(there.store, there.upstream, oids[0], lambda *_: None)


def test_a_tree_that_is_not_whole_is_not_brought(
    here: Machine, there: Machine, place: Path
) -> None:
    manifest = here.keep(numbered(10, CHUNK_SIZE))
    descriptor = here.send(manifest)
    oid = next(oid for oid, metadata in tree_objects(here.store.get, manifest) if not metadata)
    (where,) = here.upstream.index.find(oid)
    change(path_of(place, descriptor.packs[0]), where.offset + 100)
    there.remember(descriptor)
    with pytest.raises(Corrupt, match=oid.hex()):
        bring(there.store, there.upstream, manifest, lambda *_: None)
