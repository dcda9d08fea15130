"""ACLs: the values the kernel passes, and what chmod and inheritance make of them."""

import struct

import pytest

from imagefs.errors import InvalidArgument
from imagefs.vfs import acl

NONE = 0xFFFFFFFF
NAMED = [(1, 7, NONE), (2, 6, 1000), (4, 5, NONE), (16, 7, NONE), (32, 1, NONE)]
BASIC = [(1, 6, NONE), (4, 4, NONE), (32, 0, NONE)]


def test_round_trip() -> None:
    value = acl.build(NAMED)
    assert value[:4] == struct.pack("<I", 2)
    assert len(value) == 4 + 8 * len(NAMED)
    assert acl.parse(value) == NAMED


@pytest.mark.parametrize("value", [b"", b"\2\0\0\0abc", b"\1\0\0\0" + bytes(8)])
def test_what_is_not_an_acl_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidArgument):
        acl.parse(value)


def test_mode_takes_the_mask_for_the_group() -> None:
    assert acl.mode_of(NAMED, 0o100600) == 0o100771
    assert acl.mode_of(BASIC, 0o4000) == 0o4640
    with pytest.raises(InvalidArgument):
        acl.mode_of([(1, 7, NONE)], 0)


def test_chmod_changes_mask_or_group() -> None:
    assert acl.parse(acl.with_mode(acl.build(NAMED), 0o640)) == [
        (1, 6, NONE), (2, 6, 1000), (4, 5, NONE), (16, 4, NONE), (32, 0, NONE),
    ]  # fmt: skip
    assert acl.parse(acl.with_mode(acl.build(BASIC), 0o751)) == [
        (1, 7, NONE),
        (4, 5, NONE),
        (32, 1, NONE),
    ]


def test_inheritance() -> None:
    mode, access = acl.inherited(acl.build(NAMED), 0o100644)
    assert mode == 0o100640
    assert access is not None
    assert acl.parse(access) == [
        (1, 6, NONE),
        (2, 6, 1000),
        (4, 5, NONE),
        (16, 4, NONE),
        (32, 0, NONE),
    ]
    assert acl.inherited(acl.build(BASIC), 0o100666) == (0o100640, None)
