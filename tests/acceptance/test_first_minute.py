"""A stranger's first minute: the README's commands as printed, and what set-up does."""

import os
import re
from pathlib import Path

import pytest

from tests.acceptance.person import Person
from tests.acceptance.test_programs import let_reach_registries

ROOT = Path(__file__).resolve().parent.parent.parent
BLOCK = re.compile(r"<!-- first minute: begin -->\n(.*?)<!-- first minute: end -->", re.DOTALL)


def first_minute() -> list[str]:
    """The commands of the README, without their comments."""
    found = BLOCK.search((ROOT / "README.md").read_text())
    assert found, "the README marks its first minute"
    lines = (line.partition("#")[0].strip() for line in found[1].splitlines())
    return [line for line in lines if line]


def type_in(person: Person, lines: list[str]) -> str:
    """Runs the lines in one shell that knows the command as `imagefs`."""
    script = f"PATH={person.checkout}/tools:$PATH\n" + "\n".join(lines)
    return person.shell(script, timeout=900).stdout


@pytest.mark.root
@pytest.mark.network
@pytest.mark.mount
def test_the_first_minute_works_as_printed(root: Person, rootfs: Path) -> None:
    root.run("cp", "-a", rootfs, root.home / "rootfs")
    let_reach_registries(root.home / "rootfs")
    lines = first_minute()
    shown = type_in(root, lines)
    assert "/nginx" in shown
    assert not os.path.ismount(root.cloud)
    root.mount()
    assert {"web", "web-v2"} <= set(os.listdir(root.images))
    assert len(os.listdir(root.instances / "web")) == 99
    assert (root.images / "web-v2/usr/sbin/nginx").is_file()
    assert not (root.images / "web/usr/sbin/nginx").exists()


@pytest.mark.mount
def test_an_ordinary_user_has_the_same_first_minute(user: Person) -> None:
    """With a tree of the user's own; what takes root is done by hand instead."""
    user.shell("mkdir -p rootfs/etc; echo hello >rootfs/etc/motd; ln -s etc/motd rootfs/motd")
    by_hand = "echo changed >~/cloud/instances/web/node-001/etc/motd"
    lines = [by_hand if line.startswith("chroot ") else line for line in first_minute()]
    shown = type_in(user, lines)
    assert "etc/motd" in shown
    user.mount()
    assert user.run("cat", user.images / "web-v2/etc/motd").stdout == "changed\n"
    assert user.run("cat", user.images / "web/etc/motd").stdout == "hello\n"


@pytest.mark.root
def test_a_second_run_downloads_nothing(root: Person) -> None:
    """Set up once, the command needs no network at all."""
    root.imagefs("--version")
    shown = root.run("unshare", "-n", root.checkout / "tools/imagefs", "--version")
    assert "imagefs" in shown.stdout
    assert shown.stderr == ""


@pytest.mark.root
def test_set_up_starts_no_program_when_all_is_there(root: Person) -> None:
    """Its whole cost is a shell: no interpreter and no package manager before the command itself."""
    trace = root.home / "trace"
    follow = ("strace", "-f", "-e", "trace=execve", "-o", trace)
    root.run(*follow, root.checkout / "tools/imagefs", "--version")
    started = [line for line in trace.read_text().splitlines() if " = 0" in line]
    shown = [re.findall(r'execve\("([^"]*)"', line) for line in started]
    programs = [path for line in shown for path in line]
    assert not [path for path in programs if Path(path).name in {"pip", "apt-get", "dpkg-query"}]
    assert len([path for path in programs if "python" in path or path.endswith("/imagefs")]) == 2


@pytest.mark.root
def test_who_may_not_install_is_told_the_one_command(root: Person, user: Person) -> None:
    """On a machine without the system packages, an ordinary user without sudo."""
    empty = user.home / "empty"
    script = f"""
        source {user.checkout}/tools/setup
        setup_missing_packages() {{ printf 'fuse3\\nlibfuse3-dev\\n'; }}
        sudo() {{ return 1; }}
        XDG_CACHE_HOME={empty} setup run
    """
    answer = user.shell(script, check=False)
    assert answer.returncode == 1
    assert "apt-get install -y --no-install-recommends fuse3 libfuse3-dev" in answer.stderr
    assert not empty.exists() or not list(empty.rglob("bin"))
