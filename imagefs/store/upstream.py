"""Where a store looks for objects that its own packs lack: regions, through this interface.

Local objects never ask here. What an upstream gives is verified: its bytes have the id.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from imagefs.errors import NotReady
from imagefs.model import ObjectId


class Upstream(Protocol):
    """Every method may be called from any thread. None stands for an object unknown there.

    Raises `Corrupt` for an object that is there and damaged, `Unreachable` when nobody answers.
    """

    def get(self, oid: ObjectId) -> bytes | None:
        """The bytes of an object; blocks, maybe for long."""

    def get_nowait(self, oid: ObjectId) -> bytes | None:
        """The same without waiting, else raises `NotReady` (remote); take it again then."""

    def missing(self, oids: Iterable[ObjectId]) -> list[NotReady]:
        """For reading ahead: what to do so that these objects are at hand, in order."""
