"""What verify says of images and instances, in the words of whoever owns them."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from imagefs.catalog.rows import Sealed
from imagefs.errors import NotReady
from imagefs.format.record import object_id
from imagefs.model import CHUNK_SIZE, ObjectId, TreeNumber
from imagefs.vfs.node import tree_of
from tests.vfs.conftest import View


def told(view: View) -> list[tuple[str, str | None, str]]:
    return [(", ".join(p.where), p.path, p.message) for p in view.problems()]


def lose(view: View, oid: bytes) -> None:
    """The index forgets an object."""
    view.close()
    with closing(sqlite3.connect(view.directory / "index.db")) as index, index:
        assert index.execute("DELETE FROM object WHERE id = ?", (oid,)).rowcount == 1
    view.open()


def test_an_instance_is_told_of_what_a_commit_of_it_lost(base: View) -> None:
    base.mkdir("instances/base/n1")
    content = b"new content " * 20_000
    base.write("instances/base/n1/etc/new", content)
    base.lifecycle("commit", "base/n1", "copy")
    base.lifecycle("remove", "copy")
    assert base.problems() == []
    chunk = object_id(content[CHUNK_SIZE:])
    lose(base, chunk)
    lost = f"Bytes {CHUNK_SIZE} to {len(content) - 1}: Object {chunk.hex()} is missing"
    assert [(where, path, message[: len(lost)]) for where, path, message in told(base)] == [
        ("deleted image copy", "/etc/new", lost),
        ("instance base/n1", "/etc/new", lost),
    ]
    # Whoever writes the same again heals all of them.
    base.mkdir("images/healing")
    base.write("images/healing/copy", content)
    base.lifecycle("seal", "healing")


def test_deleted_instances_count_until_they_are_gone(base: View) -> None:
    base.mkdir("instances/base/n1")
    base.write("instances/base/n1/x", b"1")
    number = tree_of(base.node("instances/base/n1"))
    base.lifecycle("remove", "base/n1")
    base.close()
    database = base.directory / "overlays" / "ann" / str(number) / "meta.db"
    with closing(sqlite3.connect(database)) as overlay, overlay:
        overlay.execute("UPDATE inode SET nlink = 3 WHERE mode & 61440 = 32768")
    base.open()
    ((where, _, message),) = told(base)
    assert where == "deleted instance base/n1"
    assert "counts 3 names and has 1" in message
    base.lifecycle("undelete", "base/n1")
    ((where, _, _),) = told(base)
    assert where == "instance base/n1"
    base.run(base.vfs.lifecycle.inspection.check, TreeNumber(number))
    base.close()
    with closing(sqlite3.connect(database)) as overlay, overlay:
        overlay.execute("UPDATE inode SET nlink = 1 WHERE mode & 61440 = 32768")
    base.open()


def test_figures_of_the_catalog_are_those_of_the_tree(base: View) -> None:
    row = base.lifecycle("row", "base")
    wrong = Sealed(row.manifest, row.entries + 1, row.bytes, 0)
    base.catalog.publish("bob", "other", wrong, None, 1)
    ((where, path, message),) = told(base)
    assert (where, path) == ("image other of bob", None)
    assert message.startswith("The catalog says 6 entries and 800032 bytes, the tree has 5 and")
    base.catalog.delete(base.catalog.images("bob")[0], 2)
    ((where, _, _),) = told(base)
    assert where == "deleted image other of bob"
    with closing(sqlite3.connect(base.directory / "catalog.db")) as catalog, catalog:
        catalog.execute("DELETE FROM tree WHERE account = 'bob'")


@pytest.mark.damaged
def test_an_image_without_its_manifest(base: View) -> None:
    gone = Sealed(ObjectId(object_id(b"gone")), 1, 1, 0)
    base.catalog.publish("ann", "gone", gone, None, 1)
    ((where, path, message),) = told(base)
    assert (where, path) == ("image gone", "/")
    assert message.startswith("Manifest: Object ")


def test_changes_wait_while_an_overlay_is_checked(base: View) -> None:
    base.mkdir("instances/base/n1")
    base.write("instances/base/n1/x", b"1")
    inspection = base.vfs.lifecycle.inspection
    number = tree_of(base.node("instances/base/n1"))
    with pytest.raises(NotReady) as checking:
        inspection.check(number)
    with pytest.raises(NotReady) as waiting:
        base.vfs.mkdir(*base.at("instances/base/n1/d"), 0o755, None)  # type: ignore[arg-type]
    assert waiting.value.key == checking.value.key
    assert waiting.value.work is None
    assert base.read("instances/base/n1/x") == b"1"
    assert checking.value.work is not None
    assert checking.value.finish is not None
    checking.value.finish(checking.value.work())
    assert inspection.check(number) == []
    base.mkdir("instances/base/n1/d")
