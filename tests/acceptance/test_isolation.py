"""A hundred clones at once, and what is done in one stays there."""

import os
import time
from pathlib import Path

import pytest

from tests.acceptance.manifest import assert_equal
from tests.acceptance.person import Person

pytestmark = [pytest.mark.mount, pytest.mark.root]


def stored_files(store: Path) -> set[tuple[str, int]]:
    """The files that hold content, with their sizes; the catalog is about names."""
    return {
        (str(path.relative_to(store)), path.stat().st_size)
        for folder in ("packs", "overlays")
        for path in (store / folder).rglob("*")
        if path.is_file()
    }


def test_clones_do_not_see_each_other(root: Person, rootfs: Path) -> None:
    original = root.manifest(rootfs)
    root.mount()
    root.imagefs("import", rootfs, "base")
    digest = root.digest("base")
    before = stored_files(root.store)
    root.shell(f"mkdir {root.instances}/base/node-{{001..100}}")
    assert stored_files(root.store) == before, "a clone is a row, not a copy"
    assert len(os.listdir(root.instances / "base")) == 100

    changed = root.instances / "base/node-001"
    root.shell(
        f"""
        cd {changed}
        echo changed >>etc/passwd
        printf XX | dd of=usr/bin/perl bs=1 seek=300000 conv=notrunc status=none
        rm -r usr/share/doc
        mv usr/lib usr/lib.moved
        mv var/cache srv/cache
        ln etc/hostname etc/hostname.linked
        mkdir -p new/deep; echo new >new/deep/file
        chmod 700 home; chown 1:2 opt; setfattr -n user.note -v mine etc; setfacl -m u:7:rwx root
        : >etc/shadow
        truncate -s 5 usr/bin/tar
        """
    )
    assert root.manifest(changed) != original
    for other in ("node-002", "node-057", "node-100"):
        assert_equal(original, root.manifest(root.instances / "base" / other))
    root.shell(f"mkdir {root.instances}/base/afterwards")
    assert_equal(original, root.manifest(root.instances / "base/afterwards"))
    assert root.digest("base") == digest


def test_a_clone_costs_the_same_whatever_the_image(root: Person, rootfs: Path) -> None:
    """No file, no content and no memory of the size; times are printed, and judged by tools/bench."""
    large = root.home / "large"
    large.mkdir()
    for number in range(8):
        root.run("cp", "-al", rootfs, large / f"copy-{number}")
    root.mount()
    root.imagefs("import", rootfs, "small")
    root.imagefs("import", large, "large")
    before = stored_files(root.store)
    for image in ("small", "large"):
        names = [root.instances / image / f"node-{number}" for number in range(200)]
        start = time.perf_counter()
        for name in names:
            name.mkdir()
        taken = (time.perf_counter() - start) / len(names)
        print(f"{image}: {taken * 1e6:.0f} us a clone")
    assert stored_files(root.store) == before
