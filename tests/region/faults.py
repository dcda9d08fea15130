"""A door to a region that fails, or lets something happen, at its N-th request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from imagefs.region.bucket import Bucket, Listed
from imagefs.region.region import Region
from tests.region.machines import Machine

_Answer = TypeVar("_Answer")


class Killed(BaseException):
    """The process is gone: nothing that it would do after this is done."""


class WatchedBucket(Bucket):
    """Counts requests. `before` is called with the number of a request before it is sent, `behind`
    when it is done; what they raise is what the request raises. Thread-safe."""

    count = 0
    before: Callable[[int], None] = staticmethod(lambda _: None)
    behind: Callable[[int], None] = staticmethod(lambda _: None)

    def __init__(self, watched: Bucket) -> None:
        super().__init__(watched.url, name="eu")
        self._counting = threading.Lock()

    def _watch(self, request: Callable[[], _Answer]) -> _Answer:
        with self._counting:
            self.count += 1
            number = self.count
        self.before(number)
        answer = request()
        self.behind(number)
        return answer

    def list(self, prefix: str = "") -> list[Listed]:
        return self._watch(lambda: super(WatchedBucket, self).list(prefix))

    def get(self, key: str, *, limit: int = 2**26) -> bytes:
        return self._watch(lambda: super(WatchedBucket, self).get(key, limit=limit))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._watch(lambda: super(WatchedBucket, self).get_range(key, start, length))

    def head(self, key: str) -> Listed | None:
        return self._watch(lambda: super(WatchedBucket, self).head(key))

    def put(self, key: str, data: bytes) -> None:
        self._watch(lambda: super(WatchedBucket, self).put(key, data))

    def create(self, key: str, data: bytes) -> None:
        self._watch(lambda: super(WatchedBucket, self).create(key, data))

    def delete(self, key: str) -> None:
        self._watch(lambda: super(WatchedBucket, self).delete(key))


def watch(machine: Machine) -> WatchedBucket:
    """Puts such a door before the region of a machine, which forgets what it knew of it."""
    bucket = WatchedBucket(machine.region._bucket)
    machine.regions.forget("eu")
    upstream = machine.regions._upstream
    assert upstream is not None
    machine.region = Region("eu", machine.url, bucket, machine.regions._tenant, upstream)
    machine.regions._regions["eu"] = machine.region
    machine.region.check()
    bucket.count = 0
    return bucket


def kill_at(bucket: WatchedBucket, number: int, *, done: bool) -> None:
    """From its `number`-th request on nothing is done any more; with `done` that one still is."""

    def strike(limit: int) -> Callable[[int], None]:
        def check(count: int) -> None:
            if count >= limit:
                raise Killed

        return check

    bucket.count = 0
    bucket.before = strike(number + 1 if done else number)
    bucket.behind = strike(number) if done else lambda _: None


def let_live(bucket: WatchedBucket) -> None:
    """Nothing fails from now on."""
    bucket.before = bucket.behind = lambda _: None
