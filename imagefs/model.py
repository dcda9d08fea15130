"""Value types shared by all layers: identifiers, attributes, limits.

Names and paths inside trees are bytes; times are integer nanoseconds since the epoch
(negative before 1970); sizes are bytes. Values are validated where they enter and
trusted afterwards.
"""

from __future__ import annotations

from typing import NewType

import msgspec

ObjectId = NewType("ObjectId", bytes)
"""BLAKE3-256 of an object's plain bytes, 32 bytes long."""

Ino = NewType("Ino", int)
"""Inode number inside one tree: 1 is the root, 2 to the base's total are positions in its
canonical walk, larger ones were created in the overlay. Below 2**32."""

TreeNumber = NewType("TreeNumber", int)
"""Number of an image or instance in the catalog, 1 to 2**31 - 1, never used twice."""

NodeId = NewType("NodeId", int)
"""What the kernel knows: TreeNumber << 32 | Ino. Tree number 0 is the namespace above the
trees (the mount's root, images/, instances/ and so on)."""

OBJECT_ID_SIZE = 32
CHUNK_SIZE = 128 * 1024
"""File content is cut at multiples of this many bytes. Part of the format: it decides digests."""

SECOND = 1_000_000_000
"""In ns, as all times are."""

ROOT_INO = Ino(1)
MAX_NAME = 255
MAX_SYMLINK = 4095
MAX_FILE_SIZE = 2**63 - 1
MAX_XATTR_VALUE = 65536
MAX_XATTR_LIST = 65536
MAX_LINKS = 65000

_MIN_TIME, _MAX_TIME = -(2**63), 2**63 - 1


def bounded_time(ns: int) -> int:
    """The nearest time that 64 bits of ns hold: what lies outside 1677 to 2262 is moved there,
    as file systems do with times that they cannot store."""
    return min(max(ns, _MIN_TIME), _MAX_TIME)


class Attributes(msgspec.Struct, frozen=True, gc=False):
    """What stat(2) answers for one inode, times in ns, `blocks` in units of 512 bytes."""

    ino: Ino
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int


class AttributeChange(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The fields setattr is to change; None leaves a field as it is. `mode` holds permission
    bits only (07777)."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime: int | None = None
    mtime: int | None = None
    ctime: int | None = None


class DirectoryItem(msgspec.Struct, frozen=True, gc=False):
    """One name of a listing; `attributes.ino` is the inode it stands for."""

    name: bytes
    attributes: Attributes
