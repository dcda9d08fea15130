"""What programs remember of files stays true: inode numbers, links and counts, over remounts and in clones."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.fixtures import ROOT, at_home
from tests.acceptance.manifest import assert_equal
from tests.acceptance.mounts import new_folder
from tests.acceptance.person import Person
from tests.posix.calls import name_to_handle, open_by_handle
from tests.posix.observe import content, put, tried
from tests.posix.stages import NO_ALARM
from tests.posix.template import BIG, standard

pytestmark = [pytest.mark.mount, pytest.mark.root]

LOWER_HALF = 2**32 - 1
"""An inode number without the number of its tree, which makes it unique in the mount."""


@pytest.fixture(scope="module")
def root() -> Iterator[Person]:
    for person in at_home(Person("root", new_folder(), ROOT), NO_ALARM):
        source = person.home / "source"
        source.mkdir()
        inside(source, standard)
        person.mount("--seal-after", "0")
        person.imagefs("import", source, "image")
        for name in ("one", "two", "three"):
            person.instances.joinpath("image", name).mkdir()
        yield person


def inside(folder: Path, function: object) -> None:
    here = Path.cwd()
    os.chdir(folder)
    try:
        function()  # type: ignore[operator]
    finally:
        os.chdir(here)


def numbers(tree: Path) -> dict[str, int]:
    """The inode number of every name of a tree, as stat tells it and as listings do."""
    found = {".": tree.stat().st_ino}
    for top, folders, names in os.walk(tree):
        listed = {entry.name: entry.inode() for entry in os.scandir(top)}
        for name in (*folders, *names):
            path = Path(top, name)
            found[str(path.relative_to(tree))] = path.lstat().st_ino
            assert listed[name] == path.lstat().st_ino
    return found


def use(tree: Path) -> None:
    """Change some of everything."""

    def act() -> None:
        put("new", b"new")
        os.mkdir("newdir")
        os.rename("dir/sub", "newdir/sub")
        os.rename("file", "dir/a")
        os.link("big", "newdir/again")
        os.unlink("empty")
        put("empty", b"not any more")
        with open("big", "r+b") as file:
            file.seek(200_000)
            file.write(b"changed")

    inside(tree, act)


def test_numbers_are_those_of_the_image_in_every_clone(root: Person) -> None:
    trees = [root.images / "image", root.instances / "image/one", root.instances / "image/two"]
    found = [numbers(tree) for tree in trees]
    alike = [{path: ino & LOWER_HALF for path, ino in each.items()} for each in found]
    assert alike[0] == alike[1] == alike[2]
    everywhere = [ino for each in found for ino in set(each.values())]
    assert len(set(everywhere)) == len(everywhere), "one device, so no number twice"
    assert len(set(found[0].values())) == len(found[0]) - 1, "the twin has another's"


def test_numbers_and_all_else_survive_a_remount(root: Person) -> None:
    tree = root.instances / "image/three"
    before = numbers(tree)
    use(tree)
    changed = numbers(tree)
    kept = {"big", "other", "twin", "dir", "dir/b", "link", "emptydir", "."}
    assert {changed[path] for path in kept} == {before[path] for path in kept}
    assert changed["dir/a"] == before["file"]
    assert changed["newdir/sub/deep"] == before["dir/sub/deep"]
    assert changed["newdir/again"] == changed["big"]
    assert changed["empty"] not in before.values(), "a number is not used again"
    manifest = root.manifest(tree)
    root.unmount()
    root.mount("--seal-after", "0")
    assert numbers(tree) == changed
    assert_equal(manifest, root.manifest(tree))


def test_file_handles_are_good_until_the_mount_ends(root: Person) -> None:
    """The row "File handles" of docs/differences.md: on ext4 they are good for ever."""
    tree = root.instances / "image/two"
    handle = name_to_handle(str(tree / "file"))
    mount = os.open(tree, os.O_RDONLY)
    os.close(open_by_handle(mount, handle))
    os.close(mount)
    root.unmount()
    root.mount("--seal-after", "0")
    mount = os.open(tree, os.O_RDONLY)
    assert tried(open_by_handle, mount, handle) == "ESTALE"
    os.close(mount)


def test_what_is_made_after_a_remount_is_new(root: Person) -> None:
    tree = root.instances / "image/two"
    use(tree)
    before = set(numbers(tree).values())
    root.unmount()
    root.mount("--seal-after", "0")
    put(str(tree / "later"))
    assert tree.joinpath("later").stat().st_ino not in before


def test_du_counts_a_tree_as_on_ext4(root: Person) -> None:
    """Small files take a block there; here they take what they hold."""

    def apparent(tree: Path) -> int:
        told = subprocess.run(
            ["du", "-s", "-B1", "--apparent-size", tree], capture_output=True, check=True
        )
        return int(told.stdout.split()[0])

    def used(tree: Path) -> int:
        told = subprocess.run(["du", "-s", "-k", tree], capture_output=True, check=True)
        return int(told.stdout.split()[0])

    source, clone = root.home / "source", root.instances / "image/one"
    assert apparent(clone) == apparent(source)
    entries = sum(1 for _ in clone.rglob("*"))
    assert used(source) - 4 * entries <= used(clone) <= used(source)
    assert len(BIG) // 1024 <= used(clone)
    with open(clone / "sparse", "wb") as file:
        file.truncate(1 << 40)
    assert used(clone) <= used(source) + 4
    os.unlink(clone / "sparse")


def test_a_clone_of_what_is_open_and_unlinked(root: Person) -> None:
    """What has no name is in no clone, and lives on where it is open."""
    tree = root.instances / "image/one"
    with open(tree / "big", "r+b", buffering=0) as file:
        os.unlink(tree / "big")
        file.write(b"changed")
        root.imagefs("commit", "image/one", "committed")
        assert not root.images.joinpath("committed/big").exists()
        assert content(str(root.images / "committed/file")) == b"hello, world\n"
        assert os.pread(file.fileno(), 9, 0) == b"changed" + BIG[7:9]
        file.write(b"again")
        assert os.pread(file.fileno(), 12, 0) == b"changedagain"
