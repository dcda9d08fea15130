"""Taking away another account's image that is in use and no longer shared.

Its owner's daemon changes the catalog and knows nothing of this mount. So while another
account's images are in use here, the catalog is looked at twice a second. What is shared no
longer is refused from then on, whatever is open, and the kernel is told to forget the name
and every page of files that are open; instances made of the image are not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from imagefs.catalog import TreeRow
from imagefs.model import SECOND
from imagefs.vfs.handles import OpenFile
from imagefs.vfs.node import Forgotten, Superseded, Withdrawn, node_id
from imagefs.vfs.sharing import Sharing
from imagefs.vfs.upkeep import Step
from imagefs.vfs.volume import Volume
from imagefs.vfs.volumes import Volumes

LOOK_EVERY = SECOND // 2
"""How long (ns) an image may be read after it is no longer shared, at most twice."""


class Withdrawal:
    """The watch over other accounts' images; `tell` tells the kernel."""

    def __init__(
        self,
        volumes: Volumes,
        sharing: Sharing,
        files: Iterable[OpenFile],
        locate: Callable[[TreeRow], Superseded],
        tell: Callable[[Forgotten], None],
        clock: Callable[[], int],
    ) -> None:
        self._volumes = volumes
        self._sharing = sharing
        self._files = files
        self._locate = locate
        self._tell = tell
        self._clock = clock
        self._looked = clock()

    def next_due(self) -> int | None:
        """When (ns) to look again; None while only own images are in use."""
        return self._looked + LOOK_EVERY if self._foreign() else None

    def due(self) -> list[Step]:
        """The step that looks, when it is time."""
        due = self.next_due()
        return [self.look] if due is not None and due <= self._clock() else []

    def look(self) -> None:
        """Withdraw what is shared no longer."""
        self._looked = self._clock()
        foreign = {volume.row.number: volume for volume in self._foreign()}
        for row in self._sharing.withdrawn([volume.row for volume in foreign.values()]):
            self._withdraw(foreign[row.number])

    def regions(self) -> set[str]:
        """The regions of others' images that are in use."""
        return {volume.row.place for volume in self._foreign()}

    def _foreign(self) -> list[Volume]:
        return [
            volume
            for volume in self._volumes
            if not volume.withdrawn and self._sharing.is_foreign(volume.row)
        ]

    def _withdraw(self, volume: Volume) -> None:
        volume.withdrawn = True
        self._tell(self._locate(volume.row))
        for ino in {file.ino for file in self._files if file.volume is volume}:
            self._tell(Withdrawn(node_id(volume.row.number, ino)))
