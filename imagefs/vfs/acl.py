"""POSIX ACLs as the kernel passes them, in the xattrs system.posix_acl_*.

Format (linux/posix_acl_xattr.h): a 32-bit version 2, then entries of tag (16 bits),
permissions (16 bits) and id (32 bits), all little endian. The kernel checks ACLs; storing
one also sets the mode, changing the mode also changes the ACL, and what is made in a
directory with a default ACL inherits it (acl(5)).
"""

from __future__ import annotations

import struct

from imagefs.errors import InvalidArgument

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"
NAMES = frozenset({ACCESS, DEFAULT})

_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_BASIC = {_USER_OBJ, _GROUP_OBJ, _OTHER}

AclEntry = tuple[int, int, int]
"""Tag, permissions (rwx), id."""


def parse(value: bytes) -> list[AclEntry]:
    """The entries of an ACL; raises InvalidArgument if it is not one."""
    if len(value) < _HEADER.size or (len(value) - _HEADER.size) % _ENTRY.size:
        raise InvalidArgument(f"ACL of {len(value)} bytes is not well-formed")
    (version,) = _HEADER.unpack_from(value)
    if version != _VERSION:
        raise InvalidArgument(f"ACL version {version} is not supported")
    return [(tag, bits & 7, ident) for tag, bits, ident in _ENTRY.iter_unpack(value[4:])]


def build(entries: list[AclEntry]) -> bytes:
    """The xattr value of an ACL."""
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)


def mode_of(entries: list[AclEntry], mode: int) -> int:
    """`mode` with the permission bits that an access ACL stands for."""
    bits = {tag: permissions for tag, permissions, _ in entries if tag not in (_USER, _GROUP)}
    if not bits.keys() >= _BASIC:
        raise InvalidArgument("ACL lacks the entry of the owner, the group or the others")
    group = bits.get(_MASK, bits[_GROUP_OBJ])
    return mode & ~0o777 | bits[_USER_OBJ] << 6 | group << 3 | bits[_OTHER]


def is_basic(entries: list[AclEntry]) -> bool:
    """Whether the mode alone says the same."""
    return {tag for tag, _, _ in entries} == _BASIC


def with_mode(value: bytes, mode: int) -> bytes:
    """An access ACL after chmod to `mode`."""
    entries = parse(value)
    group_tag = _MASK if any(tag == _MASK for tag, _, _ in entries) else _GROUP_OBJ
    new = {_USER_OBJ: mode >> 6 & 7, group_tag: mode >> 3 & 7, _OTHER: mode & 7}
    return build([(tag, new.get(tag, bits), ident) for tag, bits, ident in entries])


def inherited(default: bytes, mode: int) -> tuple[int, bytes | None]:
    """The mode and access ACL of something made with `mode` below a default ACL.

    The ACL limits the mode and the mode the ACL; None where the mode says it all.
    """
    entries = parse(default)
    has_mask = any(tag == _MASK for tag, _, _ in entries)
    limits = {_USER_OBJ: mode >> 6 & 7, _MASK if has_mask else _GROUP_OBJ: mode >> 3 & 7}
    limits[_OTHER] = mode & 7
    result = [(tag, bits & limits.get(tag, 7), ident) for tag, bits, ident in entries]
    return mode_of(result, mode), None if is_basic(result) else build(result)
