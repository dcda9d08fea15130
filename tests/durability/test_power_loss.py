"""Power loss at any moment: the store opens, what was promised is there, nothing is wrong.

`IMAGEFS_TEST_POWER_LOSSES` says how many states are tried for each story (default: a share of
the test run; hours are well spent, too), `IMAGEFS_TEST_SEED` which story is told.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagefs.catalog import State, TreeRow
from imagefs.overlay import database
from tests.durability.power_loss import Nodes, syncs
from tests.durability.recording import RecordingDisk
from tests.durability.story import (
    OPTIONS,
    Facts,
    History,
    Story,
    content_of,
    facts_of,
    names_of,
)
from tests.seed import SEED
from tests.vfs.conftest import View

LOSSES = int(os.environ.get("IMAGEFS_TEST_POWER_LOSSES", "400"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: nothing here is to survive."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    made = Path(tempfile.mkdtemp(prefix="imagefs-", dir=memory if usable else tmp_path))
    yield made
    shutil.rmtree(made)


# -- the story -----------------------------------------------------------------------------


def make_source(path: Path) -> Path:
    """A directory to import."""
    (path / "etc" / "deep").mkdir(parents=True)
    (path / "etc" / "hosts").write_bytes(b"127.0.0.1 localhost\n" * 20)
    (path / "etc" / "deep" / "large").write_bytes(random.Random(1).randbytes(300_000))
    (path / "etc" / "linked").hardlink_to(path / "etc" / "hosts")
    (path / "link").symlink_to("etc/hosts")
    with open(path / "sparse", "wb") as file:
        file.truncate(400_000)
        os.pwrite(file.fileno(), b"end", 390_000)
    return path


def live(story: Story, places: list[str], steps: int) -> None:
    """Random changes in some trees, synced now and then."""
    for _ in range(steps):
        place = story.rng.choice(places)
        story.change(place)
        chance = story.rng.random()
        if chance < 0.08:
            synced = story.rng.choice((place, place, f"{place}/etc", "instances/base"))
            story.fsync(synced if story.view.exists(synced) else place)
        elif chance < 0.10:
            story.sync_everything()
        elif chance < 0.13:
            story.tick()


def tell(story: Story, source: Path) -> None:
    """Everything that happens to images and instances, some of it twice."""
    view = story.view
    story.import_image(source, "base")
    story.do(view.mkdir, "images/draft")
    story.do(view.mkdir, "images/draft/etc")
    live(story, ["images/draft"], 12)
    story.fsync("images/draft")
    live(story, ["images/draft"], 6)
    story.command("seal", "draft")
    for name in ("a", "b"):
        story.do(view.mkdir, f"instances/base/{name}")
    story.command("clone", "base", ["c", "d"])
    live(story, ["instances/base/a", "instances/base/b"], 40)
    story.command("commit", "base/a", "committed")
    live(story, ["instances/base/a", "instances/base/c"], 15)
    story.command("reset", "base/b")
    story.command("remove", "base/d")
    story.do(view.rename, "instances/base/a", "instances/base/e")
    story.do(view.symlink, "committed", "images/alias")
    live(story, ["instances/base/b", "instances/base/e"], 25)
    story.remount()
    live(story, ["instances/base/b", "instances/base/e"], 25)
    story.command("undelete", "base/d")
    live(story, ["instances/base/d"], 10)
    story.do(view.rename, "instances/base/e", "images/promoted")
    story.promise_names()
    story.tick()
    story.do(view.rmdir, "images/draft")
    story.do(view.rename, "images/committed", "images/renamed")
    story.do(view.mkdir, "instances/promoted/x")
    live(story, ["instances/promoted/x", "instances/base/b"], 20)
    story.fsync("instances")
    story.command("seal", "renamed")
    story.remount()
    live(story, ["instances/promoted/x", "instances/base/c"], 10)


# -- after power loss ----------------------------------------------------------------------


class Aftermath:
    """One state of the disk, opened."""

    def __init__(self, story: Story, position: int, root: Path) -> None:
        self.story = story
        self.position = position
        has_catalog = (root / "catalog.db").exists()
        self.view = View(root, OPTIONS)
        # Else the store would be refused: see daemon.assembly.
        assert has_catalog or not self.view.store.statistics().objects
        self.view.now += 10**15

    def check(self) -> None:
        """Everything promised is there, and everything there is right."""
        names = names_of(self.view.catalog)
        window = self.story.names_window(self.position)
        told = [self.story.names[index][1] for index in window]
        assert names in told, f"names are of no moment in {window}"
        for row in sorted(names.trees, key=lambda row: row.number):
            if row.deleted is None:
                self._check_tree(row)
        assert self.view.problems() == []

    def _check_tree(self, row: TreeRow) -> None:
        view = self.view
        volume = view.vfs._volumes.open(row)
        overlay = volume.overlay
        facts = facts_of(view.run, overlay)
        if row.state is State.SEALED:
            for fact in facts.values():
                if stat.S_ISREG(fact.attributes.mode):
                    content_of(view.run, overlay, fact.attributes)
            assert not overlay.changed
            return
        history = self.story.trees[row.number]
        window = history.window(self.position)
        found = [index for index in window if history.moments[index].facts == facts]
        assert found, f"{row.reference}: names and attributes are of no moment in {window}"
        self._check_contents(row, history, window, facts)
        view.vfs._volumes.release(volume)

    def _check_contents(self, row: TreeRow, history: History, window: range, facts: Facts) -> None:
        view = self.view
        for path, fact in facts.items():
            if not stat.S_ISREG(fact.attributes.mode):
                continue
            overlay = view.vfs._volumes.open(row).overlay
            data = content_of(view.run, overlay, fact.attributes)
            versions = history.contents(window, fact.attributes.ino)
            if data in versions:
                continue
            assert len(versions) > 1, f"{row.reference}: {path!r} was synced and is other"
            assert made_of(data, versions), f"{row.reference}: {path!r} has bytes of no version"

    def go_on(self) -> None:
        """It can be worked with: changes, syncs, clones and seals; then it is closed in order."""
        view = self.view
        for row in sorted(names_of(view.catalog).trees, key=lambda row: row.number):
            if row.deleted is not None or row.state is State.SEALED:
                continue
            where = f"instances/{row.reference}" if row.place else f"images/{row.name}"
            view.write(f"{where}/after", b"after the loss", 5000)
            view.fsync(f"{where}/after")
            assert view.read(f"{where}/after") == bytes(5000) + b"after the loss"
            if row.place:
                view.lifecycle("commit", row.reference, f"after-{row.number}")
                assert view.read(f"images/after-{row.number}/after")[5000:] == b"after the loss"
            else:
                view.lifecycle("seal", row.name)
        view.settle()

    def close(self) -> None:
        self.view.close()


_UNLIKELY = 5
"""So many bytes in a row are not equal in two versions by chance."""


def made_of(data: bytes, versions: list[bytes]) -> bool:
    """Whether each byte is that of some version at the same place; or zero, unless all versions
    have the same bytes there: then nobody touched them since they were synced. (Single bytes
    of two versions may be equal by chance.)"""
    lost = 0
    for begin in range(0, len(data), 512):
        part = data[begin : begin + 512]
        parts = [version[begin : begin + 512].ljust(len(part), b"\0") for version in versions]
        if part in parts:
            continue
        for byte, *others in zip(part, *parts, strict=False):
            untouched = others.count(others[0]) == len(others)
            lost = lost + 1 if untouched and byte not in others else 0
            if lost == _UNLIKELY or (byte != 0 and byte not in others):
                return False
    return True


def moments(log_length: int, sync_positions: list[int], rng: random.Random, most: int) -> list[int]:
    """Where power is lost: right before and right behind every sync, and in between."""
    always = {position for sync in sync_positions for position in (sync, sync + 1)}
    if len(always) > most:
        return sorted(rng.sample(sorted(always), most))
    others = sorted(set(range(log_length + 1)) - always)
    return sorted(always | set(rng.sample(others, min(len(others), most - len(always)))))


@pytest.fixture
def frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Overlays move their WAL into the database after a few pages."""
    monkeypatch.setattr(database, "_CHECKPOINT_PAGES", 40)


