"""`imagefs verify`: clean stores, every kind of damage to every kind of file, and its list."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from imagefs.cli.main import run
from tests.cli.conftest import Shell

CLEAN, DAMAGED = 0, 5


class Verifying(NamedTuple):
    """Runs `imagefs verify` in this process."""

    shell: Shell
    capture: pytest.CaptureFixture[str]

    def __call__(self, *options: str) -> tuple[int, str, str]:
        code = run(["verify", "--store", str(self.shell.store), *options])
        told = self.capture.readouterr()
        return code, told.out, told.err

    def problems(self) -> list[dict[str, Any]]:
        """The list for programs; the exit code and the list for people must agree with it."""
        code, out, _ = self("--json")
        problems: list[dict[str, Any]] = json.loads(out)
        assert code == (DAMAGED if problems else CLEAN)
        code_for_people, lines, _ = self()
        assert (code_for_people, lines.count("\n")) == (code, len(problems))
        return problems


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an image, an instance with changes (3), an unchanged one, a deleted one with
    changes (4) and a draft (5)."""
    home = tmp_path_factory.mktemp("made")
    source = home / "source"
    (source / "dir").mkdir(parents=True)
    (source / "dir/small").write_text("small\n")
    (source / "large").write_bytes(os.urandom(300_000))
    os.link(source / "large", source / "dir/linked")
    shell = Shell(home)
    shell("import", source, "base")
    shell("clone", "base", "plain", "changed", "gone")
    shell.mount("--seal-after", "0")
    for name in ("changed", "gone"):
        instance = shell.mountpoint / "instances/base" / name
        (instance / "new").write_bytes(os.urandom(200_000))
        (instance / "dir/small").write_text("more than small\n")
    (shell.mountpoint / "images/draft").mkdir()
    (shell.mountpoint / "images/draft/file").write_text("draft\n")
    shell("rm", "base/gone")
    shell.unmount()
    return shell.store


@pytest.fixture
def used(shell: Shell, made: Path) -> Shell:
    """A copy of that store."""
    shutil.copytree(made, shell.store)
    return shell


@pytest.fixture
def verify(used: Shell, capsys: pytest.CaptureFixture[str]) -> Verifying:
    return Verifying(used, capsys)


def test_a_whole_store_is_clean_mounted_or_not(used: Shell, verify: Verifying) -> None:
    assert verify.problems() == []
    used.mount()
    with open(used.mountpoint / "instances/base/changed/open", "wb") as file:
        file.write(b"being written")
        assert verify.problems() == []
        (used.mountpoint / "instances/base/changed/open").unlink()
        assert verify.problems() == []
    result = used.run("verify")
    assert (result.returncode, result.stdout) == (CLEAN, "")
    assert re.match(r"No problems in 2 images and 3 instances: \d+ entries, \d+ ob", result.stderr)
    used.unmount()


def test_there_must_be_a_store(shell: Shell) -> None:
    assert "There is no store" in shell.refused("verify", code=1)


def test_garbage_is_told_apart(used: Shell, verify: Verifying) -> None:
    leftover = used.store / "overlays/ann/1"
    leftover.mkdir(parents=True)
    (leftover / "heap").write_bytes(b"x")
    assert verify.problems() == []
    assert re.search(r"Not needed by any of them: \d+ objects, 1 overlay\n", verify()[2])


def test_other_accounts_trees_are_checked_and_their_overlays_are_named(
    verify: Verifying,
) -> None:
    code, _, told = verify("--account", "ann")
    assert code == CLEAN
    assert "instances and drafts of account root (--account root)" in told
    assert told.startswith("No problems in 1 image and 0 instances: "), "what was looked at counts"


# -- damage -----------------------------------------------------------------------------------


class Target(NamedTuple):
    """A kind of file, and where a flipped byte hurts; negative counts from the end."""

    name: str
    flipped: int


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def truncate(path: Path, at: int) -> None:
    os.truncate(path, path.stat().st_size // 2)


def delete(path: Path, at: int) -> None:
    path.unlink()


PACK = Target("packs/00000001.pack", 5000)
INDEX = Target("index.db", 3)
INDEX_ROWS = Target("index.db", 4096 + 5)
CATALOG = Target("catalog.db", 3)
CATALOG_ROWS = Target("catalog.db", 4096 * 2 + 4)
META = Target("overlays/root/3/meta.db", 3)
META_ROWS = Target("overlays/root/3/meta.db", 1024 + 4)
HEAP = Target("overlays/root/3/heap", 100)

MATRIX: dict[tuple[Target, Callable[[Path, int], None]], str | None] = {
    (PACK, flip): r"image base, instance base/plain, .* 1 more: /dir/linked: Bytes \d+ to \d+:"
    r" Object .* is damaged in pack 1 at offset \d+",
    (PACK, truncate): r"image base, instance base/plain, .* in pack 1 at offset \d+",
    (PACK, delete): r"packs: Pack .*00000001.pack is missing",
    (INDEX, flip): r"store: Index .*index\.db is damaged",
    (INDEX_ROWS, flip): r"(store|index): Index .*index\.db is damaged",
    (INDEX, truncate): r"(store|index): Index .*index\.db is damaged",
    (INDEX, delete): None,  # it is made again from the packs, as at every start
    (CATALOG, flip): r"store: The catalog .*catalog\.db is damaged",
    (CATALOG_ROWS, flip): r"(store|catalog): .*",
    (CATALOG, truncate): r"(store|catalog): .*",
    (CATALOG, delete): r"store: The catalog .*catalog\.db is missing",
    (META, flip): r"instance base/changed: Overlay database .*meta\.db is damaged",
    (META_ROWS, flip): r"instance base/changed: .*",
    (META, truncate): r"instance base/changed: .*",
    (META, delete): r"instance base/changed: .*database .*meta\.db is missing",
    (HEAP, flip): None,  # a heap has no checksums, like the files of any file system
    (HEAP, truncate): r"instance base/changed: Overlay heap .*heap ends at \d+ of \d+ bytes",
    (HEAP, delete): r"instance base/changed: Overlay heap .*heap ends at 0 of \d+ bytes",
}


@pytest.mark.parametrize(
    ("target", "damage"), MATRIX, ids=[f"{d.__name__}-{t.name}-{t.flipped}" for t, d in MATRIX]
)
def test_damage_is_found(
    verify: Verifying, target: Target, damage: Callable[[Path, int], None]
) -> None:
    expected = MATRIX[target, damage]
    damage(verify.shell.store / target.name, target.flipped)
    code, lines, _ = verify()
    if expected is None:
        assert (code, lines) == (CLEAN, "")
        return
    assert code == DAMAGED
    assert any(re.match(expected, line) for line in lines.splitlines()), lines
    assert without_the_draft(verify()[1]) == without_the_draft(lines), "nothing was repaired"


def without_the_draft(lines: str) -> list[str]:
    """Below an empty draft is the empty tree, which is stored anew whenever it is missing."""
    return [line for line in lines.splitlines() if not line.startswith("image draft:")]
