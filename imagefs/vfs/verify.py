"""Whether everything that the catalog names is present and good. Repairs nothing.

The catalog first, then index and packs as files, then every stored tree of every account, then
the overlays of one account and what they have in the store. Stored trees never change, so they
are checked beside a running mount; overlays are asked for through `Overlays`, which is the
account's daemon or a lifecycle of this process.

Blocks. Objects that are named more than once are read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

import msgspec

from imagefs.catalog import Catalog, Kind, State, TreeRow
from imagefs.catalog.regional import is_out_of_reach
from imagefs.disk import Disk
from imagefs.errors import Corrupt, IOFailure
from imagefs.model import ObjectId
from imagefs.overlay.overlay import StoredContent
from imagefs.store import Store
from imagefs.store.check import ObjectCheck
from imagefs.tree.check import TreeCheck, TreeProblem
from imagefs.vfs.volumes import OVERLAYS

MOST: Final = 1000
"""Problems told of one tree or overlay; a lost pack can have damaged a million files."""


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong. `where` are the images and instances that have it, or the part
    of the store; `path` is in them; `object` is the id of the bad object in hexadecimal."""

    where: list[str]
    message: str
    path: str | None = None
    object: str | None = None


class Overlays(Protocol):
    """Answers for overlays by their trees' numbers; see vfs.inspection."""

    def check(self, number: int) -> list[str]: ...
    def contents(self, number: int, after: int) -> Sequence[StoredContent]: ...
    def path(self, number: int, ino: int) -> bytes: ...


class Summary(msgspec.Struct):
    """What was looked at, and what nothing needs. `elsewhere` are the accounts with overlays
    that were not looked at."""

    images: int = 0
    instances: int = 0
    entries: int = 0
    objects: int = 0
    bytes: int = 0
    unneeded_objects: int = 0
    unneeded_overlays: int = 0
    elsewhere: list[str] = msgspec.field(default_factory=list)


