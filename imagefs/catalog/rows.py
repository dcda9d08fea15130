"""The rows of the catalog as values."""

from __future__ import annotations

import enum

import msgspec

from imagefs.model import ObjectId, TreeNumber


class Kind(enum.StrEnum):
    """What a tree is to its user."""

    IMAGE = "image"
    INSTANCE = "instance"


class State(enum.StrEnum):
    """Whether a tree may change. Instances and drafts change, sealed images never do."""

    DRAFT = "draft"
    SEALED = "sealed"
    LIVE = "live"


class TreeRow(msgspec.Struct, frozen=True, array_like=True):
    """One image or instance.

    `place` is the region of an image, empty for the store's own, and the reference of its image
    for an instance. `origin` is the region that has what an instance's image needs and the store
    may lack; empty: the store has everything. `manifest`
    is the tree of a sealed image, and what lies below the overlay of a draft or an instance
    (None: an empty tree). `parent` says where it came from, for people. `used` images were
    cloned, shared, copied or exported and can't become drafts again. `entries`, `bytes` and
    `stored` (what sealing it added to the store) are known for sealed images. Times are ns.
    """

    number: TreeNumber
    kind: Kind
    account: str
    place: str
    name: str
    state: State
    manifest: ObjectId | None
    parent: str | None
    created: int
    used: bool
    entries: int | None
    bytes: int | None
    stored: int | None
    deleted: int | None
    origin: str = ""

    @property
    def region(self) -> str:
        """The region that has what this tree is made of; empty: the store itself."""
        return self.place if self.kind is Kind.IMAGE else self.origin

    @property
    def reference(self) -> str:
        """The reference under which its owner knows it, in the region it is in."""
        return self.name if self.kind is Kind.IMAGE else f"{self.place}/{self.name}"

    def known_as(self, viewer: str) -> str:
        """The reference under which an account knows it: NAME@OWNER for another's image."""
        return self.reference if self.account == viewer else f"{self.name}@{self.account}"


class RegionRow(msgspec.Struct, frozen=True, array_like=True):
    """One region that the store knows. `refreshed` is when (ns) its images were listed last,
    `failure` why that did not work since."""

    name: str
    url: str
    created: int
    refreshed: int | None
    failure: str | None


class Published(msgspec.Struct, frozen=True):
    """An image as a region lists it; `created` in ns."""

    account: str
    name: str
    manifest: ObjectId
    entries: int
    bytes: int
    created: int
    parent: str | None


class Sealed(msgspec.Struct, frozen=True):
    """What sealing a tree found out: its manifest and the figures that `show` prints."""

    manifest: ObjectId
    entries: int
    bytes: int
    stored: int
