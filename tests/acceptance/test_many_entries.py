"""An image of very many entries is imported, cloned, walked and committed; memory is watched."""

import os
from pathlib import Path

import pytest

from tests.acceptance.person import Person

pytestmark = [pytest.mark.mount, pytest.mark.root]

ENTRIES = int(os.environ.get("IMAGEFS_TEST_ENTRIES", "100000"))
PER_FOLDER = 500
MEMORY_LIMIT = 300 << 20


def make_tree(top: Path) -> int:
    """Makes small files, some hundred to a directory, and returns how many entries there are."""
    made = 0
    for number in range(ENTRIES // PER_FOLDER):
        folder = top / f"{number % 40:02}" / f"{number:05}"
        folder.mkdir(parents=True)
        for name in range(PER_FOLDER - 1):
            (folder / f"file-{name:03}").write_bytes(b"%d in %d\n" % (name, number))
        made += PER_FOLDER
    return made + min(40, ENTRIES // PER_FOLDER)


def resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM")


def test_memory_stays_bounded(root: Person) -> None:
    source = root.home / "source"
    made = make_tree(source)
    root.mount()
    root.imagefs("import", source, "large", timeout=1800)
    assert int(root.information(root.images / "large", "entries")) == made
    clone = root.instances / "large/node"
    clone.mkdir()
    walked = root.run("find", clone, "-mindepth", "1", "-printf", "x", timeout=1800).stdout
    assert len(walked) == made
    (daemon,) = root.daemons()
    print(f"{made} entries walked, the daemon took {resident(daemon) >> 20} MiB at most")
    assert resident(daemon) < MEMORY_LIMIT

    for number in range(10):
        folder = clone / f"{number:02}/{number:05}"
        (folder / f"file-{number:03}").write_text("changed\n")
    root.imagefs("commit", "large/node", "changed")
    found = root.imagefs_json("diff", "large", "changed")
    assert len([change for change in found if change["path"].count("/") == 3]) == 10
    print(f"committed, the daemon took {resident(daemon) >> 20} MiB at most")
    assert resident(daemon) < MEMORY_LIMIT