@pytest.mark.usefixtures("frequent_checkpoints")
def test_after_power_loss_what_was_promised_is_there_and_nothing_is_wrong(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    print(f"IMAGEFS_TEST_SEED={SEED}")
    caplog.set_level(logging.ERROR)
    root = place / "store"
    disk = RecordingDisk(place)
    with disk.watching():
        story = Story(root, disk, SEED)
        before = Nodes(str(place), disk.nodes())
        story.open()
        story.promise_all()
        tell(story, make_source(tmp_path / "source"))
        story.view.close()
        story.promise_all()
    lose(story, before, place, random.Random(SEED), caplog)


def lose(
    story: Story, disk: Nodes, place: Path, rng: random.Random, caplog: pytest.LogCaptureFixture
) -> None:
    log = story.disk.log
    ways: list[Callable[[Path], None]] = [
        disk.nothing, disk.everything, lambda target: disk.some(target, rng)
    ]  # fmt: skip
    chosen = moments(len(log), list(syncs(log)), rng, LOSSES)
    print(f"{len(log)} operations, {len(list(syncs(log)))} syncs, {len(chosen)} losses")
    done = 0
    for number, position in enumerate(chosen):
        for operation in log[done:position]:
            disk.apply(operation)
        done = position
        way = number % 4
        target = place / "left"
        ways[min(way, 2)](target)
        try:
            inspect(story, position, target / "store", goes_on=number % 5 == 0)
        except BaseException:
            print(f"seed {SEED}, position {position}, way {way}, in {target}")
            raise
        assert caplog.records == [], f"position {position}"
        shutil.rmtree(target)


def inspect(story: Story, position: int, root: Path, *, goes_on: bool) -> None:
    found = Aftermath(story, position, root)
    try:
        found.check()
        if goes_on:
            found.go_on()
    finally:
        found.close()
    if goes_on:
        again = View(root, OPTIONS)
        assert again.problems() == []
        again.close()
