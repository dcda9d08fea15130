"""What only the holder of an account's lock can tell of its overlays, for `imagefs verify`.

Each method is a step (see `NotReady`). Trees are named by their numbers, because deleted ones,
which can still be brought back, share their names with others.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from imagefs.catalog import Catalog, State
from imagefs.model import Ino, TreeNumber
from imagefs.overlay.overlay import StoredContent
from imagefs.vfs.volume import Volume
from imagefs.vfs.volumes import Volumes

_LISTED = 1000
"""Contents told at a time: some milliseconds of the loop's time."""


class Inspection:
    """The overlays of one account. One that turned into something else meanwhile, or belongs
    to another account, is answered for with nothing."""

    def __init__(self, catalog: Catalog, volumes: Volumes, account: str) -> None:
        self._catalog = catalog
        self._volumes = volumes
        self._account = account
        self._results: dict[Hashable, Any] = {}

    def check(self, number: TreeNumber) -> list[str]:
        """What is wrong in an overlay, one sentence each. Changes in it wait meanwhile."""
        if number in self._results:
            problems: list[str] = self._results.pop(number)
            return problems
        volume = self._volume(number)
        if volume is None:
            return []

        def done(problems: list[str]) -> None:
            self._results[number] = problems

        raise self._volumes.check(volume, done)

    def contents(self, number: TreeNumber, after: int) -> list[StoredContent]:
        """The next files of an overlay whose content is in the store; none at the end.

        Until then the overlay stays open: opening it reads a number for every inode.
        """
        volume = self._volume(number)
        if volume is None:
            return []
        listed = volume.overlay.stored_contents(after, _LISTED)
        if not listed:
            self._volumes.release(volume)
        return listed

    def path(self, number: TreeNumber, ino: Ino) -> bytes:
        """A path of an inode of an overlay."""
        volume = self._volume(number)
        return b"" if volume is None else volume.overlay.path(ino)

    def _volume(self, number: TreeNumber) -> Volume | None:
        row = self._catalog.tree(number)
        if row is None or row.account != self._account or row.state is State.SEALED:
            return None
        return self._volumes.open(row)
