"""What is published in a region: by whom it is seen, and what deleting, bringing back and sharing do."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagefs.disk import Disk
from imagefs.errors import Busy, Corrupt, Exists, InvalidArgument, NotFound, StoreError
from imagefs.model import SECOND, ObjectId
from imagefs.region import publication
from imagefs.region.bucket import Bucket
from imagefs.region.layout import MARKER
from imagefs.region.lease import Terms
from imagefs.region.region import Regions, Share
from tests.region.machines import Machine, broken, describe, keys


def names(machine: Machine, account: str) -> list[tuple[str, str]]:
    return [(image.account, image.name) for image in machine.region.listing(account).images]


# -- the place --------------------------------------------------------------------------


def test_an_empty_place_becomes_a_region(machine: Machine, bucket: Bucket) -> None:
    assert keys(bucket) == [MARKER]
    assert bucket.get(MARKER) == b"imagefs region\nversion 1\n"
    machine.region.prepare()
    machine.region.check()


def test_a_region_is_known_on_another_machine(other: Machine) -> None:
    other.region.check()
    other.region.prepare()
    assert names(other, "ada") == []


def test_a_place_that_holds_something_else_is_refused(
    tmp_path: Path, region_url: str, bucket: Bucket
) -> None:
    bucket.put("holiday/photo.jpg", b"smile")
    with Machine(tmp_path / "first", region_url) as machine:
        with pytest.raises(InvalidArgument, match=r"holiday/photo\.jpg"):
            machine.region.prepare()
        with pytest.raises(NotFound, match="no region"):
            machine.region.listing("ada")
    assert keys(bucket) == ["holiday/photo.jpg"]


def test_a_place_without_a_region_is_not_used(tmp_path: Path, region_url: str) -> None:
    with Machine(tmp_path / "first", region_url) as machine:
        for use in (
            machine.region.check,
            lambda: machine.copy("ada", "web"),
            lambda: machine.region.gc(0),
            lambda: machine.region.remove("ada", "web"),
        ):
            with pytest.raises(NotFound, match="no region"):
                use()


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        (b"imagefs region\nversion 2\n", "use a newer imagefs"),
        (b"something else\n", "not a region"),
        (b"", "not a region"),
        (b"imagefs region\nversion 1x\n", "not a region"),
    ],
)
def test_another_marker_is_refused(
    tmp_path: Path, region_url: str, bucket: Bucket, marker: bytes, words: str
) -> None:
    bucket.put(MARKER, marker)
    with Machine(tmp_path / "first", region_url) as machine:
        with pytest.raises(StoreError, match=words):
            machine.region.prepare()
        with pytest.raises(StoreError, match=words):
            machine.region.listing("ada")
    assert keys(bucket) == [MARKER]


# -- images -----------------------------------------------------------------------------


def test_what_one_machine_publishes_another_sees(machine: Machine, other: Machine) -> None:
    published = machine.copy("ada", "web")
    machine.copy("bob", "mail")
    (seen,) = other.region.listing("ada").images
    assert (seen.account, seen.name) == ("ada", "web")
    assert seen.descriptor == published.descriptor
    assert seen.deleted is None
    assert names(other, "bob") == [("bob", "mail")]


def test_a_published_image_leaves_no_lease(machine: Machine, bucket: Bucket) -> None:
    machine.copy("ada", "web")
    assert keys(bucket, "copies/") == []
    assert len(keys(bucket, "packs/")) == 2


def test_a_name_is_taken_once(machine: Machine, other: Machine) -> None:
    first = machine.copy("ada", "web")
    with pytest.raises(Exists, match="already"):
        other.copy("ada", "web")
    assert machine.region.listing("ada").images == [first] or names(machine, "ada")


def test_listing_again_fetches_only_what_is_new(machine: Machine, other: Machine) -> None:
    for name in ("a", "b", "c"):
        machine.copy("ada", name)
    other.region.listing("ada")
    # Times of servers may be whole seconds: what was there for long enough is known for good.
    for known in other.region._descriptors._known.values():
        known.seen -= 10**12
    before = other.region.statistics().requests["get"]
    other.region.listing("ada")
    assert other.region.statistics().requests["get"] == before
    machine.copy("ada", "d")
    assert names(other, "ada") == [("ada", name) for name in "abcd"]
    assert other.region.statistics().requests["get"] == before + 1


def test_an_image_of_the_same_name_is_seen_for_what_it_is(machine: Machine, other: Machine) -> None:
    machine.copy("ada", "web")
    other.region.listing("ada")
    machine.region.remove("ada", "web")
    second = machine.copy("ada", "web")
    # In the same second it may look the same in a listing; not for longer.
    for known in other.region._descriptors._known.values():
        known.seen -= 10**12
        known.fetched = known.seen
    (seen,) = other.region.listing("ada").images
    assert seen.descriptor == second.descriptor


@pytest.mark.parametrize("name", ["50% off", "a#1", "täst 日本", "back\\slash", " x ", "x+y&z=~"])
def test_names_come_back_as_they_are(machine: Machine, other: Machine, name: str) -> None:
    machine.copy("ada", name)
    machine.region.share("ada", name, ["bob"])
    assert names(other, "ada") == [("ada", name)]
    assert other.region.listing("ada").shares == [Share("ada", name, "bob")]
    machine.region.unshare("ada", name, ["bob"])
    machine.region.remove("ada", name)
    assert [image.name for image in other.region.deleted("ada")] == [name]
    other.region.undelete("ada", name)
    assert names(machine, "ada") == [("ada", name)]


# -- deleting ---------------------------------------------------------------------------


def test_deleting_and_bringing_back(machine: Machine, other: Machine, bucket: Bucket) -> None:
    published = machine.copy("ada", "web")
    other.region.remove("ada", "web")
    assert names(machine, "ada") == []
    (gone,) = machine.region.deleted("ada")
    assert gone.descriptor == published.descriptor
    assert gone.deleted is not None
    back = machine.region.undelete("ada", "web")
    assert back.descriptor == published.descriptor
    assert names(other, "ada") == [("ada", "web")]
    assert other.region.deleted("ada") == []
    assert keys(bucket, "copies/") == []


def test_the_latest_of_a_name_is_brought_back(machine: Machine) -> None:
    machine.copy("ada", "web")
    machine.region.remove("ada", "web")
    second = machine.copy("ada", "web")
    machine.region.remove("ada", "web")
    assert len(machine.region.deleted("ada")) == 2
    assert machine.region.undelete("ada", "web").descriptor == second.descriptor
    with pytest.raises(Exists):
        machine.region.undelete("ada", "web")
    assert len(machine.region.deleted("ada")) == 1


def test_what_is_not_there_cannot_be_deleted_or_brought_back(machine: Machine) -> None:
    with pytest.raises(NotFound, match="no image web of ada"):
        machine.region.remove("ada", "web")
    with pytest.raises(NotFound, match="no deleted image web of ada"):
        machine.region.undelete("ada", "web")


def test_a_deletion_that_was_cut_short_is_made_whole(machine: Machine, bucket: Bucket) -> None:
    published = machine.copy("ada", "web")
    machine.region.remove("ada", "web")
    (deleted,) = keys(bucket, "deleted/")
    bucket.put("images/ada/web", bucket.get(deleted))
    assert names(machine, "ada") == [("ada", "web")]
    assert machine.region.undelete("ada", "web").descriptor == published.descriptor
    assert keys(bucket, "deleted/") == []
    assert names(machine, "ada") == [("ada", "web")]


def test_what_lost_its_packs_is_not_brought_back(machine: Machine, bucket: Bucket) -> None:
    machine.copy("ada", "web")
    machine.region.remove("ada", "web")
    bucket.delete(keys(bucket, "packs/")[0])
    with pytest.raises(Corrupt, match="gone or about to go"):
        machine.region.undelete("ada", "web")
    assert names(machine, "ada") == []
    assert keys(bucket, "copies/") == keys(bucket, "cleaning/") == []


def test_packs_that_were_condemned_are_pardoned_when_they_are_needed(
    machine: Machine, other: Machine, bucket: Bucket
) -> None:
    machine.copy("ada", "web")
    for pack in keys(bucket, "packs/"):
        bucket.put(pack.replace("packs/", "condemned/"), b"")
    machine.region.rename("ada", "web", "web-2")
    assert keys(bucket, "condemned/") == keys(bucket, "cleaning/") == []
    machine.region.remove("ada", "web-2")
    for pack in keys(bucket, "packs/"):
        bucket.put(pack.replace("packs/", "condemned/"), b"")
    machine.region.undelete("ada", "web-2")
    assert keys(bucket, "condemned/") == []
    other.region.gc(0)
    assert broken(bucket) == []


def test_renaming(machine: Machine, other: Machine, bucket: Bucket) -> None:
    published = machine.copy("ada", "web")
    machine.copy("ada", "mail")
    other.region.rename("ada", "web", "web-2")
    assert names(machine, "ada") == [("ada", "mail"), ("ada", "web-2")]
    assert machine.region.listing("ada").images[1].descriptor == published.descriptor
    with pytest.raises(Exists):
        machine.region.rename("ada", "web-2", "mail")
    with pytest.raises(NotFound):
        machine.region.rename("ada", "web", "x")
    machine.region.share("ada", "mail", ["bob"])
    with pytest.raises(Busy, match="shared with bob"):
        other.region.rename("ada", "mail", "x")
    assert names(machine, "ada") == [("ada", "mail"), ("ada", "web-2")]
    assert keys(bucket, "copies/") == keys(bucket, "deleted/") == []


# -- sharing ----------------------------------------------------------------------------


def test_a_shared_image_is_seen_by_whom_it_is_shared_with(machine: Machine, other: Machine) -> None:
    machine.copy("ada", "web")
    machine.copy("ada", "secret")
    machine.region.share("ada", "web", ["bob", "eve"])
    assert names(other, "bob") == [("ada", "web")]
    assert names(other, "mallory") == []
    assert other.region.listing("bob").shares == [Share("ada", "web", "bob")]
    assert other.region.listing("ada").shares == [
        Share("ada", "web", "bob"),
        Share("ada", "web", "eve"),
    ]
    machine.region.unshare("ada", "web", ["bob", "nobody"])
    assert names(other, "bob") == []
    assert names(other, "eve") == [("ada", "web")]


def test_everybody_sees_what_is_public(machine: Machine, other: Machine) -> None:
    machine.copy("ada", "web")
    machine.copy("public", "debian-12")
    machine.region.share("ada", "web", ["public"])
    assert names(other, "bob") == [("ada", "web"), ("public", "debian-12")]


def test_a_shared_image_is_not_deleted(machine: Machine, other: Machine) -> None:
    machine.copy("ada", "web")
    machine.region.share("ada", "web", ["bob"])
    with pytest.raises(Busy, match="shared with bob"):
        other.region.remove("ada", "web")
    assert names(machine, "ada") == [("ada", "web")]
    assert machine.region.deleted("ada") == []


def test_what_is_not_there_is_not_shared(machine: Machine, bucket: Bucket) -> None:
    with pytest.raises(NotFound):
        machine.region.share("ada", "web", ["bob"])
    assert keys(bucket, "shares/") == []


def test_a_new_image_is_not_shared_because_an_old_one_was(machine: Machine, bucket: Bucket) -> None:
    bucket.put("shares/bob/ada/web", b"")
    assert machine.region.listing("bob").shares == []
    machine.copy("ada", "web")
    assert keys(bucket, "shares/") == []
    assert names(machine, "bob") == []


# -- what others put there --------------------------------------------------------------


def test_what_means_nothing_is_left_alone(
    machine: Machine, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    machine.copy("ada", "web")
    strange = {
        "README": b"hello",
        "images/ada/%41": b"x",
        "images/loose": b"x",
        "shares/bob": b"",
        "packs/short": b"x",
        "deleted/ada/web/yesterday": b"x",
        "copies/somebody": b"x",
        "cleaning/nobody": b"x",
        "uses/nobody": b"x",
        "condemned/x": b"",
        "unknown/thing": b"x",
    }
    for key, data in strange.items():
        bucket.put(key, data)
    assert names(machine, "ada") == [("ada", "web")]
    assert names(machine, "ada") == [("ada", "web")]
    assert machine.region.deleted("ada") == []
    machine.region.gc(0)
    for key, data in strange.items():
        assert bucket.get(key) == data
    warnings = [record for record in caplog.records if "%41" in record.getMessage()]
    assert len(warnings) == 1


def test_more_than_can_be_meant_hides_nothing_of_ones_own(
    machine: Machine, bucket: Bucket, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(publication, "MOST_OWNERS", 5)
    monkeypatch.setattr(publication, "MOST_IMAGES", 3)
    machine.copy("ada", "web")
    for number in range(9):
        bucket.put(f"shares/ada/stranger-{number}/web", b"")
        bucket.put(f"images/eve/{number}", b"x")
    assert names(machine, "ada") == [("ada", "web")]
    assert names(machine, "ada") == [("ada", "web")]
    assert names(machine, "eve") == []
    assert caplog.text.count("more than 5 accounts share images") == 1
    assert caplog.text.count("more than 3 images") == 1


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\x93\xadimagefs image\x02\x90", b"\xff" * 10_000, bytes(9 * 1024 * 1024)]
)
def test_a_bad_descriptor_hides_no_good_one(
    machine: Machine, bucket: Bucket, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    machine.copy("ada", "web")
    bucket.put("images/ada/bad", data)
    bucket.put("deleted/ada/bad/00000000000000000001-0123456789abcdef", data)
    for _ in range(3):
        assert names(machine, "ada") == [("ada", "web")]
    assert machine.region.deleted("ada") == []
    assert len([one for one in caplog.records if "'images/ada/bad'" in one.getMessage()]) == 1


def test_a_bad_descriptor_can_be_deleted_and_stops_a_gc(machine: Machine, bucket: Bucket) -> None:
    machine.copy("ada", "web")
    bucket.put("images/ada/bad", b"x")
    before = keys(bucket, "packs/")
    with pytest.raises(Corrupt, match="images/ada/bad"):
        machine.region.gc(0)
    assert keys(bucket, "packs/") == before
    assert keys(bucket, "condemned/") == keys(bucket, "cleaning/") == []


# -- uses -------------------------------------------------------------------------------


def test_a_use_is_put_once_and_taken_back(machine: Machine, bucket: Bucket) -> None:
    image = machine.copy("ada", "web")
    machine.region.listing("ada")
    manifest = ObjectId(image.descriptor.manifest)
    machine.region.use(manifest)
    (use,) = keys(bucket, "uses/")
    assert use.endswith(manifest.hex())
    assert bucket.get(use) == bucket.get("images/ada/web")
    puts = machine.region.statistics().requests["put"]
    machine.region.use(manifest)
    assert machine.region.statistics().requests["put"] == puts
    machine.region.unuse({manifest})
    assert keys(bucket, "uses/") == [use]
    machine.region.unuse(set())
    assert keys(bucket, "uses/") == []


def test_what_another_process_ended_is_said_anew(
    tmp_path: Path, region_url: str, machine: Machine, bucket: Bucket
) -> None:
    image = machine.copy("ada", "web")
    manifest = ObjectId(image.descriptor.manifest)
    at_once = Terms(fresh=-60 * SECOND, said=0)
    with Machine(tmp_path / "third", region_url, at_once) as third:
        third.region.listing("ada")
        third.region.use(manifest)
        beside = Regions(third.store, Disk(), terms=at_once)
        beside.open("eu", region_url).unuse(set())
        beside.close()
        assert keys(bucket, "uses/") == []
        third.region.use(manifest)
        assert len(keys(bucket, "uses/")) == 1


def test_what_is_gone_cannot_be_used(machine: Machine, other: Machine, bucket: Bucket) -> None:
    image = machine.copy("ada", "web")
    machine.region.listing("ada")
    other.region.remove("ada", "web")
    other.region.gc(0)
    with pytest.raises(NotFound, match="gone"):
        machine.region.use(ObjectId(image.descriptor.manifest))
    assert keys(bucket, "uses/") == []


def test_what_was_never_listed_cannot_be_used(machine: Machine) -> None:
    with pytest.raises(NotFound):
        machine.region.use(ObjectId(describe([]).manifest))


def test_what_a_store_began_to_use_just_now_stays(
    tmp_path: Path, region_url: str, machine: Machine, bucket: Bucket
) -> None:
    """It may not have been in the catalog yet when somebody looked there what is needed."""
    image = machine.copy("ada", "web")
    with Machine(tmp_path / "third", region_url, Terms()) as third:
        third.region.listing("ada")
        third.region.use(ObjectId(image.descriptor.manifest))
        third.region.unuse(set())
        assert len(keys(bucket, "uses/")) == 1


def test_what_is_needed_is_said_anew_by_a_store_with_a_new_id(
    tmp_path: Path, region_url: str, machine: Machine, bucket: Bucket
) -> None:
    image = machine.copy("ada", "web")
    machine.region.listing("ada")
    manifest = ObjectId(image.descriptor.manifest)
    machine.region.use(manifest)
    (old,) = keys(bucket, "uses/")
    store = machine.store.path
    machine.regions.close()
    (store / "id").unlink()
    machine.regions = Regions(machine.store, Disk())
    region = machine.regions.open("eu", region_url)
    region.unuse({manifest})
    assert len(keys(bucket, "uses/")) == 2
    assert old in keys(bucket, "uses/")


def test_what_is_needed_and_gone_is_told(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.region.unuse({ObjectId(bytes(32))})
    assert "is needed here" in caplog.text
