"""Reading and changing the catalog: each method is one transaction.

Changes return once they survive the death of the process; those that make something
complete (`seal`, `publish`), and what only commands do, return once they survive power loss;
for the others there is `sync`.
"""

from __future__ import annotations

from collections.abc import Sequence

from imagefs.catalog.check import check
from imagefs.catalog.regional import Regional
from imagefs.catalog.rows import Kind, Sealed, State, TreeRow
from imagefs.errors import Exists, NotFound
from imagefs.model import TreeNumber


class Catalog(Regional):
    """The open catalog of one store."""

    # -- looking up ---------------------------------------------------------------------

    def image(self, account: str, name: str, region: str = "") -> TreeRow | None:
        """An account's image by name, unless it is deleted; in the store itself or a region."""
        return self.living(Kind.IMAGE, account, region, name)

    def instance(self, account: str, place: str, name: str) -> TreeRow | None:
        """An account's instance by its image's reference and its name, unless it is deleted."""
        return self.living(Kind.INSTANCE, account, place, name)

    def last_deleted(self, kind: Kind, account: str, place: str, name: str) -> TreeRow | None:
        """The tree of this name that was deleted last."""
        return self._one(
            "account = ? AND kind = ? AND place = ? AND name = ? AND deleted IS NOT NULL"
            " ORDER BY deleted DESC, number DESC LIMIT 1",
            account, str(kind), place, name,
        )  # fmt: skip

    def images(self, account: str, *, deleted: bool = False, region: str = "") -> list[TreeRow]:
        """An account's images in the order of their names: the living, or the deleted."""
        return self._listing(Kind.IMAGE, account, deleted, region)

    def drafts(self, account: str) -> list[TreeRow]:
        """An account's drafts, in whatever region they are to be."""
        return self._rows(
            "account = ? AND kind = 'image' AND state = 'draft' AND deleted IS NULL ORDER BY number",
            account,
        )

    def instances(self, account: str, *, deleted: bool = False) -> list[TreeRow]:
        """An account's instances by place and name: the living, or the deleted."""
        return self._listing(Kind.INSTANCE, account, deleted)

    def instances_at(self, account: str, place: str) -> list[TreeRow]:
        """The living instances under one image reference, in the order of their names."""
        return self._rows(
            "account = ? AND kind = 'instance' AND place = ? AND deleted IS NULL ORDER BY name",
            account, place,
        )  # fmt: skip

    def numbers(self, account: str) -> set[TreeNumber]:
        """The numbers of all trees of an account, deleted ones too."""
        rows = self._fetch("SELECT number FROM tree WHERE account = ?", account)
        return {TreeNumber(number) for (number,) in rows}

    def last_number(self) -> int:
        """The largest number that was ever given to a tree, as far as the catalog knows."""
        rows = self._fetch("SELECT seq FROM sqlite_sequence WHERE name = 'tree'")
        return int(rows[0][0]) if rows else 0

    def aliases(self, account: str) -> dict[str, str]:
        """An account's aliases: name to the image's name it stands for."""
        return dict(self._fetch("SELECT name, target FROM alias WHERE account = ?", account))

    def alias(self, account: str, name: str) -> str | None:
        """The image name that an alias stands for."""
        rows = self._fetch("SELECT target FROM alias WHERE account = ? AND name = ?", account, name)
        return rows[0][0] if rows else None

    def everything(self) -> list[TreeRow]:
        """The trees of all accounts in the order of their numbers, deleted ones too."""
        return self._rows("number > 0 ORDER BY number")

    def check(self) -> list[str]:
        """What is wrong in the database, one sentence each; raises Corrupt, IOFailure."""
        with self._mapped_errors():
            return list(check(self._connection))

    # -- changing -----------------------------------------------------------------------

    def place_number(self, path: str) -> int:
        """A small number that stands for `path` in this store for ever (for inode numbers)."""
        rows = self._fetch("SELECT number FROM place WHERE path = ?", path)
        if not rows:
            with self._changing():
                self._connection.execute("INSERT OR IGNORE INTO place (path) VALUES (?)", (path,))
            rows = self._fetch("SELECT number FROM place WHERE path = ?", path)
        return int(rows[0][0])

    def create_draft(self, account: str, name: str, now: int, region: str = "") -> TreeRow:
        """Add an empty draft; raises Exists."""
        with self._changing():
            self._refuse_taken(account, name, region)
            return self._insert(Kind.IMAGE, account, region, name, State.DRAFT, None, None, now)

    def publish(
        self, account: str, name: str, sealed: Sealed, parent: str | None, now: int,
        region: str = "",
    ) -> TreeRow:  # fmt: skip
        """Add a sealed image whose objects are durable, here or in a region; raises Exists. A listing
        of its region may have seen it already."""
        with self._changing(durable=True):
            seen = self._seen(account, name, region, sealed, now)
            if seen is not None:
                return seen
            self._refuse_taken(account, name, region)
            return self._insert(
                Kind.IMAGE, account, region, name, State.SEALED, sealed.manifest, parent, now,
                sealed,
            )  # fmt: skip

    def seal(self, row: TreeRow, sealed: Sealed) -> TreeRow:
        """Turn a draft into a sealed image of the same name, with a new number."""
        with self._changing(durable=True):
            self._replace(row)
            return self._insert(
                Kind.IMAGE, row.account, row.place, row.name, State.SEALED, sealed.manifest,
                row.parent, row.created, sealed,
            )  # fmt: skip

    def promote(
        self, row: TreeRow, name: str, sealed: Sealed, now: int, region: str = ""
    ) -> TreeRow:
        """Turn an instance into the sealed image `name`; raises Exists. Like `publish`."""
        with self._changing(durable=True):
            seen = self._seen(row.account, name, region, sealed, now)
            if seen is None:
                self._refuse_taken(row.account, name, region)
            self._replace(row)
            if seen is not None:
                return seen
            return self._insert(
                Kind.IMAGE, row.account, region, name, State.SEALED, sealed.manifest,
                row.reference, now, sealed,
            )  # fmt: skip

    def unseal(self, row: TreeRow) -> TreeRow:
        """Turn a sealed image that was never used into a draft, with a new number."""
        with self._changing():
            self._replace(row)
            return self._insert(
                Kind.IMAGE, row.account, row.place, row.name, State.DRAFT, row.manifest, row.parent,
                row.created,
            )  # fmt: skip

    def clone(
        self, image: TreeRow, account: str, place: str, names: Sequence[str], now: int,
        *, durable: bool = False,
    ) -> list[TreeRow]:  # fmt: skip
        """Add instances of a sealed image, all or none; raises Exists with the first name taken."""
        with self._changing(durable=durable):
            if not image.used:
                self._connection.execute(
                    "UPDATE tree SET used = 1 WHERE number = ?", (image.number,)
                )
            return [
                self._insert(
                    Kind.INSTANCE, account, place, name, State.LIVE, image.manifest,
                    image.known_as(account), now, origin=image.place,
                )
                for name in names
            ]  # fmt: skip

    def reset(self, row: TreeRow, now: int) -> TreeRow:
        """Put a fresh clone in the place of an instance, which counts as deleted from now on."""
        with self._changing(durable=True):
            self._mark_deleted(row.number, now)
            return self._insert(
                Kind.INSTANCE, row.account, row.place, row.name, State.LIVE, row.manifest,
                row.parent, now, origin=row.origin,
            )  # fmt: skip

    def rename(self, row: TreeRow, name: str) -> TreeRow:
        """Give a tree another name; raises Exists."""
        with self._changing():
            if row.kind is Kind.IMAGE:
                self._refuse_taken(row.account, name, row.place)
            self._named(
                "UPDATE tree SET name = ? WHERE number = ?",
                (name, row.number),
                row.kind,
                row.place,
                name,
            )
        return self._present(row.number)

    def delete(self, row: TreeRow, now: int, *, durable: bool = False) -> None:
        """Take a tree out of sight; it can be brought back until gc removes it."""
        with self._changing(durable=durable):
            self._mark_deleted(row.number, now)

    def undelete(self, row: TreeRow) -> TreeRow:
        """Bring a deleted tree back under its old name; raises Exists."""
        with self._changing(durable=True):
            if row.kind is Kind.IMAGE:
                self._refuse_taken(row.account, row.name, row.place)
            self._named(
                "UPDATE tree SET deleted = NULL WHERE number = ?",
                (row.number,), row.kind, row.place, row.name,
            )  # fmt: skip
        return self._present(row.number)

    def set_alias(
        self, account: str, name: str, target: str, now: int, *, replace: bool, region: str = ""
    ) -> None:
        """Let `name` stand for the image `target`; raises Exists unless it replaces an alias.
        It is not to have the name of an image of `region`."""
        with self._changing():
            if not replace or self.alias(account, name) is None:
                self._refuse_taken(account, name, region)
            self._connection.execute(
                "INSERT OR REPLACE INTO alias VALUES (?, ?, ?, ?)", (account, name, target, now)
            )

    def remove_alias(self, account: str, name: str, *, durable: bool = False) -> None:
        """Forget an alias; raises NotFound."""
        with self._changing(durable=durable):
            cursor = self._connection.execute(
                "DELETE FROM alias WHERE account = ? AND name = ?", (account, name)
            )
            if not cursor.rowcount:
                raise NotFound(f"Alias {name} does not exist")

    def rename_alias(
        self, account: str, name: str, new_name: str, now: int, region: str = ""
    ) -> None:
        """Move an alias to another name, over another alias if there is one."""
        with self._changing():
            target = self.alias(account, name)
            if target is None:
                raise NotFound(f"Alias {name} does not exist")
            if self.alias(account, new_name) is None:
                self._refuse_taken(account, new_name, region)
            self._connection.execute(
                "DELETE FROM alias WHERE account = ? AND name = ?", (account, name)
            )
            self._connection.execute(
                "INSERT OR REPLACE INTO alias VALUES (?, ?, ?, ?)",
                (account, new_name, target, now),
            )

    # -- inside -------------------------------------------------------------------------

    def _listing(
        self, kind: Kind, account: str, deleted: bool, place: str | None = None
    ) -> list[TreeRow]:
        return self._rows(
            f"account = ? AND kind = ? AND place = coalesce(?, place)"
            f" AND deleted IS {'NOT ' if deleted else ''}NULL ORDER BY place, name, deleted",
            account, str(kind), place,
        )  # fmt: skip

    def _replace(self, row: TreeRow) -> None:
        """Remove a row that another one is about to stand for."""
        cursor = self._connection.execute(
            "DELETE FROM tree WHERE number = ? AND deleted IS NULL", (row.number,)
        )
        if not cursor.rowcount:
            raise NotFound(f"{row.kind.capitalize()} {row.reference} does not exist any more")

    def _mark_deleted(self, number: TreeNumber, now: int) -> None:
        cursor = self._connection.execute(
            "UPDATE tree SET deleted = ? WHERE number = ? AND deleted IS NULL", (now, number)
        )
        if not cursor.rowcount:
            raise NotFound(f"Tree {number} does not exist any more")

    def _seen(
        self, account: str, name: str, region: str, sealed: Sealed, created: int
    ) -> TreeRow | None:
        """The row of an image that was published in a region, when a listing was first to tell."""
        row = self.image(account, name, region) if region else None
        if row is None or row.state is not State.SEALED:
            return None
        return row if (row.manifest, row.created) == (sealed.manifest, created) else None

    def _refuse_taken(self, account: str, name: str, region: str) -> None:
        """Image names and aliases share one space."""
        if self.image(account, name, region) is not None or self.alias(account, name) is not None:
            raise Exists(f"Image {name} exists already: choose another name")
