"""Copies in and out keep everything, and the way in does not show in the digest."""

import stat
import subprocess
from pathlib import Path

import pytest

from tests.acceptance import samples
from tests.acceptance.manifest import Manifest, assert_equal
from tests.acceptance.person import Person

pytestmark = pytest.mark.mount


def sealed(tree: Manifest) -> Manifest:
    """The tree as a sealed image shows it: its root without write permission."""
    fields = tree.lines[b"."].split(" ")
    mode = int(fields[2].removeprefix("mode="), 8) & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    fields[2] = f"mode={mode:04o}"
    return tree._replace(lines={**tree.lines, b".": " ".join(fields)})


def check_round_trip(person: Person, source: Path) -> None:
    """In by cp and by import, cloned three times, and out again."""
    original = person.manifest(source)
    person.mount()
    person.run("cp", "-a", source, person.images / "base")
    assert_equal(original, person.manifest(person.images / "base"))
    clones = [person.instances / f"base/clone-{number}" for number in range(3)]
    person.run("mkdir", *clones)
    for clone in clones:
        assert_equal(original, person.manifest(clone))
    assert_equal(sealed(original), person.manifest(person.images / "base"))

    person.run("cp", "-a", "--sparse=always", clones[0], person.home / "out")
    assert_equal(original, person.manifest(person.home / "out"))

    person.imagefs("import", source, "base2")
    assert_equal(sealed(original), person.manifest(person.images / "base2"))
    assert person.digest("base") == person.digest("base2")
    assert person.digest("base").startswith("blake3:")


@pytest.mark.root
def test_a_system_survives_the_round_trip(root: Person, rootfs: Path) -> None:
    check_round_trip(root, rootfs)


def test_a_tree_with_everything_survives_the_round_trip(anyone: Person) -> None:
    source = anyone.home / "source"
    if anyone.is_root:
        samples.build(source, privileged=True)
    else:
        build = ("-m", "tests.acceptance.samples", source)
        anyone.run("python3", *build, cwd=anyone.checkout)
    check_round_trip(anyone, source)


def test_the_digest_ignores_how_a_tree_was_written(user: Person) -> None:
    """Order of creation, skipped or written zeros, overwriting: none of it belongs to the tree."""
    user.mount()
    forth = user.images / "forth"
    back = user.images / "back"
    user.shell(
        f"""
        mkdir {forth} {back}
        cd {forth}; mkdir a b; echo one >a/1; echo two >b/2; truncate -s 1M hole
        cd {back}; dd if=/dev/zero of=hole bs=1M count=1 status=none; mkdir b; echo wrong >b/2
        echo two >b/2; echo stray >b/3; rm b/3; mkdir c; mv c a; echo one >a/0; mv a/0 a/1
        for tree in {forth} {back}; do
            find $tree -depth -exec touch -h -d '2001-02-03 04:05:06.789' {{}} +
        done
        """
    )
    user.imagefs("seal", "forth")
    user.imagefs("seal", "back")
    assert user.digest("forth") == user.digest("back")


def test_root_may_keep_what_belongs_to_others_and_so_may_a_user(user: Person) -> None:
    """In a private mount, ownership is stored and not enforced: no need to be root for chown."""
    user.mount()
    file = user.images / "system/file"
    user.shell(f"mkdir {user.images}/system; echo x >{file}; chown 0:42 {file}; chmod 6755 {file}")
    shown = user.run("stat", "-c", "%u:%g %a", file).stdout
    assert shown == "0:42 6755\n"


@pytest.mark.root
def test_another_user_does_not_get_into_a_private_mount(root: Person, user: Person) -> None:
    root.home.chmod(0o755)
    root.mount()
    assert user.run("ls", root.cloud, check=False).returncode != 0
    user.mount()
    # Not even root: the kernel keeps everybody out but the one who mounted.
    seen = subprocess.run(["ls", str(user.cloud)], capture_output=True, check=False)
    assert seen.returncode != 0
