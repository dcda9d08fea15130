"""An instance becomes an image by mv, by commit, by copying: the same tree, the same digest."""

import json
from pathlib import Path

import pytest

from tests.acceptance.manifest import assert_equal
from tests.acceptance.person import Person

pytestmark = [pytest.mark.mount, pytest.mark.root]

PREPARE = """
    cd "$1"
    echo web-server >etc/hostname
    mkdir -p srv/www; echo '<p>hello</p>' >srv/www/index.html
    rm -r usr/share/doc/tar
    mv opt srv/opt
    ln etc/hostname srv/hostname
    setfattr -n user.role -v web srv
    truncate -s +100000 etc/services
    touch -d '2020-01-02 03:04:05.678' etc/hostname etc/services srv/www/index.html srv/www srv etc \
        usr/share/doc .
"""


def test_three_ways_to_one_digest(root: Person, rootfs: Path) -> None:
    root.mount()
    root.run("cp", "-a", rootfs, root.images / "base")
    one, twin = root.instances / "base/one", root.instances / "base/twin"
    for instance in (one, twin):
        instance.mkdir()
        root.run("bash", "-euc", PREPARE, "-", instance)
    prepared = root.manifest(one)
    assert_equal(prepared, root.manifest(twin))
    base = root.digest("base")

    root.run("cp", "-a", one, root.images / "copied")
    root.imagefs("commit", "base/twin", "committed")
    root.run("mv", one, root.images / "web")
    root.imagefs("seal", "copied")
    digests = {root.digest(image) for image in ("copied", "committed", "web")}
    assert len(digests) == 1
    assert digests != {base}
    assert root.digest("base") == base
    assert not one.exists()
    clone = root.instances / "web/again"
    clone.mkdir()
    assert_equal(prepared, root.manifest(clone))


def test_diff_lists_exactly_what_changed(root: Person, rootfs: Path) -> None:
    root.mount()
    root.imagefs("import", rootfs, "base")
    instance = root.instances / "base/one"
    instance.mkdir()
    before = root.manifest(instance)
    root.run("bash", "-euc", PREPARE, "-", instance)
    after = root.manifest(instance)
    root.run("mv", instance, root.images / "web")

    found = json.loads(root.imagefs("diff", "base", "web", "--json").stdout)
    paths = {change["path"] for change in found}
    assert paths == expected_paths(before.lines, after.lines)
    assert json.loads(root.imagefs("diff", "base", "base", "--json").stdout) == []


def expected_paths(before: dict[bytes, str], after: dict[bytes, str]) -> set[str]:
    """The paths whose lines differ, by the manifests, as `diff` tells them."""
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return {path.decode().removeprefix(".") or "/" for path in changed}
