"""A tree goes to a region and is read elsewhere, as it was; every byte travels once."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.errors import Cancelled, Corrupt
from imagefs.format.record import object_id
from imagefs.format.region import Descriptor
from imagefs.model import CHUNK_SIZE, ObjectId
from imagefs.region.bringing import bring
from imagefs.region.bucket import Bucket
from imagefs.region.index import WINDOW
from imagefs.region.layout import pack_key
from imagefs.region.packing import PACK_BYTES
from imagefs.store.check import ObjectCheck
from imagefs.tree.check import TreeCheck
from imagefs.tree.objects import tree_objects
from tests.region.machine import Machine, chunks, make_source, numbered
from tests.seed import SEED
from tests.tree.samples import directory, grown, regular


@pytest.fixture
def here(tmp_path: Path, bucket: Bucket) -> Iterator[Machine]:
    """The machine that sends."""
    with Machine(tmp_path / "here", bucket) as machine:
        yield machine


@pytest.fixture
def there(tmp_path: Path, bucket: Bucket) -> Iterator[Machine]:
    """The machine that reads."""
    with Machine(tmp_path / "there", bucket) as machine:
        yield machine


def problems(machine: Machine, manifest: ObjectId) -> list[str]:
    with ObjectCheck(machine.store) as objects:
        return [str(found) for found in TreeCheck(objects, lambda *_: None).check(manifest)]


# -- there and back ---------------------------------------------------------------------


def test_a_tree_of_everything_is_read_elsewhere_as_it_was(
    here: Machine, there: Machine, tmp_path: Path
) -> None:
    make_source(tmp_path / "source")
    manifest = here.imported(tmp_path / "source")
    there.remember(here.send(manifest))
    assert there.dump(manifest) == here.dump(manifest)
    assert problems(there, manifest) == []
    assert there.store.statistics().objects == 0


def test_steps_get_what_blocking_readers_get(here: Machine, there: Machine) -> None:
    manifest = here.keep(grown(random.Random(SEED), 300))
    there.remember(here.send(manifest))
    oids = [oid for oid, _ in tree_objects(here.store.get, manifest)]
    for oid in oids:
        assert object_id(there.taken(oid)) == oid
    there.upstream._records.clear()
    for oid in oids:
        assert object_id(there.taken(oid)) == oid


def test_a_tree_is_brought_back_with_the_same_digest(
    here: Machine, there: Machine, tmp_path: Path, bucket: Bucket
) -> None:
    make_source(tmp_path / "source")
    manifest = here.imported(tmp_path / "source")
    there.remember(here.send(manifest))
    told: list[tuple[int, int]] = []
    added = bring(there.store, there.upstream, manifest, lambda *done: told.append(done))
    assert added == there.store.statistics().pack_bytes - 24
    assert told[0][0] == 0
    assert told[-1] == (told[0][1], told[0][1])
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    there.store.upstream = None
    assert there.dump(manifest) == here.dump(manifest)
    assert there.imported(tmp_path / "source") == manifest
    # What is there already is not asked for again.
    before = bucket.statistics().received
    assert bring(there.store, there.upstream, manifest, lambda *_: None) == 0
    assert bucket.statistics().received == before


def test_only_what_is_lacking_is_brought(here: Machine, there: Machine, bucket: Bucket) -> None:
    root = numbered(40, CHUNK_SIZE)
    there.keep(root)
    root.children[b"one more"] = regular(b"content")
    manifest = here.keep(root)
    there.remember(here.send(manifest))
    before = bucket.statistics().received
    bring(there.store, there.upstream, manifest, lambda *_: None)
    assert bucket.statistics().received - before < 2 * WINDOW
    there.store.upstream = None
    assert problems(there, manifest) == []


def test_bringing_that_is_cancelled_goes_on_where_it_was(here: Machine, there: Machine) -> None:
    manifest = here.keep(numbered(30, CHUNK_SIZE))
    there.remember(here.send(manifest))
    calls = 0

    def soon() -> bool:
        nonlocal calls
        calls += 1
        return calls > 34  # all 32 objects were looked at, and some have come

    with pytest.raises(Cancelled):
        bring(there.store, there.upstream, manifest, lambda *_: None, soon)
    received = there.bucket.statistics().received
    bring(there.store, there.upstream, manifest, lambda *_: None)
    # What was fetched is on the local disk.
    assert there.bucket.statistics().received - received < 30 * CHUNK_SIZE
    there.store.upstream = None
    assert problems(there, manifest) == []


# -- what travels -----------------------------------------------------------------------


def test_what_is_sent_is_what_the_store_holds_and_little_more(
    here: Machine, bucket: Bucket
) -> None:
    root = numbered(60, CHUNK_SIZE)
    root.children |= numbered(2000, 300, seed=2).children
    root.children[b"text"] = regular(b"all the same " * 10_000)
    manifest = here.keep(root)
    before = bucket.statistics().sent
    here.send(manifest)
    stored = here.store.statistics().pack_bytes
    assert stored <= bucket.statistics().sent - before <= 1.1 * stored


def test_a_second_image_sends_what_is_new(here: Machine, bucket: Bucket) -> None:
    root = numbered(60, CHUNK_SIZE)
    here.send(here.keep(root))
    root.children[b"new"] = regular(random.Random(9).randbytes(CHUNK_SIZE))
    before = bucket.statistics()
    here.send(here.keep(root))
    after = bucket.statistics()
    assert after.sent - before.sent < 1.1 * CHUNK_SIZE
    assert after.requests["put"] - before.requests["put"] == 1


def test_what_is_there_is_not_sent_by_a_machine_that_never_saw_it(
    here: Machine, there: Machine, bucket: Bucket
) -> None:
    root = numbered(20, CHUNK_SIZE)
    first = here.send(here.keep(root))
    manifest = there.keep(root)
    before = bucket.statistics().sent
    assert there.send(manifest) == first
    assert bucket.statistics().sent == before


def test_a_plan_says_about_what_travels(here: Machine, bucket: Bucket) -> None:
    root = numbered(50, CHUNK_SIZE)
    root.children |= numbered(500, 300, seed=2).children
    manifest = here.keep(root)
    objects = {oid for oid, _ in tree_objects(here.store.get, manifest)}
    plan = here.sender.plan(manifest, here.packs())
    before = bucket.statistics().sent
    assert plan.objects == len(objects)
    here.send(manifest)
    sent = bucket.statistics().sent - before
    assert 0.9 * sent < plan.bytes < 1.1 * sent
    assert here.sender.plan(manifest, here.packs()).objects == 0


def test_packs_are_of_a_size_and_their_names_are_their_hashes(
    here: Machine, bucket: Bucket
) -> None:
    here.send(here.keep(numbered(200, CHUNK_SIZE)))
    packs = here.packs()
    assert len(packs) == 4
    for pack, size in packs.items():
        data = bucket.get(pack_key(pack))
        assert object_id(data) == pack.id
        assert len(data) == size < PACK_BYTES + 2 * CHUNK_SIZE


def test_metadata_lies_together(here: Machine) -> None:
    root = directory({b"%03d" % n: numbered(40, 2000, seed=n) for n in range(100)})
    manifest = here.keep(root)
    here.send(manifest)
    windows = {
        (place.pack, place.window)
        for oid, metadata in tree_objects(here.store.get, manifest)
        if metadata
        for place in here.upstream.index.find(oid)
    }
    metadata_bytes = sum(
        len(here.store.get(oid)) for oid, meta in tree_objects(here.store.get, manifest) if meta
    )
    assert len(windows) <= metadata_bytes // WINDOW + 2


def test_records_of_the_store_go_as_they_are(here: Machine) -> None:
    root = numbered(300, 300)
    here.keep(root)
    root.children |= {b"more": numbered(250, 300, seed=2)}
    manifest = here.keep(root)
    here.send(manifest)
    content = [oid for oid, metadata in tree_objects(here.store.get, manifest) if not metadata]
    stored = [here.store._index.find(oid) for oid in content]
    sent = [place for oid in content for place in here.upstream.index.find(oid)]
    assert [(at.size, at.ordinal) for at in stored if at] == [(at.size, at.ordinal) for at in sent]
    assert len({at.offset for at in sent}) == 2


def test_records_of_the_store_that_are_small_are_put_together(here: Machine) -> None:
    root = directory({})
    manifest = here.keep(root)
    for number in range(10):
        root.children[b"%d" % number] = numbered(5, 300, seed=number)
        manifest = here.keep(root)
    here.send(manifest)
    content = [oid for oid, metadata in tree_objects(here.store.get, manifest) if not metadata]
    assert len(content) == 50
    assert len({at.offset for oid in content for at in here.upstream.index.find(oid)}) == 1


def test_progress_is_told_and_signs_of_life_are_given(here: Machine) -> None:
    manifest = here.keep(numbered(200, CHUNK_SIZE))
    told: list[tuple[int, int]] = []
    alive = 0

    def live() -> None:
        nonlocal alive
        alive += 1

    here.sender.send(manifest, here.packs(), tell=lambda *done: told.append(done), alive=live)
    total = told[0][1]
    assert {figure for _, figure in told} == {total}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[0] == (0, total)
    assert told[-1] == (total, total)
    assert len(told) >= 2 + len(here.packs())
    assert alive >= len(here.packs())


# -- with a base ------------------------------------------------------------------------


def test_with_a_base_the_packs_of_both_hold_the_tree(
    here: Machine, there: Machine, tmp_path: Path
) -> None:
    root = grown(random.Random(SEED), 300)
    base = here.send(here.keep(root))
    root.children[b"new"] = directory({b"f": regular(b"new content"), b"g": regular(b"more")})
    manifest = here.keep(root)
    descriptor = here.send(manifest, base)
    assert set(base.packs) < set(descriptor.packs)
    there.remember(descriptor)
    assert there.dump(manifest) == here.dump(manifest)


def test_a_base_whose_packs_may_not_be_counted_on_is_none(here: Machine, bucket: Bucket) -> None:
    root = numbered(10, CHUNK_SIZE)
    base = here.send(here.keep(root))
    root.children[b"new"] = regular(b"new content")
    manifest = here.keep(root)
    # As if all were condemned: nothing of it is used, all is sent once more.
    needed = here.sender.send(manifest, {}, base=base)
    assert not set(needed) & set(base.packs)
    for pack in base.packs:
        bucket.delete(pack_key(pack))
    with Machine(here.path.with_name("other"), bucket) as other:
        other.remember(Descriptor(manifest, 0, 0, 0, None, needed))
        assert other.dump(manifest) == here.dump(manifest)


def test_what_is_sent_twice_is_two_objects_of_the_server(here: Machine) -> None:
    manifest = here.keep(numbered(3, 1000))
    assert here.sender.send(manifest, {}) != here.sender.send(manifest, {})
    assert len(here.packs()) == 2


def test_a_tree_that_is_elsewhere_only_is_sent_on(
    here: Machine, there: Machine, bucket: Bucket
) -> None:
    manifest = here.keep(numbered(20, CHUNK_SIZE))
    there.remember(here.send(manifest))
    plan = there.sender.plan(manifest, {})
    assert plan.bytes > 20 * CHUNK_SIZE
    before = bucket.statistics().sent
    there.sender.send(manifest, {})
    assert 0.9 * plan.bytes < bucket.statistics().sent - before < 1.1 * plan.bytes


# -- trouble at the sender's ------------------------------------------------------------


def test_a_damaged_object_is_not_sent(here: Machine) -> None:
    manifest = here.keep(numbered(5, CHUNK_SIZE))
    pack = here.path / "packs/00000001.pack"
    data = bytearray(pack.read_bytes())
    data[300] ^= 1
    pack.write_bytes(data)
    with pytest.raises(Corrupt):
        here.send(manifest)
    assert here.packs() == {}


def test_content_is_told_from_metadata_in_packs(here: Machine) -> None:
    root = numbered(500, 300)
    manifest = here.keep(root)
    here.send(manifest)
    for oid, metadata in tree_objects(here.store.get, manifest):
        (place,) = here.upstream.index.find(oid)
        record = here.upstream._windows.load(place)
        assert record.kind == metadata
        assert (here.store.get(oid) in chunks(root)) is not metadata


def test_what_one_process_was_told_the_others_find(
    here: Machine, there: Machine, bucket: Bucket
) -> None:
    descriptor = here.send(here.keep(numbered(3, CHUNK_SIZE)))
    manifest = ObjectId(descriptor.manifest)
    with Machine(there.path, bucket) as told, Machine(there.path, bucket) as untold:
        there.remember(descriptor)
        told.remember(descriptor)  # no news for the index
        assert told.dump(manifest) == here.dump(manifest)
        untold.upstream._looked = 0.0
        assert untold.dump(manifest) == here.dump(manifest)


def test_the_index_can_be_made_anew(here: Machine, there: Machine, tmp_path: Path) -> None:
    manifest = here.keep(grown(random.Random(SEED), 100))
    descriptor = here.send(manifest)
    expected = here.dump(manifest)
    there.remember(descriptor)
    assert there.dump(manifest) == expected
    shutil.copytree(there.path, tmp_path / "copy")
    for damage in (b"", b"not a database at all" * 500, None):
        index = tmp_path / "copy/regions/index.db"
        if damage is None:
            index.unlink()
        else:
            index.write_bytes(damage)
        for suffix in ("-wal", "-shm"):
            index.with_name(f"index.db{suffix}").unlink(missing_ok=True)
        with Machine(tmp_path / "copy", there.bucket) as again:
            again.remember(descriptor)
            assert again.dump(manifest) == expected
