"""For all tests: a home of their own, and no mounts left behind by earlier or own runs."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance import mounts

pytest_plugins = [
    "tests.acceptance.fixtures",
    "tests.acceptance.machines",
    "tests.region.fixtures",
]

FOREIGN = ("IMAGEFS_STORE", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR")
HOMES = itertools.count(1)


def pytest_report_header() -> str:
    who = "root" if os.geteuid() == 0 else "an ordinary user"
    fuse = "usable" if os.access("/dev/fuse", os.R_OK | os.W_OK) else "not usable"
    return f"imagefs: run by {who}, /dev/fuse {fuse}"


def pytest_sessionstart() -> None:
    for mount in mounts.sweep():
        print(f"imagefs: ended the mount of a dead test run at {mount}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Mounts that a test of this run forgot end the run as a failure."""
    basetemp = getattr(session.config, "_tmp_path_factory").getbasetemp()  # noqa: B009 - private
    for mount in mounts.detach_below(Path(basetemp)):
        print(f"imagefs: a test left {mount} mounted")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves out, by name of the reason, what this machine or user cannot do."""
    reasons = {}
    if os.geteuid() != 0:
        reasons["root"] = "takes root"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        reasons["mount"] = "/dev/fuse is missing or closed to this user"
    for item in items:
        for name, reason in reasons.items():
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def own_umask() -> Iterator[None]:
    """A test that leaves another umask behind fails: those that come later would see it."""
    before = os.umask(0o022)
    yield
    left = os.umask(before)
    assert left == 0o022, f"The test left umask {left:03o} behind"


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing that a test runs finds the settings, stores or images of whoever runs the tests.

    Every test has another home, and it does not exist until somebody makes it.
    """
    home = tmp_path_factory.getbasetemp() / "homes" / str(next(HOMES))
    monkeypatch.setenv("HOME", str(home))
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    return home
