"""dpkg and apt in the system of an instance: install, upgrade, remove, purge, and being killed."""

import os
import random
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance.fixtures import RELEASE
from tests.acceptance.manifest import Manifest, assert_equal
from tests.acceptance.person import Person
from tests.acceptance.test_programs import let_reach_registries
from tests.programs.ending import unmounted_in_order
from tests.programs.packages import Repository
from tests.seed import SEED

pytestmark = [pytest.mark.mount, pytest.mark.root]

# Here two runs of the same commands differ anywhere.
CHANGING = re.compile(rb"\./(proc|run|tmp|var/log|var/cache|var/lib/apt|var/lib/dpkg/lock.*)(/|$)")
MTIME = re.compile(r" mtime=\d+")
KILLS = 4
QUIET = "export DEBIAN_FRONTEND=noninteractive; apt='apt-get -q -y -o Dpkg::Use-Pty=0'"
INSTALL = """
    $apt update
    $apt install plugin
    dpkg --verify
    echo 'mine = yes' >>/etc/ledger.conf
    dpkg --verify
    cat /usr/share/ledger/5 /usr/share/ledger/5.real | sha256sum; dpkg-divert --list '*ledger*'
"""
UPGRADE = """
    $apt update
    $apt -o Dpkg::Options::=--force-confold upgrade
    $apt --reinstall install plugin
    grep . /etc/ledger.conf* /etc/ledger.d/* /var/lib/ledger/history /var/lib/ledger/plugins
    dpkg --verify; dpkg --audit
    cat /usr/share/ledger/5 /usr/share/ledger/5.real | sha256sum; dpkg-divert --list '*ledger*'
"""
REMOVE = """
    $apt remove plugin diverter
    cat /usr/share/ledger/5 | sha256sum; dpkg-divert --list '*ledger*'
    dpkg --verify; dpkg --audit
    $apt remove ledger
    find / -xdev -name '*ledger*' -not -path '/srv/*' -not -path '/var/lib/apt/*' | sort
    $apt purge ledger
    find / -xdev -name '*ledger*' -not -path '/srv/*' -not -path '/var/lib/apt/*' | sort
    dpkg --verify; dpkg --audit
"""


def in_system(root: Person, system: Path, script: str) -> list[str]:
    """Runs the script there; returns what it said."""
    shown = root.run("chroot", system, "bash", "-euo", "pipefail", "-c", f"{QUIET}\n{script}")
    return shown.stdout.splitlines()


def test_packages_come_change_and_go_as_elsewhere(
    root: Person, rootfs: Path, tmp_path: Path
) -> None:
    """The same commands in an instance and on the host's file system: the same is said, and the same
    is there after each. Of what was committed in between, `diff` tells what changed."""
    root.mount()
    root.imagefs("import", rootfs, "base")
    inside, outside = root.instances / "base/node", tmp_path / "outside"
    inside.mkdir()
    root.run("cp", "-a", rootfs, outside)
    repository = Repository(tmp_path / "repository")
    image, before = "base", root.manifest(inside)
    for number, script in enumerate((INSTALL, UPGRADE, REMOVE), 1):
        if number < 3:
            repository.publish(number)
        for system in (inside, outside):
            repository.put_into(system)
        assert said(root, inside, script) == said(root, outside, script)
        after = root.manifest(inside)
        assert_equal(comparable(root.manifest(outside)), comparable(after))
        root.imagefs("commit", "base/node", f"step-{number}")
        told = root.imagefs_json("diff", image, f"step-{number}")
        print(f"step {number}: {len(told)} changes")
        assert {(change["path"], change["kind"]) for change in told} == changes(before, after)
        image, before = f"step-{number}", after
    unmounted_in_order(root)
    root.mount()
    assert_equal(before, root.manifest(inside))


def comparable(system: Manifest) -> Manifest:
    """Without what is different each time; only packaged files keep their times."""
    lines = {
        path: line if b"share/ledger/" in path and " file " in line else MTIME.sub("", line)
        for path, line in system.lines.items()
        if not CHANGING.match(path)
    }
    return Manifest(lines, system.sparse)


def changes(before: Manifest, after: Manifest) -> set[tuple[str, str]]:
    paths = before.lines.keys() | after.lines.keys()
    return {
        (os.fsdecode(path).removeprefix(".") or "/", kind)
        for path in paths
        if (kind := change(before.lines.get(path), after.lines.get(path)))
    }


def change(before: str | None, after: str | None) -> str | None:
    if before == after:
        return None
    return "added" if before is None else "removed" if after is None else "changed"


