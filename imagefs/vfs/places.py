"""The directories above the trees and what each allows: the contract's table as data.

A place is a directory that no tree holds. Their inode numbers live in tree 0: the fixed ones
below, and numbers that the catalog hands out once and for ever for `instances/IMAGE`, for
aliases, and for what lies in `shared/from/` and `shared/to/`.
"""

from __future__ import annotations

import enum

import msgspec

from imagefs.model import Ino


class PlaceKind(enum.Enum):
    """The kinds of directories above the trees, and the symlinks among them."""

    TOP = "the top"
    IMAGES = "images/"
    ALIAS = "images/ALIAS"
    SHARED = "shared/"
    SHARED_FROM = "shared/from/"
    SHARED_OWNER = "shared/from/OWNER/"
    SHARED_TO = "shared/to/"
    SHARED_GRANTEE = "shared/to/GRANTEE/"
    SHARED_IMAGE = "shared/to/GRANTEE/NAME"
    REGIONS = "regions/"
    REGION = "regions/REGION/"
    HOME = "regions/HOME"
    INSTANCES = "instances/"
    CLONES = "instances/IMAGE/"


class Operation(enum.Enum):
    """What a file operation asks of a place."""

    MKDIR = "mkdir"
    RMDIR = "rmdir"
    RENAME = "rename"
    SYMLINK = "symlink"
    UNLINK = "unlink"


class Place(msgspec.Struct, frozen=True):
    """One place; `name` is the image reference of CLONES, the name of an ALIAS, what users call
    a REGION or HOME, the account of SHARED_OWNER and SHARED_GRANTEE, and GRANTEE/NAME of a
    SHARED_IMAGE."""

    kind: PlaceKind
    ino: Ino
    name: str = ""


TOP = Place(PlaceKind.TOP, Ino(1))
IMAGES = Place(PlaceKind.IMAGES, Ino(2))
SHARED = Place(PlaceKind.SHARED, Ino(3))
REGIONS = Place(PlaceKind.REGIONS, Ino(4))
INSTANCES = Place(PlaceKind.INSTANCES, Ino(5))
SHARED_FROM = Place(PlaceKind.SHARED_FROM, Ino(6))
SHARED_TO = Place(PlaceKind.SHARED_TO, Ino(7))
FIRST_DYNAMIC = 16

FIXED: dict[Place, dict[bytes, Place]] = {
    TOP: {b"images": IMAGES, b"shared": SHARED, b"regions": REGIONS, b"instances": INSTANCES},
    SHARED: {b"from": SHARED_FROM, b"to": SHARED_TO},
}
"""The places that are always there, by directory and name."""

LINKS = frozenset({PlaceKind.ALIAS, PlaceKind.SHARED_IMAGE, PlaceKind.HOME})
"""The places that are symlinks. The home region is one to images/: its images cannot be in two
directories, because the kernel knows one for each."""

PARENTS = {child: parent for parent, children in FIXED.items() for child in children.values()}

ABOVE = {
    PlaceKind.CLONES: INSTANCES,
    PlaceKind.ALIAS: IMAGES,
    PlaceKind.SHARED_OWNER: SHARED_FROM,
    PlaceKind.SHARED_GRANTEE: SHARED_TO,
    PlaceKind.REGION: REGIONS,
    PlaceKind.HOME: REGIONS,
}
"""Where the places lie that come and go."""

ALLOWED: dict[PlaceKind, frozenset[Operation]] = {
    PlaceKind.IMAGES: frozenset(
        {
            Operation.MKDIR,
            Operation.RMDIR,
            Operation.RENAME,
            Operation.SYMLINK,
            Operation.UNLINK,
        }
    ),
    PlaceKind.REGION: frozenset({Operation.MKDIR, Operation.RMDIR, Operation.RENAME}),
    PlaceKind.CLONES: frozenset({Operation.MKDIR, Operation.RMDIR, Operation.RENAME}),
    PlaceKind.SHARED_TO: frozenset({Operation.MKDIR, Operation.RMDIR}),
    PlaceKind.SHARED_GRANTEE: frozenset({Operation.SYMLINK, Operation.UNLINK}),
}
"""What may be done to the names in a place; anything not listed is refused with EPERM."""


def link_target(name: str) -> bytes:
    """Where the symlink in shared/to/GRANTEE that shares an image leads."""
    return f"../../../images/{name}".encode()


def sibling(target: bytes) -> str | None:
    """The image name that a symlink target beside it means; None where it can mean none."""
    try:
        return target.decode().rstrip("/").removeprefix("./")
    except UnicodeDecodeError:
        return None
