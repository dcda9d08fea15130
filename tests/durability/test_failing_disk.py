"""The N-th call of the disk fails, for every N of every operation.

Whatever call it is and however it fails (EIO, no space, half a write; once, or from then on):
one error of ours, and what is seen is as before or as after: in the process that lives on, in
one that finds what a kill would leave now, and after closing and opening again. Then the
operation succeeds.

`IMAGEFS_TEST_FAULTS=all` tries every N; without it a part of them, another one in every run.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from imagefs.errors import ImagefsError
from tests.durability.operations import (
    OPERATIONS,
    Visible,
    build,
    is_written_in_part,
    visible,
)
from tests.durability.recording import Fault, RecordingDisk
from tests.durability.story import OPTIONS
from tests.seed import SEED
from tests.vfs.conftest import View

ALL = os.environ.get("IMAGEFS_TEST_FAULTS") == "all"
SHARE = 8
KINDS_EACH = 2
"""Without all: one call in so many, in so many of the kinds for each operation."""
MOST = 400
"""No operation here makes as many calls."""


class Kind(NamedTuple):
    """How calls fail."""

    code: int
    short: bool = False
    forever: bool = False


KINDS = {
    "EIO": Kind(errno.EIO),
    "EIO for ever": Kind(errno.EIO, forever=True),
    "ENOSPC": Kind(errno.ENOSPC),
    "ENOSPC for ever": Kind(errno.ENOSPC, forever=True),
    "short write, ENOSPC": Kind(errno.ENOSPC, short=True),
    "short write, EIO for ever": Kind(errno.EIO, short=True, forever=True),
}


def cases(names: Iterable[str]) -> list[tuple[str, str]]:
    """Operations and how the disk fails."""
    rng = random.Random(SEED)
    each = len(KINDS) if ALL else KINDS_EACH
    return [(name, kind) for name in names for kind in sorted(rng.sample(sorted(KINDS), each))]


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in memory where there is one."""
    shared = Path("/dev/shm")
    usable = shared.is_dir() and os.access(shared, os.W_OK)
    where = shared if usable else tmp_path_factory.mktemp("faults")
    made = Path(tempfile.mkdtemp(prefix="imagefs-", dir=where))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def template(memory: Path) -> Path:
    build(memory / "template")
    return memory / "template"


class Trial:
    """One store whose disk can fail."""

    def __init__(self, template: Path, place: Path) -> None:
        self.place = place
        self.root = place / "store"
        place.mkdir()
        shutil.copytree(template, self.root)
        self.disk = RecordingDisk(place)
        self.disk.recording = False

    def look(self, root: Path) -> Visible:
        """What another process would see, which finds nothing wrong."""
        view = View(root, OPTIONS)
        try:
            assert view.problems() == []
            return visible(view)
        finally:
            view.close()

    def after_kill(self) -> Visible:
        copy = self.place / "killed"
        shutil.copytree(self.root, copy)
        try:
            return self.look(copy)
        finally:
            shutil.rmtree(copy)


def numbers(kind: Kind, rng: random.Random) -> Iterator[int]:
    """Which calls fail: all, or some of them."""
    share = 1 if ALL else SHARE
    yield from range(1 + rng.randrange(share), MOST, share)


@pytest.mark.parametrize(("name", "kind"), cases(OPERATIONS))
def test_an_operation_on_a_failing_disk_happens_or_does_not(
    memory: Path, template: Path, name: str, kind: str
) -> None:
    rng = random.Random(f"{SEED} {name} {kind}")
    before, after = expected(memory, template, name)
    hits = 0
    for number in numbers(KINDS[kind], rng):
        fault = Fault(
            number, KINDS[kind].code, short=KINDS[kind].short, forever=KINDS[kind].forever
        )
        place = memory / "trial"
        try:
            attempt(Trial(template, place), name, fault, before, after)
        except BaseException:
            print(f"IMAGEFS_TEST_SEED={SEED} IMAGEFS_TEST_FAULTS={'all' if ALL else ''}, {fault}")
            raise
        finally:
            shutil.rmtree(place)
        hits += fault.hit > 0
        if not fault.hit:
            return
    raise AssertionError(f"{hits} calls failed and there are more")


