"""The objects of one region by key: the one door to a service or a directory.

Keys are as `layout` makes them: segments without control characters, joined by slashes, none of them
empty, `.` or `..`. What comes back was written by anybody and is checked by whoever uses it.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Final, Protocol

import msgspec

from imagefs.disk import Disk
from imagefs.errors import Corrupt
from imagefs.region.directory import Directory
from imagefs.region.listed import Listed
from imagefs.region.patience import Patience
from imagefs.region.url import RegionUrl

__all__ = ["MAX_OBJECT", "Bucket", "BucketStatistics", "Listed", "Patience"]

MAX_OBJECT: Final = 64 * 1024 * 1024
"""Objects that are larger are refused when they are read as a whole."""


class BucketStatistics(msgspec.Struct, frozen=True):
    """What was asked of the region since it was opened: requests by kind, without tries that were in
    vain, which are `retries`; bytes of bodies `sent` and `received`."""

    requests: dict[str, int]
    retries: int
    sent: int
    received: int


class Backend(Protocol):
    """What a bucket needs from where the objects are; see `Bucket` for what the methods do."""

    @property
    def retries(self) -> int: ...
    def prepare(self) -> None: ...
    def close(self) -> None: ...
    def list(self, prefix: str) -> list[Listed]: ...
    def get(self, key: str, limit: int) -> bytes: ...
    def get_range(self, key: str, start: int, length: int) -> bytes: ...
    def head(self, key: str) -> Listed | None: ...
    def put(self, key: str, data: bytes) -> None: ...
    def create(self, key: str, data: bytes) -> None: ...
    def delete(self, key: str) -> None: ...


class Bucket:
    """Thread-safe; every method but the constructor and `statistics` blocks, at worst for `patience`.

    All raise, besides what they say: `Unreachable` when the service does not answer, `AccessDenied` for
    credentials that are missing or wrong, `PlaceGone` when the bucket or directory is not there,
    `InvalidArgument` for a URL that does not fit the service, `IOFailure` for other refusals. Messages
    call the region by its name, or by its URL where it has none yet.
    """

    def __init__(
        self,
        url: RegionUrl,
        *,
        name: str = "",
        disk: Disk | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Asks nobody: that a bucket is there, the first request finds out."""
        self.url = url
        self.label = f"Region {name or url}"
        self._backend: Backend
        if url.scheme == "file":
            self._backend = Directory(url.prefix, self.label, disk or Disk())
        else:
            from imagefs.region.service import Service  # noqa: PLC0415 - obstore, 25 ms

            self._backend = Service(url, self.label, patience or Patience())
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._sent = self._received = 0

    def __repr__(self) -> str:
        return f"<Bucket {self.url} {self.statistics()}>"

    def prepare(self) -> None:
        """For a region that is new: makes a directory where its parent is there. Buckets are not made."""
        self._backend.prepare()

    def close(self) -> None:
        """Requests under way are not tried again, new ones once."""
        self._backend.close()

    def list(self, prefix: str = "") -> list[Listed]:
        """All objects below `prefix`, which is empty or ends with a slash."""
        listed = self._backend.list(prefix)
        self._count("list")
        return listed

    def get(self, key: str, *, limit: int = MAX_OBJECT) -> bytes:
        """A whole object. `NotFound` without it, `Corrupt` if it is larger than `limit` bytes."""
        data = self._backend.get(key, limit)
        self._count("get", received=len(data))
        return data

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly these bytes. `NotFound` without the object, `Corrupt` if it is too short."""
        if length == 0:
            return b""
        data = self._backend.get_range(key, start, length)
        self._count("get", received=len(data))
        if len(data) != length:
            raise Corrupt(f"{key} in {self.label} is shorter than it should be")
        return data

    def head(self, key: str) -> Listed | None:
        """Size and time of an object, None without it (or, at some services, without the bucket)."""
        listed = self._backend.head(key)
        self._count("head")
        return listed

    def put(self, key: str, data: bytes) -> None:
        """Makes an object hold `data`, whatever was there; whole or not at all. `NoSpace`."""
        self._backend.put(key, data)
        self._count("put", sent=len(data))

    def create(self, key: str, data: bytes) -> None:
        """Like `put` for an object that is not there; `Exists` if it is.

        Of several who create one, one succeeds, and knows it though answers were lost on the way; only
        after `Unreachable` it may be there or not. But some services (rclone's) do not know the condition
        and let the last one win: who cannot bear that takes a lease first.
        """
        self._backend.create(key, data)
        self._count("put", sent=len(data))

    def delete(self, key: str) -> None:
        """Afterwards the object is not there; it need not have been."""
        self._backend.delete(key)
        self._count("delete")

    def statistics(self) -> BucketStatistics:
        with self._lock:
            return BucketStatistics(
                dict(self._requests), self._backend.retries, self._sent, self._received
            )

    def _count(self, kind: str, *, sent: int = 0, received: int = 0) -> None:
        with self._lock:
            self._requests[kind] += 1
            self._sent += sent
            self._received += received