class Verification:
    """One run. `tell` hears of entries and bytes done so far."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        disk: Disk,
        account: str,
        overlays: Overlays,
        tell: Callable[[int, int], None],
    ) -> None:
        self.summary = Summary()
        self._store = store
        self._catalog = catalog
        self._disk = disk
        self._account = account
        self._overlays = overlays
        self._tell = tell

    def run(self) -> Iterator[Problem]:
        """Everything that is wrong; `summary` is complete at the end."""
        bad = self._catalog.check()
        yield from (Problem(["catalog"], message) for message in bad)
        if bad:
            return
        bad = self._store.check_index()
        yield from (Problem(["index"], message) for message in bad)
        if bad:
            return
        yield from (Problem(["packs"], message) for message in self._store.check_packs())
        # What lies in regions is checked when it is fetched, and is theirs to keep.
        rows = [row for row in self._catalog.everything() if not _is_mirrored(row)]
        with ObjectCheck(self._store) as objects:
            trees = TreeCheck(objects, self._tell)
            yield from self._check_trees(rows, trees)
            yield from self._check_overlays(rows, trees)
            self._sum_up(rows, objects, trees)

    def _sum_up(self, rows: list[TreeRow], objects: ObjectCheck, trees: TreeCheck) -> None:
        summary = self.summary
        checked = [row for row in rows if self._is_checked(row)]
        summary.images = sum(row.kind is Kind.IMAGE for row in checked)
        summary.instances = len(checked) - summary.images
        summary.entries, summary.objects, summary.bytes = (
            trees.entries, objects.objects, objects.bytes,
        )  # fmt: skip
        summary.unneeded_objects = max(self._store.objects() - objects.objects, 0)
        summary.unneeded_overlays = self._leftovers(rows)
        summary.elsewhere = sorted({row.account for row in rows if not self._is_checked(row)})

    def _is_checked(self, row: TreeRow) -> bool:
        """Whether all of it is looked at; other accounts' overlays are not."""
        return row.state is State.SEALED or row.account == self._account

    def _leftovers(self, rows: list[TreeRow]) -> int:
        """Overlays on disk that no row names."""
        known = {(row.account, str(row.number)) for row in rows}
        accounts = self._directories(self._store.path / OVERLAYS)
        found = [path for account in accounts for path in self._directories(account)]
        return sum((path.parent.name, path.name) not in known for path in found)

    def _directories(self, above: Path) -> list[Path]:
        names = self._disk.listdir(above) if self._disk.is_directory(above) else []
        return [above / name for name in names if self._disk.is_directory(above / name)]

    # -- stored trees -------------------------------------------------------------------

    def _check_trees(self, rows: list[TreeRow], trees: TreeCheck) -> Iterator[Problem]:
        sharing: dict[ObjectId, list[TreeRow]] = {}
        for row in rows:
            if row.manifest is not None and not row.region:
                sharing.setdefault(row.manifest, []).append(row)
        for manifest, users in sharing.items():
            where = [self._called(row) for row in users]
            yield from _bounded(where, self._tree_problems(where, trees.check(manifest)))
            root = trees.root(manifest)
            for row in users:
                if row.state is not State.SEALED or root is None:
                    continue
                if (row.entries, row.bytes) != (root.count, root.size):
                    yield Problem(
                        [self._called(row)],
                        f"The catalog says {row.entries} entries and {row.bytes} bytes, the tree"
                        f" has {root.count} and {root.size}",
                    )

    def _tree_problems(
        self, where: list[str], problems: Iterable[TreeProblem]
    ) -> Iterator[Problem]:
        for path, message, oid in problems:
            shown = path.decode(errors="surrogateescape")
            yield Problem(where, message, f"/{shown}", None if oid is None else oid.hex())

    def _called(self, row: TreeRow) -> str:
        """What the row is called in lists of problems."""
        owner = "" if row.account == self._account else f" of {row.account}"
        deleted = "deleted " if row.deleted is not None else ""
        return f"{deleted}{row.kind} {row.reference}{owner}"

    # -- overlays -----------------------------------------------------------------------

    def _check_overlays(self, rows: list[TreeRow], trees: TreeCheck) -> Iterator[Problem]:
        for row in rows:
            # Without its region, nobody can tell anything of an instance that was deleted.
            if row.state is not State.SEALED and self._is_checked(row) and not is_out_of_reach(row):
                yield from _bounded([self._called(row)], self._check_overlay(row, trees))

    def _check_overlay(self, row: TreeRow, trees: TreeCheck) -> Iterator[Problem]:
        where = [self._called(row)]
        try:
            problems = self._overlays.check(row.number)
            yield from (Problem(where, message) for message in problems)
            if not problems:
                yield from self._check_contents(row, trees)
        except (Corrupt, IOFailure) as error:
            yield Problem(where, str(error))

    def _check_contents(self, row: TreeRow, trees: TreeCheck) -> Iterator[Problem]:
        """What an overlay has in the store: content that a commit put there."""
        where = [self._called(row)]
        after = 0
        while listed := self._overlays.contents(row.number, after):
            for ino, ref, size, count in listed:
                bad = trees.content(b"", ObjectId(ref), size, count)
                # What the store lacks of a region's image is the region's.
                found = list(islice((p for p in bad if self._is_ours(row, p)), MOST))
                if found:
                    path = self._overlays.path(row.number, ino)
                    named = (problem._replace(path=path) for problem in found)
                    yield from self._tree_problems(where, named)
            after = listed[-1][0]

    def _is_ours(self, row: TreeRow, problem: TreeProblem) -> bool:
        """Whether the store has, or ought to have, what is wrong."""
        oid = problem.oid
        return not row.region or oid is None or self._store.stored_size([oid]) > 0


def _is_mirrored(row: TreeRow) -> bool:
    return row.kind is Kind.IMAGE and row.state is State.SEALED and row.place != ""


def _bounded(where: list[str], problems: Iterator[Problem]) -> Iterator[Problem]:
    yield from islice(problems, MOST)
    if next(problems, None) is not None:
        yield Problem(where, f"There is more than these {MOST} problems")
