"""Which changes take set-id bits away, by whom: what the kernel leaves to the file system."""

import os
import stat

import pytest

from imagefs.model import AttributeChange
from imagefs.vfs import Caller, Credentials
from tests.vfs.conftest import ANN, View

OWNER, GROUP, OTHERS = 1001, 1001, 1002

ROOT_WITHOUT = Caller(0, 0, 1, 0o022, lambda _: Credentials())
OUTSIDER = Caller(OWNER, OTHERS, 1, 0o022, lambda _: Credentials())
MEMBER = Caller(OWNER, OTHERS, 1, 0o022, lambda _: Credentials(frozenset({GROUP})))
NOTHING = AttributeChange()


@pytest.fixture
def program(base: View) -> View:
    """An instance with a file `program` of OWNER and GROUP."""
    base.mkdir("instances/base/n")
    base.run(base.vfs.release, base.create("instances/base/n/program"))
    change = AttributeChange(uid=OWNER, gid=GROUP)
    base.run(base.vfs.setattr, base.node("instances/base/n/program"), change, None, ANN)
    return base


def after(view: View, mode: int, caller: Caller, change: AttributeChange) -> int:
    node = view.node("instances/base/n/program")
    view.run(view.vfs.setattr, node, AttributeChange(mode=mode), None, ANN)
    view.run(view.vfs.setattr, node, change, None, caller)
    return stat.S_IMODE(view.run(view.vfs.getattr, node).attributes.mode)


@pytest.mark.parametrize("change", [NOTHING, AttributeChange(size=1)], ids=["nothing", "size"])
def test_who_changes_content(program: View, change: AttributeChange) -> None:
    for caller in (OUTSIDER, ROOT_WITHOUT):
        assert after(program, 0o6755, caller, change) == 0o755
        assert after(program, 0o2745, caller, change) == 0o745
    assert after(program, 0o6755, MEMBER, change) == 0o755
    assert after(program, 0o6745, MEMBER, change) == 0o2745
    assert after(program, 0o6745, ANN, change) == 0o6745
    assert after(program, 0o1755, OUTSIDER, change) == 0o1755


def test_who_gives_a_file_away(program: View) -> None:
    change = AttributeChange(gid=OTHERS)
    assert after(program, 0o6755, ANN, change) == 0o755
    assert after(program, 0o6745, ANN, change) == 0o2745


def test_who_sets_set_group_id(program: View) -> None:
    change = AttributeChange(mode=0o2755)
    assert after(program, 0o755, OUTSIDER, change) == 0o755
    assert after(program, 0o755, MEMBER, change) == 0o2755
    assert after(program, 0o755, ANN, change) == 0o2755


def test_times_take_nothing(program: View) -> None:
    assert after(program, 0o6755, OUTSIDER, AttributeChange(mtime=1)) == 0o6755


@pytest.mark.parametrize(
    ("caller", "left"), [(OUTSIDER, 0o745), (MEMBER, 0o2745), (ROOT_WITHOUT, 0o745), (ANN, 0o6745)]
)
def test_who_cuts_by_opening(program: View, caller: Caller, left: int) -> None:
    node = program.node("instances/base/n/program")
    program.run(program.vfs.setattr, node, AttributeChange(mode=0o6745), None, ANN)
    program.run(program.vfs.setxattr, node, b"security.capability", b"x", ANN)
    handle = program.run(program.vfs.open, node, os.O_WRONLY | os.O_TRUNC, caller)
    assert stat.S_IMODE(program.run(program.vfs.getattr, node).attributes.mode) == left
    assert b"security.capability" not in program.run(program.vfs.listxattr, node, ANN)
    program.run(program.vfs.release, handle)


def test_the_umask_counts_where_no_default_acl_does(program: View) -> None:
    folder = program.node("instances/base/n")
    entry = program.run(program.vfs.mkdir, folder, b"plain", 0o777, ANN)
    assert stat.S_IMODE(entry.attributes.mode) == 0o755
    basic = b"\2\0\0\0" + b"".join(bytes([tag, 0, 7, 0]) + b"\xff" * 4 for tag in (1, 4, 32))
    program.run(program.vfs.setxattr, folder, b"system.posix_acl_default", basic, ANN)
    entry = program.run(program.vfs.mkdir, folder, b"below", 0o777, ANN)
    assert stat.S_IMODE(entry.attributes.mode) == 0o777
