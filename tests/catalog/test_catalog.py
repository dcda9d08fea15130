"""The catalog: each change is one transaction and the rules of names hold."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.catalog import Catalog, Kind, State, TreeRow
from imagefs.catalog.rows import Sealed
from imagefs.errors import Corrupt, Exists, NotFound, StoreError
from imagefs.model import ObjectId

SEALED = Sealed(ObjectId(b"m" * 32), 10, 1000, 500)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(tmp_path / "catalog.db")
    yield catalog
    catalog.close()


def published(catalog: Catalog, name: str) -> TreeRow:
    return catalog.publish("ann", name, SEALED, None, 1)


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    first = Catalog(tmp_path / "catalog.db")
    draft = first.create_draft("ann", "web", 5)
    image = published(first, "base")
    (instance,) = first.clone(image, "ann", "base", ["n1"], 7)
    first.set_alias("ann", "stable", "base", 8, replace=False)
    second = Catalog(tmp_path / "catalog.db")
    assert second.image("ann", "web") == draft
    assert second.instance("ann", "base", "n1") == instance
    assert second.alias("ann", "stable") == "base"
    assert second.image("ann", "base").used  # type: ignore[union-attr]
    second.close()
    first.close()


def test_a_draft_becomes_an_image_with_a_new_number_and_back(catalog: Catalog) -> None:
    draft = catalog.create_draft("ann", "web", 5)
    image = catalog.seal(draft, SEALED)
    assert image.number != draft.number
    assert (image.state, image.entries, image.bytes, image.created) == (State.SEALED, 10, 1000, 5)
    assert catalog.tree(draft.number) is None
    again = catalog.unseal(image)
    assert (again.state, again.manifest) == (State.DRAFT, SEALED.manifest)
    assert again.number not in (image.number, draft.number)


def test_numbers_are_never_used_twice(catalog: Catalog) -> None:
    numbers = set()
    for _ in range(5):
        draft = catalog.create_draft("ann", "web", 5)
        image = catalog.seal(draft, SEALED)
        numbers |= {draft.number, image.number}
        catalog.unseal(image)
        catalog.delete(catalog.image("ann", "web"), 6)  # type: ignore[arg-type]
    assert len(numbers) == 10


def test_images_and_aliases_share_one_space_of_names(catalog: Catalog) -> None:
    published(catalog, "base")
    catalog.set_alias("ann", "stable", "base", 1, replace=False)
    for action in (
        lambda: catalog.create_draft("ann", "base", 2),
        lambda: catalog.create_draft("ann", "stable", 2),
        lambda: published(catalog, "base"),
        lambda: catalog.set_alias("ann", "base", "base", 2, replace=True),
        lambda: catalog.set_alias("ann", "stable", "base", 2, replace=False),
        lambda: catalog.rename_alias("ann", "stable", "base", 2),
    ):
        with pytest.raises(Exists):
            action()
    assert catalog.create_draft("bob", "base", 2).name == "base"


def test_clones_are_made_all_or_none(catalog: Catalog) -> None:
    image = published(catalog, "base")
    catalog.clone(image, "ann", "base", ["n2"], 1)
    with pytest.raises(Exists, match="base/n2"):
        catalog.clone(image, "ann", "base", ["n1", "n2", "n3"], 2)
    assert [row.name for row in catalog.instances_at("ann", "base")] == ["n2"]


def test_delete_frees_the_name_and_undelete_brings_back_the_last(catalog: Catalog) -> None:
    first = published(catalog, "web")
    catalog.delete(first, 10)
    second = published(catalog, "web")
    with pytest.raises(Exists):
        catalog.undelete(first)
    catalog.delete(second, 11)
    assert catalog.image("ann", "web") is None
    last = catalog.last_deleted(Kind.IMAGE, "ann", "", "web")
    assert last is not None
    assert last.number == second.number
    assert [row.number for row in catalog.images("ann", deleted=True)] == [
        first.number,
        second.number,
    ]
    assert catalog.undelete(last).deleted is None
    assert catalog.image("ann", "web").number == second.number  # type: ignore[union-attr]
    with pytest.raises(NotFound):
        catalog.delete(first, 12)


def test_promote_reset_and_rename(catalog: Catalog) -> None:
    image = published(catalog, "base")
    one, two = catalog.clone(image, "ann", "base", ["n1", "n2"], 1)
    with pytest.raises(Exists):
        catalog.promote(one, "base", SEALED, 2)
    assert catalog.instance("ann", "base", "n1") == one
    new = catalog.promote(one, "web", SEALED, 2)
    assert (new.parent, new.kind, new.place) == ("base/n1", Kind.IMAGE, "")
    assert catalog.instance("ann", "base", "n1") is None
    fresh = catalog.reset(two, 3)
    assert fresh.number != two.number
    assert catalog.instance("ann", "base", "n2") == fresh
    assert catalog.rename(fresh, "n3").name == "n3"
    with pytest.raises(NotFound):
        catalog.seal(two, SEALED)


def test_place_numbers_last(tmp_path: Path) -> None:
    first = Catalog(tmp_path / "catalog.db")
    numbers = [first.place_number(f"clones/{name}") for name in "abca"]
    first.close()
    second = Catalog(tmp_path / "catalog.db")
    assert second.place_number("clones/b") == numbers[1]
    assert numbers[3] == numbers[0]
    assert len(set(numbers)) == 3
    second.close()


def test_a_damaged_or_newer_catalog_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(Corrupt, match=r"catalog\.db"):
        Catalog(path)
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreError, match="99"):
        Catalog(path)
