"""Which images are shared with whom, as the catalog has it.

A share is a row of the image's number and the grantee, so it follows the image through
renames. Grantees are rows of their own, because a directory of `shared/to/` may be empty.
"""

from __future__ import annotations

from collections.abc import Sequence

from imagefs.catalog.rows import TreeRow
from imagefs.catalog.trees import Trees
from imagefs.errors import Exists, NotEmpty, NotFound
from imagefs.model import TreeNumber

_SHARED = (
    "kind = 'image' AND state = 'sealed' AND deleted IS NULL AND place = ? AND account <> ? AND"
    " (account = ? OR number IN (SELECT image FROM share WHERE grantee IN (?, ?)))"
)
"""Arguments: region, viewer, PUBLIC, viewer, PUBLIC."""

PUBLIC = "public"
"""What is shared with this grantee everybody sees, and all images of this account."""


class Shares(Trees):
    """The part of the catalog that is about sharing."""

    def grantees(self, account: str) -> list[str]:
        """Whom an account shares with, or is about to, in order."""
        rows = self._fetch("SELECT name FROM grantee WHERE account = ? ORDER BY name", account)
        return [name for (name,) in rows]

    def shared_to(self, account: str, grantee: str, region: str = "") -> list[TreeRow]:
        """The images that an account shares with another, in the order of their names."""
        return self._rows(
            "account = ? AND place = ? AND deleted IS NULL AND number IN"
            " (SELECT image FROM share WHERE grantee = ?) ORDER BY name",
            account, region, grantee,
        )  # fmt: skip

    def shared_with(self, number: TreeNumber) -> list[str]:
        """With whom an image is shared, in order."""
        rows = self._fetch("SELECT grantee FROM share WHERE image = ? ORDER BY grantee", number)
        return [name for (name,) in rows]

    def shared_images(self, viewer: str, region: str = "") -> list[TreeRow]:
        """The images of others that an account may see, by owner and name."""
        return self._rows(
            f"{_SHARED} ORDER BY account, name", region, viewer, PUBLIC, viewer, PUBLIC
        )

    def shared_image(self, viewer: str, owner: str, name: str, region: str = "") -> TreeRow | None:
        """Another account's image, if `viewer` may see it."""
        return self._one(
            f"{_SHARED} AND account = ? AND name = ?",
            region, viewer, PUBLIC, viewer, PUBLIC, owner, name,
        )  # fmt: skip

    def is_shared(self, row: TreeRow, viewer: str) -> bool:
        """Whether `viewer` still may see another account's image."""
        found = self._one(
            f"{_SHARED} AND number = ?", row.place, viewer, PUBLIC, viewer, PUBLIC, row.number
        )
        return found is not None

    def add_grantee(self, account: str, name: str, now: int) -> None:
        """Prepare to share with an account; raises Exists."""
        with self._changing():
            if name in self.grantees(account):
                raise Exists(f"{account} shares with {name} already")
            self._add_grantee(account, name, now)

    def remove_grantee(self, account: str, name: str) -> None:
        """Give up sharing with an account; raises NotFound, and NotEmpty while images are shared."""
        with self._changing():
            shared = self._rows(
                "account = ? AND deleted IS NULL AND number IN"
                " (SELECT image FROM share WHERE grantee = ?) ORDER BY place, name",
                account, name,
            )  # fmt: skip
            if shared:
                names = ", ".join(
                    f"{row.name} in region {row.place}" if row.place else row.name for row in shared
                )
                raise NotEmpty(f"{account} shares with {name}: {names}")
            cursor = self._connection.execute(
                "DELETE FROM grantee WHERE account = ? AND name = ?", (account, name)
            )
            if not cursor.rowcount:
                raise NotFound(f"{account} shares nothing with {name}")

    def share(self, row: TreeRow, grantees: Sequence[str], now: int) -> None:
        """Share a sealed image with all of `grantees`, also with who has it already."""
        with self._changing(durable=True):
            self._connection.execute("UPDATE tree SET used = 1 WHERE number = ?", (row.number,))
            for grantee in grantees:
                self._add_grantee(row.account, grantee, now)
                self._connection.execute(
                    "INSERT OR IGNORE INTO share VALUES (?, ?, ?)", (row.number, grantee, now)
                )

    def unshare(self, row: TreeRow, grantees: Sequence[str]) -> None:
        """End sharing an image with all of `grantees`; raises NotFound with the first who
        does not have it."""
        with self._changing(durable=True):
            for grantee in grantees:
                cursor = self._connection.execute(
                    "DELETE FROM share WHERE image = ? AND grantee = ?", (row.number, grantee)
                )
                if not cursor.rowcount:
                    raise NotFound(f"Image {row.reference} is not shared with {grantee}")

    def _add_grantee(self, account: str, name: str, now: int) -> None:
        self._connection.execute(
            "INSERT OR IGNORE INTO grantee VALUES (?, ?, ?)", (account, name, now)
        )