_EXPECTED: dict[str, tuple[Visible, Visible]] = {}


def expected(memory: Path, template: Path, name: str) -> tuple[Visible, Visible]:
    """What is seen before and after an operation when nothing fails."""
    if name not in _EXPECTED:
        place = memory / "expected"
        trial = Trial(template, place)
        view = View(trial.root, OPTIONS)
        OPERATIONS[name].first(view)
        before = visible(view)
        OPERATIONS[name].do(view)
        after = visible(view)
        view.close()
        assert trial.look(trial.root) == after
        shutil.rmtree(place)
        _EXPECTED[name] = before, after
    return _EXPECTED[name]


def attempt(trial: Trial, name: str, fault: Fault, before: Visible, after: Visible) -> None:
    operation = OPERATIONS[name]
    with trial.disk.watching():
        view = View(trial.root, OPTIONS, disk=trial.disk)
        operation.first(view)
        trial.disk.fault = fault
        failed = did_fail(lambda: operation.do(view))
        trial.disk.fault = None
        allowed = (before, after) if failed else (after,)

        def is_allowed(found: Visible) -> bool:
            return found in allowed or (failed and is_written_in_part(found, before, after))

        assert is_allowed(visible(view)), "in the living process"
        assert is_allowed(trial.after_kill()), "after a kill"
        done = not failed or (before != after and visible(view) == after)
        if not done:
            # A sync that failed is not believed until the files are opened again.
            done = not did_fail(lambda: operation.do(view))
            assert not done or visible(view) == after, "tried again"
        with suppress(ImagefsError):
            view.close()
        found = trial.look(trial.root)
        assert found == after if done else is_allowed(found), "opened again"
        if not done:
            again = View(trial.root, OPTIONS, disk=trial.disk)
            operation.do(again)
            again.close()
            assert trial.look(trial.root) == after


def did_fail(do: Callable[[], object]) -> bool:
    try:
        do()
    except ImagefsError:
        return True
    return False


@pytest.mark.parametrize(
    ("name", "kind"), cases(["a new store", "opening", "opening after a kill", "closing"])
)
def test_a_store_on_a_failing_disk_opens_when_the_disk_is_well(
    memory: Path, template: Path, name: str, kind: str
) -> None:
    rng = random.Random(f"{SEED} {name} {kind}")
    for number in numbers(KINDS[kind], rng):
        place = memory / "trial"
        trial = Trial(template, place)
        fault = Fault(
            number, KINDS[kind].code, short=KINDS[kind].short, forever=KINDS[kind].forever
        )
        try:
            open_and_close(trial, name, fault)
        except BaseException:
            print(f"IMAGEFS_TEST_SEED={SEED} IMAGEFS_TEST_FAULTS={'all' if ALL else ''}, {fault}")
            raise
        finally:
            shutil.rmtree(place)
        if not fault.hit:
            return
    raise AssertionError("there are more calls")


def open_and_close(trial: Trial, name: str, fault: Fault) -> None:
    before: Visible = {}
    if name == "a new store":
        shutil.rmtree(trial.root)
        trial.disk = RecordingDisk(trial.place)
    elif name == "opening after a kill":
        view = changed(trial)
        shutil.copytree(trial.root, trial.place / "killed")
        view.close()
        shutil.rmtree(trial.root)
        (trial.place / "killed").rename(trial.root)
        trial.disk = RecordingDisk(trial.place)
    with trial.disk.watching():
        closing = changed(trial).close if name == "closing" else None
        if name != "a new store":
            before = trial.after_kill()
        trial.disk.fault = fault
        did_fail(closing or (lambda: look_around(View(trial.root, OPTIONS, disk=trial.disk))))
        trial.disk.fault = None
    found = trial.look(trial.root)
    assert not before or found == before


def changed(trial: Trial) -> View:
    """An open view with changes that were not synced."""
    view = View(trial.root, OPTIONS, disk=trial.disk)
    for instance in ("a", "b"):
        view.write(f"instances/base/{instance}/new", b"new")
        view.unlink(f"instances/base/{instance}/d/big")
    view.mkdir("instances/base/late")
    return view


def look_around(view: View) -> None:
    try:
        visible(view)
    finally:
        view.close()
