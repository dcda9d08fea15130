"""An instance does what a directory of the host does, whatever happens to both."""

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.acceptance.mounts import new_folder, remove_folder
from tests.model.machine import machine_in
from tests.model.session import Session
from tests.seed import SEED

pytestmark = [pytest.mark.mount, pytest.mark.root]

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.script"))
SECONDS = float(os.environ.get("IMAGEFS_TEST_MODEL_SECONDS", "120"))
SETTINGS = settings(
    max_examples=8,
    stateful_step_count=80,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    # Scripts are shortened by leaving out steps, which is quicker than drawing anew.
    phases=[Phase.generate],
    verbosity=Verbosity.quiet,
    print_blob=False,
    report_multiple_bugs=False,
)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    folder = new_folder()
    try:
        with Session(folder / "model") as session:
            yield session
    finally:
        remove_folder(folder)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_that_once_failed(script: Path, session: Session) -> None:
    session.replay(script.read_text())


def test_a_write_through_a_map_counts_when_its_page_goes_out(session: Session) -> None:
    """What docs/differences.md says, and what the model leaves out: see `World.untimed`."""
    world = session.world("instance")
    file = world.instance / "d/a"
    before = file.stat().st_mtime_ns
    world.run(["root.open(0, 'd/a', 'O_RDWR', 0)", "root.mmap(0, 0, 0, 8192, True, True)"])
    world.run(["root.mwrite(0, 10, 1, 5000)", "root.pread(0, 0, 8192)"])
    assert file.stat().st_mtime_ns == before
    assert (world.host / "d/a").stat().st_mtime_ns > before
    world.run(["root.msync(0)"])
    assert file.stat().st_mtime_ns > before
    world.run(["root.open(1, 'd/holes', 'O_RDWR|O_CREAT', 420)", "root.ftruncate(1, 8192)"])
    world.run(["root.mmap(1, 1, 0, 8192, True, True)", "root.mwrite(1, 10, 1, 100)"])
    assert (world.instance / "d/holes").stat().st_blocks == 0
    assert (world.host / "d/holes").stat().st_blocks
    world.run(["root.msync(1)"])
    assert (world.instance / "d/holes").stat().st_blocks
    session.leave(world, finish=True)


def test_a_write_through_a_map_takes_set_id_bits_away(session: Session) -> None:
    """What docs/differences.md says, and what the model leaves out: see `Side.mmap`."""
    world = session.world("instance")
    world.run(["alice.open(0, 'd/a', 'O_RDWR', 0)", "alice.mmap(0, 0, 0, 8192, True, True)"])
    world.run(["alice.mwrite(0, 10, 1, 5000)"])
    modes = []
    for top in (world.host, world.instance):
        (top / "d/a").chmod(0o6755)
    world.run(["alice.msync(0)"])
    for top in (world.host, world.instance):
        modes.append(stat.S_IMODE((top / "d/a").stat().st_mode))
        (top / "d/a").chmod(0o755)
    assert modes == [0o6755, 0o755]
    session.leave(world, finish=True)


def test_a_fifo_keeps_its_time(session: Session) -> None:
    """What docs/differences.md says, and what the model leaves out: see `World.untimed`."""
    world = session.world("instance")
    world.run([f"root.mknod('d/fifo', {stat.S_IFIFO | 0o600}, 0)", "life.calm()"])
    before = (world.instance / "d/fifo").stat().st_mtime_ns
    world.run(["root.open(0, 'd/fifo', 'O_RDWR', 0)", "root.write(0, 1, 100)"])
    assert (world.instance / "d/fifo").stat().st_mtime_ns == before
    assert (world.host / "d/fifo").stat().st_mtime_ns > before
    session.leave(world, finish=True)


def test_random_scripts(session: Session) -> None:
    print(f"IMAGEFS_TEST_SEED={SEED}")
    end = time.monotonic() + SECONDS
    number = SEED
    while time.monotonic() < end:
        try:
            run_state_machine_as_test(seed(number)(machine_in(session)), settings=SETTINGS)
        except Exception:
            if session.found is not None:
                raise session.shortest(session.found) from None
            raise
        number += 1
    print(
        f"{session.operations} operations in {session.worlds} scripts, seeds {SEED} to {number - 1}"
    )
