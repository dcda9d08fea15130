"""What an account shares with others, and what others share with it.

The methods are steps, like those of `Lifecycle`, which has one of these. Whom an image is
shared with is the owner's to change; who may see it asks the catalog whenever it looks, and
`withdrawn` finds what the account has in use and may see no longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from imagefs.catalog import PUBLIC, Catalog, TreeRow
from imagefs.catalog.reference import ImageReference, check_name
from imagefs.errors import Exists, InvalidArgument, NotFound, NotPermitted


class Share(msgspec.Struct, frozen=True):
    """One image that the account shares with `grantee`."""

    image: str
    grantee: str


class Sharing:
    """One account's side of sharing, in its home region. `now` gives the time in ns."""

    def __init__(
        self, catalog: Catalog, account: str, now: Callable[[], int], home: str = ""
    ) -> None:
        self._catalog = catalog
        self._account = account
        self._now = now
        self._home = home
        self._version = catalog.version()

    # -- what others share --------------------------------------------------------------

    def image(self, reference: ImageReference) -> TreeRow:
        """Another account's image; raises NotFound unless it is shared with this one."""
        owner = reference.owner or self._account
        row = self._catalog.shared_image(self._account, owner, reference.name, self._home)
        if row is None:
            raise NotFound(
                f"Image {reference} is not shared with {self._account}; `imagefs ls shared` lists"
                " those that are"
            )
        return row

    def images(self) -> list[TreeRow]:
        """All images that others share with this account, by owner and name."""
        return self._catalog.shared_images(self._account, self._home)

    def owners(self) -> list[str]:
        """Who shares images with this account, in order."""
        return sorted({row.account for row in self.images()})

    def images_of(self, owner: str) -> list[str]:
        """The names of the images that `owner` shares with this account, in order."""
        return [row.name for row in self.images() if row.account == owner]

    def is_foreign(self, row: TreeRow) -> bool:
        """Whether a row belongs to another account."""
        return row.account != self._account

    def is_public(self, row: TreeRow) -> bool:
        """Whether everybody may see the image."""
        return row.account == PUBLIC or PUBLIC in self._catalog.shared_with(row.number)

    def require_own(self, row: TreeRow, what: str) -> None:
        """Raise NotPermitted unless the row belongs to this account."""
        if self.is_foreign(row):
            raise NotPermitted(
                f"Image {row.known_as(self._account)} belongs to {row.account} and can't be {what}"
                f" by {self._account}: clone it, and commit the clone to an image of your own"
            )

    def withdrawn(self, rows: Sequence[TreeRow]) -> list[TreeRow]:
        """Those of other accounts' images in use that this account may see no longer.

        Cheap while no other process changes the catalog.
        """
        version = self._catalog.version()
        if version == self._version:
            return []
        gone = [row for row in rows if not self._catalog.is_shared(row, self._account)]
        self._version = version
        return gone

    def changed_here(self) -> None:
        """Rows of others changed in this process, which `version` does not tell of."""
        self._version = -1

    # -- what this account shares -------------------------------------------------------

    def shares(self) -> list[Share]:
        """Every image and whom it is shared with, by grantee and name."""
        return [
            Share(row.name, grantee)
            for grantee in self._catalog.grantees(self._account)
            for row in self._catalog.shared_to(self._account, grantee, self._home)
        ]

    def share(self, row: TreeRow, grantees: Sequence[str]) -> None:
        """Share a sealed image of this account; raises InvalidName, InvalidArgument."""
        self.require_own(row, "shared")
        self._catalog.share(row, [self.check_grantee(name) for name in grantees], self._now())

    def unshare(self, row: TreeRow, grantees: Sequence[str]) -> None:
        """End sharing, with all or none; instances made by then stay. Raises NotFound,
        InvalidName."""
        self.require_own(row, "shared")
        self._catalog.unshare(row, [check_name(name) for name in grantees])

    def refuse_shared(self, row: TreeRow, grantees: Sequence[str]) -> None:
        """Raise Exists with the first of these with whom an image is shared."""
        for grantee in self._catalog.shared_with(row.number):
            if grantee in grantees:
                raise Exists(f"Image {row.reference} is shared with {grantee} already")

    def require_shared(self, row: TreeRow, grantees: Sequence[str]) -> None:
        """Raise NotFound with the first of these with whom an image is not shared."""
        shared = self._catalog.shared_with(row.number)
        for grantee in grantees:
            if check_name(grantee) not in shared:
                raise NotFound(f"Image {row.reference} is not shared with {grantee}")

    def check_grantee(self, name: str | bytes) -> str:
        """Return the name of an account to share with; raises InvalidName, InvalidArgument."""
        name = check_name(name)
        if name == self._account:
            raise InvalidArgument(f"{name} is this account: its images need no sharing with itself")
        if self._account == PUBLIC:
            raise InvalidArgument(f"Every image of {PUBLIC} is shared with everybody already")
        return name
