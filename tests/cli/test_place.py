"""Whose account it is, when nobody says."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from imagefs.cli.place import _check_enterable, _outside, login_name
from imagefs.errors import AccessDenied

SAME = "         0          0 4294967295\n"
ROOTLESS = "         0       1000          1\n         1     100000      65536\n"


@pytest.mark.parametrize(
    ("uid", "uid_map", "outside"),
    [
        (0, SAME, 0),
        (1000, SAME, 1000),
        (0, ROOTLESS, 1000),
        (1, ROOTLESS, 100_000),
        (33, ROOTLESS, 100_032),
        (65_536, ROOTLESS, 165_535),
        (65_537, ROOTLESS, 65_537),
        (7, "", 7),
    ],
)
def test_a_user_outside_of_a_namespace(uid: int, uid_map: str, outside: int) -> None:
    assert _outside(uid, uid_map) == outside


def test_the_account_is_the_login_name() -> None:
    assert login_name() == pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.root
def test_a_store_that_somebody_else_keeps_to_himself_is_refused(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir(0o700)
    _check_enterable(store)
    os.seteuid(65534)
    try:
        with pytest.raises(AccessDenied, match="belongs to somebody else"):
            _check_enterable(store)
    finally:
        os.seteuid(0)
