"""A map from ids to small numbers that costs little more than the ids themselves.

A dict takes some 120 bytes for an object id, so a million objects cost 120 MB; here they cost
40 MB. Ids are hashes, so their first bytes spread them evenly over the buckets, and a bucket is
searched by `bytearray.find`: under a microsecond for tens of millions of ids.
"""

from __future__ import annotations

_PREFIX = 2
_ID = 32
_REST = _ID - _PREFIX
_VALUE = 4
_ROW = _REST + _VALUE


class KnownIds:
    """Ids of 32 bytes with a number below 2**32 each. An id that was put stays as it is."""

    def __init__(self) -> None:
        self._buckets: dict[bytes, bytearray] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<KnownIds: {self._count}>"

    def get(self, key: bytes) -> int | None:
        """The number of an id, None when it was not put."""
        bucket = self._buckets.get(key[:_PREFIX])
        if bucket is None:
            return None
        rest = key[_PREFIX:]
        at = bucket.find(rest)
        while at >= 0:
            if at % _ROW == 0:
                return int.from_bytes(bucket[at + _REST : at + _ROW], "little")
            at = bucket.find(rest, at + 1)
        return None

    def put(self, key: bytes, value: int) -> None:
        """Remember an id unless it is known."""
        if self.get(key) is None:
            bucket = self._buckets.setdefault(key[:_PREFIX], bytearray())
            bucket += key[_PREFIX:] + value.to_bytes(_VALUE, "little")
            self._count += 1
