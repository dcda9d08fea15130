"""The regions that a store knows, and their images as they were listed last.

Images of a region are rows whose `place` is its name. They mirror what the region has: a listing
adds and removes them, and one that is removed leaves no trace, because the region itself keeps
what was deleted there. Drafts that are to be published in a region are rows of that place, too;
no listing touches them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence

from imagefs.catalog import schema
from imagefs.catalog.rows import Kind, Published, RegionRow, Sealed, State, TreeRow
from imagefs.catalog.shares import PUBLIC, Shares
from imagefs.errors import Busy, Exists, NotFound
from imagefs.model import ObjectId

_REGIONS = "SELECT name, url, created, refreshed, failure FROM region"
_NEEDED = "SELECT DISTINCT manifest FROM tree WHERE origin = ?"

Share = tuple[str, str, str]
"""Owner, image's name, grantee."""


class Regional(Shares):
    """The part of the catalog that is about regions."""

    # -- regions ------------------------------------------------------------------------

    def regions(self) -> list[RegionRow]:
        """All regions in the order of their names."""
        return [RegionRow(*row) for row in self._fetch(f"{_REGIONS} ORDER BY name")]

    def region(self, name: str) -> RegionRow | None:
        """The region of that name."""
        rows = self._fetch(f"{_REGIONS} WHERE name = ?", name)
        return RegionRow(*rows[0]) if rows else None

    def add_region(self, name: str, url: str, now: int) -> None:
        """Get to know a region; raises Exists. Deleted instances of its images that were here when
        it was forgotten are its own again, whatever its name was then."""
        with self._changing(durable=True):
            if self.region(name) is not None:
                raise Exists(f"Region {name} exists already: choose another name")
            self._connection.execute(
                "INSERT INTO region (name, url, created) VALUES (?, ?, ?)", (name, url, now)
            )
            self._connection.execute(
                "UPDATE tree SET origin = ? WHERE origin = ?", (name, forgotten(url))
            )

    def remove_region(self, name: str) -> None:
        """Forget a region and what it has; raises NotFound, and Busy while something here
        needs it."""
        with self._changing(durable=True):
            region = self.region(name)
            if region is None:
                raise NotFound(f"There is no region {name}")
            self._refuse_needed(name)
            for row in self._rows("kind = 'image' AND place = ?", name):
                self._remove(row.number)
            # Another region may get the name, and has nothing of theirs.
            self._connection.execute(
                "UPDATE tree SET origin = ? WHERE origin = ?", (forgotten(region.url), name)
            )
            self._connection.execute("DELETE FROM region WHERE name = ?", (name,))

    def note_refreshed(self, name: str, now: int | None, failure: str | None) -> None:
        """Remember when a region was listed last (None: not now), and what is wrong with it."""
        with self._changing():
            self._connection.execute(
                "UPDATE region SET refreshed = coalesce(?, refreshed), failure = ? WHERE name = ?",
                (now, failure, name),
            )

    def home(self, account: str) -> str:
        """The region whose images an account sees in images/; empty: the store's own."""
        rows = self._fetch("SELECT region FROM home WHERE account = ?", account)
        return rows[0][0] if rows else ""

    def set_home(self, account: str, region: str) -> None:
        """From now on an account sees the images of this region (empty: the store's own)."""
        with self._changing(durable=True):
            self._connection.execute("DELETE FROM home WHERE account = ?", (account,))
            if region:
                self._connection.execute("INSERT INTO home VALUES (?, ?)", (account, region))

    def manifests_needed(self, region: str) -> set[ObjectId]:
        """The trees of a region that instances here stand on, deleted ones too."""
        rows = self._fetch(_NEEDED, region)
        return {ObjectId(manifest) for (manifest,) in rows}

    def manifests_needed_now(self, region: str) -> set[ObjectId]:
        """Like `manifests_needed`, for any thread: reads what is committed, in all processes."""
        with self._mapped_errors(), contextlib.closing(schema.connect(self._path)) as connection:
            rows = connection.execute(_NEEDED, (region,)).fetchall()
        return {ObjectId(manifest) for (manifest,) in rows}

    # -- their images -------------------------------------------------------------------

    def mirror(
        self, region: str, account: str, images: Sequence[Published], shares: Collection[Share],
        now: int, *, changed: Collection[str] = (),
    ) -> list[TreeRow]:  # fmt: skip
        """Take over what a region lists for an account: its own images, those it may see of
        others, and who shares what with whom as far as that concerns it. Nothing is done about
        its images that were `changed` since the region began to list.

        Returns the rows that came or went.
        """
        left = {(account, name) for name in changed}
        held = left | {(row.account, row.name) for row in self._drafts_of(region, account)}
        listed = {(image.account, image.name): image for image in images}
        known = [row for row in self._mirrored(region, account) if _named(row) not in left]
        gone = [row for row in known if not _is_same(row, listed.get(_named(row)))]
        kept = {_named(row) for row in known} - {_named(row) for row in gone}
        new = [image for key, image in listed.items() if key not in kept and key not in held]
        # One whose image is left out can't be here.
        told = {share for share in shares if share[:2] in listed and share[:2] not in held}
        present = {share for share in self._shares_of(region, account) if share[:2] not in left}
        if not gone and not new and present == told:
            return []
        with self._changing():
            for row in gone:
                # Another's image that this account may not see any more is there for others.
                if row.account in (account, PUBLIC) or (row.account, row.name) in listed:
                    self._remove(row.number)
            added = list(filter(None, [self._take_over(region, image) for image in new]))
            self._mirror_shares(region, present, told, now)
        return [*gone, *added]

    def forget(self, row: TreeRow) -> None:
        """Remove the row of an image that its region does not have any more."""
        with self._changing():
            self._remove(row.number)

    def adopt(self, region: str, image: Published, former: TreeRow | None = None) -> TreeRow:
        """The row of an image that its region has from now on, in the place of `former`; a listing
        may have seen it already. Raises Exists when a draft here has its name."""
        with self._changing(durable=True):
            present = self.living(Kind.IMAGE, image.account, region, image.name)
            if present is None and former is not None and self.tree(former.number) is not None:
                self._connection.execute(
                    "UPDATE tree SET name = ? WHERE number = ?", (image.name, former.number)
                )
                return self._present(former.number)
            row = self._take_over(region, image)
            if row is None:
                raise Exists(f"A draft here is called {image.name}, too: rename that one")
            if former is not None:
                self._remove(former.number)
            return row

    def mark_used(self, row: TreeRow) -> None:
        """An image was copied: it cannot become a draft again."""
        if not row.used:
            with self._changing():
                self._connection.execute("UPDATE tree SET used = 1 WHERE number = ?", (row.number,))

    # -- inside -------------------------------------------------------------------------

    def _refuse_needed(self, name: str) -> None:
        used = self._rows("deleted IS NULL AND (origin = ? OR place = ? AND state = 'draft')",
                          name, name)  # fmt: skip
        if used:
            shown = ", ".join(sorted(f"{row.kind} {row.reference}" for row in used[:3]))
            raise Busy(f"Region {name} is needed here by {shown}: remove that first")
        homes = self._fetch("SELECT account FROM home WHERE region = ? ORDER BY account", name)
        if homes:
            shown = ", ".join(account for (account,) in homes[:3])
            raise Busy(
                f"Region {name} is the home region of {shown}: mount without `--region` first"
            )

    def _drafts_of(self, region: str, account: str) -> list[TreeRow]:
        """Drafts here that are seen in the place of images of their names."""
        return self._rows(
            "kind = 'image' AND place = ? AND state = 'draft' AND account = ? AND deleted IS NULL",
            region, account,
        )  # fmt: skip

    def _mirrored(self, region: str, account: str) -> list[TreeRow]:
        """What the last listing for this account said."""
        return self._rows(
            "kind = 'image' AND place = ? AND state = 'sealed' AND (account IN (?, ?) OR number IN"
            " (SELECT image FROM share WHERE grantee IN (?, ?)))",
            region, account, PUBLIC, account, PUBLIC,
        )  # fmt: skip

    def _take_over(self, region: str, image: Published) -> TreeRow | None:
        """The row of a published image, unless a draft here has its name: that one is seen until
        it is renamed."""
        row = self.living(Kind.IMAGE, image.account, region, image.name)
        if row is not None:
            if row.state is State.DRAFT or _is_same(row, image):
                return None if row.state is State.DRAFT else row
            self._remove(row.number)
        sealed = Sealed(image.manifest, image.entries, image.bytes, 0)
        return self._insert(
            Kind.IMAGE, image.account, region, image.name, State.SEALED, image.manifest,
            image.parent, image.created, sealed, used=True,
        )  # fmt: skip

    def _shares_of(self, region: str, account: str) -> set[Share]:
        """The shares that concern an account: what it shares, and what others share with it."""
        rows = self._fetch(
            "SELECT t.account, t.name, s.grantee FROM share s JOIN tree t ON t.number = s.image"
            " WHERE t.place = ? AND (t.account = ? OR s.grantee IN (?, ?))",
            region, account, account, PUBLIC,
        )  # fmt: skip
        return {(owner, name, grantee) for owner, name, grantee in rows}

    def _mirror_shares(
        self, region: str, present: set[Share], listed: set[Share], now: int
    ) -> None:
        for owner, name, grantee in present - listed:
            self._connection.execute(
                "DELETE FROM share WHERE grantee = ? AND image IN (SELECT number FROM tree WHERE"
                " kind = 'image' AND account = ? AND place = ? AND name = ?)",
                (grantee, owner, region, name),
            )
        for owner, name, grantee in listed - present:
            self._add_grantee(owner, grantee, now)
            self._connection.execute(
                "INSERT OR IGNORE INTO share SELECT number, ?, ? FROM tree WHERE kind = 'image' AND"
                " state = 'sealed' AND account = ? AND place = ? AND name = ? AND deleted IS NULL",
                (grantee, now, owner, region, name),
            )


def forgotten(url: str) -> str:
    """The `origin` of deleted instances whose region was at this place and is not known any more:
    no name of a region has an `@`."""
    return f"@{url}"


def is_out_of_reach(row: TreeRow) -> bool:
    """Whether it is such an instance."""
    return row.origin.startswith(forgotten(""))


def _named(row: TreeRow) -> tuple[str, str]:
    return row.account, row.name


def _is_same(row: TreeRow, image: Published | None) -> bool:
    """Whether a row is that image as it is listed now, not a later one of its name."""
    return image is not None and (row.manifest, row.created) == (image.manifest, image.created)
