"""One process at a time may change an account's images and instances.

The lock is a flock, so it ends with the process that holds it, however that ends. The file's
content says who took it last: it is believed only while the lock is held.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from imagefs.control.address import lock_path, run_directory
from imagefs.errors import Busy

_INTERVAL = 0.01


class Holder(msgspec.Struct, frozen=True):
    """Who holds a lock; `mountpoint` is None for a command that works without a daemon."""

    pid: int
    mountpoint: str | None = None
    socket: str | None = None


class AccountLock:
    """The lock of one account of a store. Use as a context manager around `take`."""

    def __init__(self, store: Path, account: str) -> None:
        self._account = account
        self._path = lock_path(store, account)
        self._directory = run_directory(store)
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def take(self, mountpoint: str | None = None, socket: str | None = None) -> None:
        """Become the holder; raises Busy with the present holder's name."""
        if not self.try_take(mountpoint, socket):
            raise Busy(self._held())

    def take_in_time(
        self, mountpoint: str, socket: str, seconds: float, stays: Callable[[Holder], bool]
    ) -> None:
        """Like `take`, but wait for a holder that will soon let go: one that `stays` denies."""
        deadline = time.monotonic() + seconds
        while not self.try_take(mountpoint, socket):
            holder = self.holder()
            if time.monotonic() > deadline or (holder is not None and stays(holder)):
                raise Busy(self._held())
            time.sleep(_INTERVAL)

    def try_take(self, mountpoint: str | None = None, socket: str | None = None) -> bool:
        """Become the holder unless somebody else is."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        os.ftruncate(fd, 0)
        os.pwrite(fd, msgspec.json.encode(Holder(os.getpid(), mountpoint, socket)), 0)
        return True

    def holder(self) -> Holder | None:
        """Who took the lock last."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Holder)
        except (OSError, msgspec.MsgspecError):
            return None

    def _held(self) -> str:
        holder = self.holder()
        if holder is None:
            return f"Account {self._account} is in use by another process: try again"
        if holder.mountpoint is None:
            return (
                f"Account {self._account} is in use by another command (process {holder.pid}):"
                " try again when that is done"
            )
        return (
            f"Account {self._account} is mounted at {holder.mountpoint} already (process"
            f" {holder.pid}): use that, or `imagefs umount {holder.mountpoint}` first"
        )
