"""Objects that were put and cannot be fetched yet, because their writer has not finished."""

from __future__ import annotations

from imagefs.model import ObjectId
from imagefs.tree.contents import Fetch, Put


class Fresh:
    """Gives what was put through it back at once. For one operation: it holds the objects."""

    def __init__(self, fetch: Fetch, put: Put) -> None:
        self._fetch = fetch
        self._put = put
        self._objects: dict[ObjectId, bytes] = {}

    def put(self, data: bytes) -> ObjectId:
        oid = self._put(data)
        self._objects[oid] = data
        return oid

    def fetch(self, oid: ObjectId) -> bytes:
        data = self._objects.get(oid)
        return self._fetch(oid) if data is None else data
