"""What the catalog knows of regions: their names, and their images as they were listed last."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.catalog import Catalog
from imagefs.catalog.rows import Published, Sealed, TreeRow
from imagefs.errors import Busy, Exists, NotEmpty, NotFound
from imagefs.model import ObjectId

ONE, TWO = ObjectId(b"1" * 32), ObjectId(b"2" * 32)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog(tmp_path / "catalog.db")
    opened.add_region("eu", "file:///eu", 1)
    yield opened
    assert opened.check() == []
    opened.close()


def published(name: str, manifest: ObjectId = ONE, account: str = "ann") -> Published:
    return Published(account, name, manifest, 3, 10, 5, None)


def names(rows: list[TreeRow]) -> list[str]:
    return [f"{row.name} of {row.account}" for row in rows]


def test_regions_have_one_name_each(catalog: Catalog) -> None:
    with pytest.raises(Exists):
        catalog.add_region("eu", "file:///other", 2)
    catalog.note_refreshed("eu", 7, None)
    catalog.note_refreshed("eu", None, "gone")
    (row,) = catalog.regions()
    assert (row.name, row.refreshed, row.failure) == ("eu", 7, "gone")
    catalog.remove_region("eu")
    assert catalog.regions() == []
    with pytest.raises(NotFound):
        catalog.remove_region("eu")


def test_a_listing_adds_and_removes_rows_of_its_region_alone(catalog: Catalog) -> None:
    catalog.create_draft("ann", "web", 1)
    changed = catalog.mirror("eu", "ann", [published("web"), published("db")], [], 2)
    assert names(changed) == ["web of ann", "db of ann"]
    assert names(catalog.images("ann", region="eu")) == ["db of ann", "web of ann"]
    assert names(catalog.images("ann")) == ["web of ann"]
    assert catalog.mirror("eu", "ann", [published("web"), published("db")], [], 3) == []
    assert names(catalog.mirror("eu", "ann", [published("web")], [], 4)) == ["db of ann"]
    assert names(catalog.images("ann", region="eu")) == ["web of ann"]
    assert catalog.images("ann", region="eu", deleted=True) == []


def test_a_later_image_of_the_same_name_is_another_one(catalog: Catalog) -> None:
    (first,) = catalog.mirror("eu", "ann", [published("web")], [], 2)
    gone, second = catalog.mirror("eu", "ann", [published("web", TWO)], [], 3)
    assert gone == first
    assert second.number > first.number
    assert catalog.image("ann", "web", "eu") == second


def test_a_draft_is_seen_until_it_is_renamed(catalog: Catalog) -> None:
    draft = catalog.create_draft("ann", "web", 1, "eu")
    assert catalog.mirror("eu", "ann", [published("web")], [], 2) == []
    catalog.rename(draft, "mine")
    assert names(catalog.mirror("eu", "ann", [published("web")], [], 3)) == ["web of ann"]
    assert names(catalog.images("ann", region="eu")) == ["mine of ann", "web of ann"]


def test_shares_of_a_region_are_those_it_lists(catalog: Catalog) -> None:
    image = published("base", account="bob")
    catalog.mirror("eu", "ann", [image], [("bob", "base", "ann")], 2)
    assert names(catalog.shared_images("ann", "eu")) == ["base of bob"]
    assert catalog.shared_images("ann") == []
    assert catalog.shared_images("carol", "eu") == []
    # Bob's own listing knows more of it than ann's.
    catalog.mirror("eu", "bob", [image], [("bob", "base", "ann"), ("bob", "base", "carol")], 3)
    assert names(catalog.shared_to("bob", "carol", "eu")) == ["base of bob"]
    (row,) = catalog.mirror("eu", "ann", [], [], 4)
    assert catalog.shared_images("ann", "eu") == []
    assert catalog.shared_images("carol", "eu") == [row]
    assert catalog.mirror("eu", "ann", [image], [("bob", "base", "ann")], 5) == [row]
    later = published("base", TWO, account="bob")
    assert len(catalog.mirror("eu", "ann", [later], [("bob", "base", "ann")], 6)) == 2


def test_images_of_public_are_seen_by_everybody(catalog: Catalog) -> None:
    catalog.mirror("eu", "ann", [published("base", account="public")], [], 2)
    assert names(catalog.shared_images("carol", "eu")) == ["base of public"]


def test_a_region_that_is_needed_is_not_forgotten(catalog: Catalog) -> None:
    (image,) = catalog.mirror("eu", "ann", [published("web")], [], 2)
    catalog.set_home("ann", "eu")
    (instance,) = catalog.clone(image, "ann", "web", ["one"], 3)
    assert instance.region == "eu"
    assert catalog.manifests_needed("eu") == {ONE}
    with pytest.raises(Busy, match="web/one"):
        catalog.remove_region("eu")
    assert catalog.reset(instance, 4).origin == "eu"
    catalog.delete(catalog.instance("ann", "web", "one"), 5)  # type: ignore[arg-type]
    with pytest.raises(Busy, match="home region of ann"):
        catalog.remove_region("eu")
    catalog.set_home("ann", "")
    catalog.remove_region("eu")
    assert catalog.images("ann", region="eu") == []


def test_deleted_instances_belong_to_a_place_and_not_to_a_name(catalog: Catalog) -> None:
    (image,) = catalog.mirror("eu", "ann", [published("web")], [], 2)
    (instance,) = catalog.clone(image, "ann", "web", ["one"], 3)
    catalog.delete(instance, 5)
    catalog.remove_region("eu")
    catalog.add_region("eu", "file:///another", 6)
    assert catalog.manifests_needed("eu") == set()
    catalog.add_region("us", "file:///eu", 7)
    assert catalog.manifests_needed("us") == {ONE}
    assert catalog.undelete(instance).origin == "us"


def test_a_listing_that_began_before_a_change_says_nothing_about_it(catalog: Catalog) -> None:
    catalog.mirror("eu", "ann", [published("web"), published("db")], [], 2)
    stale = [published("web"), published("old")]
    shares = [("ann", "web", "bob"), ("ann", "old", "bob")]
    rows = catalog.mirror("eu", "ann", stale, shares, 3, changed=["db", "old"])
    assert rows == []
    assert names(catalog.images("ann", region="eu")) == ["db of ann", "web of ann"]
    assert names(catalog.shared_to("ann", "bob", "eu")) == ["web of ann"]


def test_what_a_listing_saw_first_is_what_was_published(catalog: Catalog) -> None:
    (seen,) = catalog.mirror("eu", "ann", [published("web")], [], 2)
    sealed = Sealed(ONE, 3, 10, 7)
    assert catalog.publish("ann", "web", sealed, None, 5, "eu") == seen
    with pytest.raises(Exists):
        catalog.publish("ann", "web", sealed, None, 6, "eu")
    (instance,) = catalog.clone(seen, "ann", "web", ["one"], 3)
    (other,) = catalog.mirror("eu", "ann", [published("web"), published("next")], [], 4)
    assert catalog.promote(instance, "next", sealed, 5, "eu") == other
    assert catalog.instances("ann") == []


def test_images_are_adopted_whatever_a_listing_has_seen(catalog: Catalog) -> None:
    (web,) = catalog.mirror("eu", "ann", [published("web")], [], 2)
    renamed = catalog.adopt("eu", published("web2"), web)
    assert renamed.number == web.number
    catalog.mirror("eu", "ann", [published("web2"), published("web3")], [], 3)
    seen = catalog.adopt("eu", published("web3"), renamed)
    assert names(catalog.images("ann", region="eu")) == ["web3 of ann"]
    catalog.forget(seen)
    assert catalog.adopt("eu", published("web4"), seen).name == "web4"
    catalog.create_draft("ann", "draft", 4, "eu")
    with pytest.raises(Exists):
        catalog.adopt("eu", published("draft"))


def test_a_draft_in_the_way_of_an_image_costs_no_transactions(catalog: Catalog) -> None:
    catalog.create_draft("ann", "web", 1, "eu")
    catalog.mirror("eu", "ann", [published("web")], [("ann", "web", "bob")], 2)
    before = catalog.changes
    assert catalog.mirror("eu", "ann", [published("web")], [("ann", "web", "bob")], 3) == []
    assert catalog.changes == before
    assert catalog.grantees("ann") == []


def test_whom_images_of_any_region_are_shared_with_stays_known(catalog: Catalog) -> None:
    catalog.mirror("eu", "ann", [published("web")], [("ann", "web", "bob")], 2)
    with pytest.raises(NotEmpty, match="web in region eu"):
        catalog.remove_grantee("ann", "bob")
