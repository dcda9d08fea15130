"""What is there before unmounting is there after mounting again."""

import os
import re
from pathlib import Path

import pytest

from tests.acceptance import samples
from tests.acceptance.manifest import assert_equal
from tests.acceptance.person import Person

pytestmark = pytest.mark.mount


@pytest.mark.root
def test_everything_is_as_before(root: Person, tmp_path: Path) -> None:
    source = tmp_path / "source"
    samples.build(source, privileged=True)
    original = root.manifest(source)
    root.mount()
    root.run("cp", "-a", source, root.images / "base")
    changed = root.instances / "base/changed"
    changed.mkdir()
    (root.instances / "base/untouched").mkdir()
    root.shell(
        f"cd {changed}; rm -r names; echo more >>contents/size-4096; mv links moved; ln moved/another n"
    )
    draft = root.images / "draft"
    root.run("cp", "-a", source, draft)
    numbers = {path: path.lstat().st_ino for path in changed.rglob("*")}
    as_changed = root.manifest(changed)
    before = {name: root.information(root.images / name, "state") for name in ("base", "draft")}

    root.remount()

    assert before == {"base": "sealed", "draft": "draft"}
    assert before == {name: root.information(root.images / name, "state") for name in before}
    assert_equal(as_changed, root.manifest(changed))
    assert_equal(original, root.manifest(draft))
    assert_equal(original, root.manifest(root.instances / "base/untouched"))
    assert sorted(os.listdir(root.instances / "base")) == ["changed", "untouched"]
    assert numbers == {path: path.lstat().st_ino for path in changed.rglob("*")}


def test_a_dead_mount_fails_loudly_and_is_mounted_over(anyone: Person) -> None:
    anyone.mount()
    anyone.run("mkdir", anyone.images / "empty")
    anyone.kill_daemon()
    failed = anyone.run("ls", anyone.cloud, check=False)
    assert failed.returncode != 0
    assert re.search("not connected|connection abort", failed.stderr)
    anyone.mount()
    assert anyone.run("ls", anyone.images).stdout == "empty\n"