def said(root: Person, system: Path, script: str) -> list[str]:
    """Without how fast it was."""
    return [
        line
        for line in in_system(root, system, script)
        if not line.startswith(("Fetched", "Get:", "Ign:", "Hit:"))
    ]


PACKAGES = ("ledger", "diverter", "plugin")
STATES = "dpkg-query -W -f '${Package} ${db:Status-Status}\\n' " + " ".join(PACKAGES)


def debs(version: int) -> list[str]:
    return [f"/srv/repository/{name}_{version}.deb" for name in PACKAGES]


def installing(version: int) -> str:
    return f"dpkg --force-confold --force-downgrade --install {' '.join(debs(version))}"


def test_a_killed_upgrade_can_be_finished(root: Person, rootfs: Path, tmp_path: Path) -> None:
    """dpkg is killed, or the daemon below it, at random moments; what dpkg needs to go on is there,
    and in the end every file is as if nothing had happened."""
    print(f"IMAGEFS_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    root.mount("--seal-after", "0")
    root.imagefs("import", rootfs, "base")
    inside = root.instances / "base/node"
    inside.mkdir()
    repository = Repository(tmp_path / "repository")
    repository.publish(1)
    repository.publish(2)
    repository.put_into(inside)
    (root.instances / "base/calm").mkdir()
    expected = {}
    window = 0.0
    for version in (1, 2):
        calm = root.instances / "base/calm"
        repository.put_into(calm)
        start = time.monotonic()
        in_system(root, calm, installing(version))
        window = time.monotonic() - start
        expected[version] = comparable(root.manifest(calm / "usr/share"))
    in_system(root, inside, installing(1))
    under_way = half = 0
    for number in range(KILLS):
        version = 2 - number % 2
        process = subprocess.Popen(
            ["chroot", str(inside), *installing(version).split()],
            env=dict(root.environment),
            cwd=root.home,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(rng.uniform(0.1, 0.8) * window)
        under_way += process.poll() is None
        if number % 2:
            root.kill_daemon()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if number % 2:
            root.mount("--seal-after", "0")
        states = in_system(root, inside, STATES)
        half += any(not state.endswith(" installed") for state in states)
        in_system(root, inside, f"dpkg --configure -a || true; {installing(version)}")
        assert in_system(root, inside, "dpkg --audit; dpkg --verify") == []
        assert_equal(expected[version], comparable(root.manifest(inside / "usr/share")))
    print(f"{under_way} of {KILLS} were killed at work, {half} left packages half installed")
    assert under_way > 0, "nothing was in flight: this proved nothing"
    assert half > 0, "no package was left half installed: this proved nothing"
    unmounted_in_order(root)


@pytest.mark.network
def test_the_archive_upgrades_a_system(root: Person, rootfs: Path) -> None:
    """A real system gets what the archive has changed since its release, and a program more; what is
    there afterwards is what the packages say, and `diff` tells of nothing that is not theirs."""
    root.mount()
    root.imagefs("import", rootfs, "base")
    system = root.instances / "base/node"
    system.mkdir()
    let_reach_registries(system)
    sources = system / "etc/apt/sources.list"
    release = sources.read_text()
    archive = release.split()[1]
    suites = {"-updates": archive, "-security": f"{archive}-security"}
    sources.write_text(
        release + "".join(f"deb {place} {RELEASE}{name} main\n" for name, place in suites.items())
    )
    in_system(root, system, "$apt update")
    root.imagefs("commit", "base/node", "before")
    shown = in_system(root, system, "$apt upgrade; $apt install bc; echo '6 * 7' | bc")
    assert shown[-1] == "42"
    print([line for line in shown if " newly installed" in line])
    assert in_system(root, system, "dpkg --audit; dpkg --verify") == []
    left = in_system(root, system, "apt-get --simulate upgrade | grep ' newly installed'")
    assert left[0].startswith("0 upgraded")
    known = in_system(root, system, "cat /var/lib/dpkg/info/*.list; dpkg-query --listfiles bc")
    packaged = {re.sub("^/(bin|sbin|lib|lib64)/", r"usr/\1/", path).lstrip("/") for path in known}

    root.imagefs("commit", "base/node", "after")
    told = root.imagefs_json("diff", "before", "after")
    added = {change["path"].lstrip("/") for change in told if change["kind"] == "added"}
    assert {"usr/bin/bc", "usr/share/man/man1/bc.1.gz", "var/lib/dpkg/info/bc.list"} <= added
    programs = {path for path in added if re.match("usr/(bin|sbin|lib|include)/", path)}
    assert programs <= packaged, programs - packaged
    print(f"{len(told)} changes, {len(added)} of them new")
    unmounted_in_order(root)
