"""What the acceptance and crash tests stand on: people with homes, and a Debian system."""

import fcntl
import grp
import os
import pwd
import re
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.acceptance.mounts import detach_below, new_folder, remove_folder
from tests.acceptance.person import Person

ROOT = Path(__file__).resolve().parent.parent.parent
USER = "imagefs-test"
RELEASE = "bookworm"
SUBORDINATE = "2000000000-2000065535"
SHARED_PARTS = ("imagefs", "tools", "tests", "pyproject.toml", "README.md")
SURROUNDINGS = ("PATH", "LANG", "TERM", "SSL_CERT_FILE", "PIP_CERT", "PIP_FIND_LINKS")
ALARMS = ("Traceback (most recent call last)", "ERROR", "CRITICAL", "WARNING")

DATED = re.compile(r"\d{4}-\d\d-\d\d ")


@cache
def cache_folder() -> Path:
    """For what is made once for many runs: outside of the checkout, and open to other users."""
    if os.geteuid() == 0:
        folder = Path("/var/cache/imagefs-test")
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "imagefs-test"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# Found now, because the tests run with another home.
cache_folder()


def surroundings(home: Path, name: str) -> dict[str, str]:
    """A clean environment: the user's, and what the machine needs to reach its registries."""
    kept = {key: os.environ[key] for key in SURROUNDINGS if key in os.environ}
    return {**kept, "HOME": str(home), "USER": name, "LOGNAME": name, "LC_ALL": "C.UTF-8"}


@pytest.fixture(scope="session")
def rootfs() -> Path:
    """A minimal Debian system, made once and kept for later runs; not to be changed."""
    if os.geteuid() != 0:
        pytest.skip("debootstrap takes root")
    folder = cache_folder() / f"rootfs-{RELEASE}"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            command = ["debootstrap", "--variant=minbase", RELEASE, str(partial)]
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            assert made.returncode == 0, made.stdout + made.stderr
            partial.rename(folder)
    return folder


@pytest.fixture
def root(request: pytest.FixtureRequest) -> Iterator[Person]:
    """The superuser, with a home of his own."""
    if os.geteuid() != 0:
        pytest.skip("takes root")
    yield from at_home(
        Person("root", new_folder(), ROOT), expected_log(request), whole=stays_whole(request)
    )


@pytest.fixture(scope="session")
def user_checkout() -> Path:
    """A copy of the checkout that belongs to root and that every user can read."""
    checkout = cache_folder() / f"checkout-{zlib.crc32(os.fsencode(ROOT)):08x}"
    checkout.mkdir(exist_ok=True)
    parts = [str(ROOT / part) for part in SHARED_PARTS if (ROOT / part).exists()]
    excluded = ["--exclude=__pycache__", "--exclude=.venv"]
    subprocess.run(["rsync", "-a", "--delete", *excluded, *parts, str(checkout)], check=True)
    return checkout


@pytest.fixture
def user(request: pytest.FixtureRequest, user_checkout: Path) -> Iterator[Person]:
    """An ordinary user: a throw-away one when the tests run as root, else whoever runs them."""
    yield from at_home(somebody(user_checkout), expected_log(request), whole=stays_whole(request))


def somebody(user_checkout: Path) -> Person:
    """That ordinary user, with a new home."""
    home = new_folder()
    if os.geteuid() != 0:
        return Person(pwd.getpwuid(os.geteuid()).pw_name, home, ROOT)
    entry = ordinary_user()
    caches = cache_folder() / "user"
    for folder in (home, caches):
        folder.mkdir(exist_ok=True)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    become = ("setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups")
    # Root's PATH may lead through folders that are closed to others.
    own = {"XDG_CACHE_HOME": str(caches), "PATH": os.defpath}
    return Person(USER, home, user_checkout, become, own)


def ordinary_user() -> pwd.struct_passwd:
    """A user for tests, made when missing; a group of that name may be there already.

    Like any user that adduser makes, he has numbers for containers of his own.
    """
    if not any(entry.pw_name == USER for entry in pwd.getpwall()):
        has_group = any(entry.gr_name == USER for entry in grp.getgrall())
        group = ["--gid", USER] if has_group else ["--user-group"]
        subprocess.run(["useradd", "--system", "--no-create-home", *group, USER], check=True)
    if not any(
        line.startswith(f"{USER}:") for line in Path("/etc/subuid").read_text().splitlines()
    ):
        ranges = ["--add-subuids", SUBORDINATE, "--add-subgids", SUBORDINATE]
        subprocess.run(["usermod", *ranges, USER], check=True)
    return pwd.getpwnam(USER)


@pytest.fixture(params=["root", "user"])
def anyone(request: pytest.FixtureRequest) -> Person:
    """Root, then an ordinary user."""
    person = request.getfixturevalue(request.param)
    assert isinstance(person, Person)
    return person


def expected_log(request: pytest.FixtureRequest) -> re.Pattern[str]:
    """The warnings that the test says it will cause."""
    patterns = [mark.args[0] for mark in request.node.iter_markers("expected_log")]
    return re.compile("|".join(patterns) or r"(?!)")


def stays_whole(request: pytest.FixtureRequest) -> bool:
    """Whether the test leaves a store without damage."""
    return request.node.get_closest_marker("damaged") is None


def at_home(person: Person, expected: re.Pattern[str], *, whole: bool = True) -> Iterator[Person]:
    """Lends the person to a test; afterwards its store must be `whole` and the log calm, and
    its mounts are ended."""
    full = {**surroundings(person.home, person.name), **person.environment}
    person = Person(person.name, person.home, person.checkout, person.prefix, full)
    try:
        yield person
        if whole and (person.store / "format").exists():
            person.verify()
        alarms = [line for log in person.logs() for line in alarming(log, expected)]
        detach_below(person.home)
        assert not alarms, "The daemon's log has\n" + "\n".join(alarms[:40])
    finally:
        remove_folder(person.home)


def alarming(log: Path, expected: re.Pattern[str]) -> list[str]:
    """The unexpected warnings and errors of a log, each with the lines that go on with it."""
    found: list[str] = []
    within = False
    for line in log.read_text(errors="replace").splitlines():
        alarm = any(alarm in line for alarm in ALARMS) and not expected.search(line)
        within = alarm or (within and not DATED.match(line))
        found += [line] * within
    return found
