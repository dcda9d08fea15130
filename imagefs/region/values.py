"""What regions answer: value types of the face that the vfs sees.

Names in them come from a server: whoever uses them checks them with the catalog's grammar.
Times are ns since 1970, sizes bytes.
"""

from __future__ import annotations

import msgspec

from imagefs.format.region import Descriptor
from imagefs.region.layout import Share


class Image(msgspec.Struct, frozen=True):
    """An image of a region. `modified` is when it was published (when a deleted one was deleted)
    by the server's clock; `deleted` is when it was deleted by the clock of who did it, or None."""

    account: str
    name: str
    descriptor: Descriptor
    modified: int
    deleted: int | None = None


class Listing(msgspec.Struct, frozen=True):
    """What an account sees of a region: its images, those of others that are shared with it or
    with everybody, those of account `public`; and `shares`, with whom its own are shared."""

    images: list[Image]
    shares: list[Share]


class Plan(msgspec.Struct, frozen=True):
    """What a region lacks of a tree: how many objects, and about how many bytes would travel."""

    objects: int
    bytes: int


class GcReport(msgspec.Struct, frozen=True):
    """What a gc of a region removed, or would remove: `packs` and the `bytes` they had, `images`
    that were deleted longer ago than the retention. `waiting` packs are needed by nothing, but
    copies that are under way may count on them: a later gc takes them."""

    packs: int
    bytes: int
    images: int
    waiting: int = 0
