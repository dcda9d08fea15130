"""Rows of trees: finding one by its number, and adding one under a name that may be taken."""

from __future__ import annotations

import sqlite3

from imagefs.catalog.connection import Connection
from imagefs.catalog.rows import Kind, Sealed, State, TreeRow
from imagefs.errors import Exists, NotFound
from imagefs.model import ObjectId, TreeNumber

_INSERT = (
    "INSERT INTO tree (kind, account, place, name, state, manifest, parent, created, used, entries,"
    " bytes, stored, origin) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Trees(Connection):
    """The part of the catalog that the others use to reach rows of trees."""

    def tree(self, number: TreeNumber) -> TreeRow | None:
        """The tree of that number, deleted or not."""
        return self._one("number = ?", number)

    def living(self, kind: Kind, account: str, place: str, name: str) -> TreeRow | None:
        """The one tree that bears this name now."""
        return self._one(
            "account = ? AND kind = ? AND place = ? AND name = ? AND deleted IS NULL",
            account, str(kind), place, name,
        )  # fmt: skip

    def _present(self, number: TreeNumber) -> TreeRow:
        row = self.tree(number)
        if row is None:
            raise NotFound(f"Tree {number} is not in the catalog")
        return row

    def _insert(
        self, kind: Kind, account: str, place: str, name: str, state: State,
        manifest: ObjectId | None, parent: str | None, now: int, sealed: Sealed | None = None,
        *, origin: str = "", used: bool = False,
    ) -> TreeRow:  # fmt: skip
        figures = (sealed.entries, sealed.bytes, sealed.stored) if sealed else (None, None, None)
        cursor = self._named(
            _INSERT,
            (
                str(kind), account, place, name, str(state), manifest, parent, now, used, *figures,
                origin,
            ),
            kind, place, name,
        )  # fmt: skip
        return self._present(TreeNumber(cursor.lastrowid or 0))

    def _named(
        self, sql: str, arguments: tuple[object, ...], kind: Kind, place: str, name: str
    ) -> sqlite3.Cursor:
        """Run a statement that gives a tree a name, which may be taken."""
        try:
            return self._connection.execute(sql, arguments)
        except sqlite3.IntegrityError as error:
            reference = name if kind is Kind.IMAGE else f"{place}/{name}"
            raise Exists(
                f"{kind.capitalize()} {reference} exists already: choose another name"
            ) from error

    def _remove(self, number: TreeNumber) -> None:
        """Remove the row of a tree and whom it is shared with."""
        self._connection.execute("DELETE FROM share WHERE image = ?", (number,))
        self._connection.execute("DELETE FROM tree WHERE number = ?", (number,))
