"""Carrying requests out: by the account's daemon, or here under the account's lock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from imagefs.cli import log
from imagefs.cli.place import Place
from imagefs.control.client import Client, encoded
from imagefs.control.messages import Request, Status, Writable
from imagefs.errors import Busy, NotReady, StoreError

if TYPE_CHECKING:
    from imagefs.vfs import Lifecycle

_PATIENCE = 30.0
"""Seconds to wait for another command, or for a daemon that is starting or stopping."""


class Session(Protocol):
    """Where a command's requests go."""

    def call(self, request: Request) -> Any:
        """The result of a request as plain values; raises ImagefsError."""

    def mountpoint(self) -> str | None:
        """Where the account is mounted, without symlinks; None if it is not."""

    def collect(self, reference: str) -> None:
        """Have the kernel hand over what it still keeps of files written in that image or
        instance."""

    def beside(self) -> contextlib.AbstractContextManager[Session | None]:
        """Another way to the same place, for small questions of another thread while a call of
        this one is under way; None if there is none any more."""


class _Online:
    def __init__(self, client: Client, place: Place) -> None:
        self._client = client
        self._place = place

    def call(self, request: Request) -> Any:
        return self._client.call(request)

    def mountpoint(self) -> str | None:
        mountpoint: str = self.call(Status())["mountpoint"]
        return mountpoint

    def collect(self, reference: str) -> None:
        from imagefs.cli.collecting import collect
        from imagefs.daemon.mountpoint import OUR_TYPE, mounted_type

        located = self.call(Writable(reference))
        if not located:
            return
        status = self.call(Status())
        mountpoint, pid = status["mountpoint"], status["pid"]
        if mounted_type(Path(mountpoint)) != OUR_TYPE:
            raise Busy(
                f"What programs wrote can't be collected from here: account {status['account']} is"
                f" not mounted at {mountpoint} in this mount namespace. Run this in that of its"
                f" daemon: `nsenter --preserve-credentials --user --mount --target {pid} ...`"
            )
        collect(mountpoint, located, lambda: self.call(Writable(reference)))

    @contextlib.contextmanager
    def beside(self) -> Iterator[Session | None]:
        client = Client.connect(self._place.store, self._place.account)
        if client is None:
            yield None
            return
        with client:
            yield _Online(client, self._place)


class _Offline:
    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    def call(self, request: Request) -> Any:
        import msgspec

        from imagefs.control.verbs import perform

        encoded(request)  # what a daemon could not be asked is refused here, too
        while True:
            try:
                result = perform(self._lifecycle, request)
            except NotReady as needed:
                waiting = needed
            else:
                return msgspec.to_builtins(result, builtin_types=(bytes,))
            done = waiting.work() if waiting.work is not None else None
            if waiting.finish is not None:
                waiting.finish(done)

    def mountpoint(self) -> str | None:
        return None

    def collect(self, reference: str) -> None:
        pass  # nothing is mounted

    @contextlib.contextmanager
    def beside(self) -> Iterator[Session | None]:
        yield self  # what is asked looks at single values only


@contextlib.contextmanager
def open_session(place: Place, *, create: bool = False) -> Iterator[Session]:
    """The way to the account's images; with `create`, in a new store if there is none."""
    if not (place.store / "format").exists():
        if not create:
            raise StoreError(
                f"There is no store at {place.store}: `imagefs mount`, `imagefs import` or"
                " `imagefs region add` makes one; --store or IMAGEFS_STORE names another"
            )
        from imagefs.daemon.assembly import create_store

        log.hold()
        create_store(place.store)
    client = Client.connect(place.store, place.account)
    if client is not None:
        with client:
            yield _Online(client, place)
        return
    with _offline_or_late(place) as session:
        yield session


@contextlib.contextmanager
def _offline_or_late(place: Place) -> Iterator[Session]:
    """Work under the lock; or with a daemon, should one come up while waiting for the lock."""
    from imagefs.daemon import assembly
    from imagefs.daemon.lock import AccountLock

    deadline = time.monotonic() + _PATIENCE
    with AccountLock(place.store, place.account) as lock:
        while not lock.try_take():
            client = Client.connect(place.store, place.account)
            if client is not None:
                with client:
                    yield _Online(client, place)
                return
            if time.monotonic() > deadline:
                lock.take()
            time.sleep(0.01)
        log.hold()
        with assembly.lifecycle(place.store, place.account) as (lifecycle, _store):
            yield _Offline(lifecycle)
