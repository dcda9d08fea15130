"""Three accounts on one store, mounted at once for three users who must not see each other's things."""

import errno
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.manifest import assert_equal
from tests.acceptance.person import Person, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.root]

OWNERS = {"alice": "daemon", "bob": "bin", "carl": "nobody"}
"""Accounts, and the users (every Debian has them) that own their mounts."""


class Account:
    """One account's mount, and its user at work in it."""

    def __init__(self, root: Person, name: str) -> None:
        self.root = root
        self.name = name
        self.cloud = root.home / name
        self.user = pwd.getpwnam(OWNERS[name])

    def mount(self) -> None:
        owner = ("--account", self.name, "--owner", self.user.pw_name)
        self.root.imagefs("mount", self.cloud, *owner)

    def unmount(self) -> None:
        self.root.imagefs("umount", self.cloud)

    def command(self, *command: str | Path) -> list[str]:
        ids = (f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", "--clear-groups")
        return ["setpriv", *ids, *map(str, command)]

    def run(self, script: str, *, fails: bool = False) -> str:
        """What a script of the user's prints, or its complaint where it is to fail."""
        result = subprocess.run(
            self.command("bash", "-euc", script), cwd=self.cloud.parent, text=True,
            capture_output=True, check=False, env={"PATH": os.defpath, "LC_ALL": "C"},
        )  # fmt: skip
        assert (result.returncode != 0) == fails, result.stdout + result.stderr
        return result.stderr if fails else result.stdout


@pytest.fixture
def accounts(root: Person) -> Iterator[tuple[Account, Account, Account]]:
    """alice, who has an image `web`, bob and carl."""
    alice, bob, carl = (Account(root, name) for name in OWNERS)
    for account in (alice, bob, carl):
        account.mount()
    alice.run(
        """
        mkdir alice/images/web; cd alice/images/web
        mkdir etc; echo secret >etc/secret; head -c 300000 /dev/urandom >big
        chmod 644 big; ln big link; ln -s big symlink; chmod a-w .
        """
    )
    yield alice, bob, carl
    for account in (alice, bob, carl):
        account.unmount()


Accounts = tuple[Account, Account, Account]


def test_an_image_goes_round(accounts: Accounts, root: Person) -> None:
    alice, bob, carl = accounts
    alice.run("mkdir alice/shared/to/bob; ln -s ../../../images/web alice/shared/to/bob/")
    shared = bob.cloud / "shared/from/alice/web"
    wait_until(lambda: bob.run("ls bob/shared/from") == "alice\n", "bob to see the image")
    assert_equal(root.manifest(alice.cloud / "images/web"), root.manifest(shared))
    assert bob.run("ls bob/instances") == "web@alice\n"
    bob.run("mkdir bob/instances/web@alice/n1")
    changed = bob.cloud / "instances/web@alice/n1/etc/secret"
    assert "denied" in bob.run(f"echo mine >{changed}", fails=True), "it is alice's user's file"
    changed.write_text("mine\n")
    # Moving a directory away takes the right to write to it, which is alice's user's, or root's.
    (bob.cloud / "instances/web@alice/n1").rename(bob.cloud / "images/own")
    assert bob.run("cat bob/images/own/etc/secret") == "mine\n"
    assert alice.run("cat alice/images/web/etc/secret") == "secret\n"
    assert "Device or resource busy" in alice.run("rmdir alice/images/web", fails=True)
    assert carl.run("ls carl/shared/from") == ""

    root.imagefs("share", "own", "public", "--account", "bob")
    wait_until(lambda: carl.run("ls carl/shared/from") == "bob\n", "carl to see what is public")
    assert carl.run("cat carl/shared/from/bob/own/etc/secret") == "mine\n"
    known = root.imagefs_json("ls", "shared", "--account", "carl")
    assert [image["reference"] for image in known["images"]] == ["own@bob"]

    alice.run("rm alice/shared/to/bob/web; rmdir alice/shared/to/bob; rmdir alice/images/web")
    wait_until(lambda: bob.run("ls bob/shared/from") == "", "the image to be gone for bob")
    assert carl.run("cat carl/shared/from/bob/own/etc/secret") == "mine\n"


def test_nobody_gets_at_what_is_not_theirs(accounts: Accounts, root: Person) -> None:
    alice, bob, _ = accounts
    daemons = {account.name: daemon_of(root, account) for account in accounts}
    for attempt in (
        "ls alice", "cat alice/images/web/big", "cat alice/images/web/etc/secret",
        f"ls {root.store}", f"cat {root.store}/catalog.db", f"ls {root.store}/packs",
        f"ls /proc/{daemons['alice']}/fd/", f"ls /proc/{daemons['bob']}/fd/",
        f"cat /proc/{daemons['bob']}/mem", "ls bob/instances/web@alice",
        "mkdir bob/instances/web@alice/n", "cat bob/shared/from/alice/web/big",
        "ln -s ../../../images/web bob/shared/to/carl",
        "ls bob/images/../../alice/images",
    ):  # fmt: skip
        bob.run(attempt, fails=True)
    assert alice.run("cat alice/images/web/etc/secret") == "secret\n"


def daemon_of(root: Person, account: Account) -> int:
    status = root.imagefs_json("status", "--account", account.name)
    pid: int = status["pid"]
    return pid


HOLDER = """
import errno, os, sys
os.chdir(sys.argv[1])
file = os.open("big", os.O_RDONLY)
folder = os.open("etc", os.O_RDONLY | os.O_DIRECTORY)
def attempt(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"
actions = [
    lambda: os.pread(file, 100, 0), lambda: os.pread(file, 300000, 0), lambda: os.listdir(folder),
    lambda: os.open("secret", os.O_RDONLY, dir_fd=folder), lambda: os.open("big", os.O_RDONLY),
    lambda: os.open(f"/proc/self/fd/{file}", os.O_RDONLY), lambda: os.open("etc/secret", os.O_RDONLY),
]
for line in sys.stdin:
    print(*[attempt(action) for action in actions], flush=True)
"""


@contextmanager
def holder(account: Account, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A program that holds things in a folder open, and tells on every line what it can read."""
    command = account.command(sys.executable, "-c", HOLDER, folder)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: "subprocess.Popen[str]") -> list[str]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().split()


def test_what_is_open_ends_with_the_sharing(accounts: Accounts, root: Person) -> None:
    _, bob, carl = accounts
    root.imagefs("share", "web", "carl", "--account", "alice")
    shared = carl.cloud / "shared/from/alice/web"
    wait_until(lambda: "alice" in carl.run("ls carl/shared/from"), "carl to see the image")
    carl.run("mkdir carl/instances/web@alice/n1")
    with holder(carl, shared) as process:
        assert told(process) == ["ok"] * 7
        root.imagefs("unshare", "web", "carl", "--account", "alice")
        gone = {errno.errorcode[errno.ESTALE], errno.errorcode[errno.ENOENT]}
        wait_until(lambda: set(told(process)) <= gone, "everything that is open to be refused")
    assert bob.run("ls bob/shared/from") == ""
    assert carl.run("cat carl/instances/web@alice/n1/etc/secret") == "secret\n"
