"""One FUSE mount from mounting to unmounting.

pyfuse3 keeps the session in its module, so a process has at most one.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyfuse3
import trio

from imagefs.errors import MountError
from imagefs.fuse import connection, poll
from imagefs.fuse.kernel_mount import KernelMount
from imagefs.fuse.operations import FuseOperations

log = logging.getLogger(__name__)

TYPE = "imagefs"
"""What `findmnt` shows: file system type fuse.imagefs, source imagefs."""

_ENFORCED = frozenset({"allow_other", "default_permissions"})

_TRUSTED = frozenset({"suid", "dev"})
"""Set-user-id programs and devices work, as in any file system that root mounts. Only where
nobody but root gets in: an image may have come from a user to whom its modes were no rights."""

IDLE_TASKS = 4
"""Tasks that pyfuse3 keeps waiting for requests; more come and go with the load."""

MAX_BACKGROUND = 4096
"""Readings ahead that the kernel sends before it makes all wait. Its own 12 are taken by a dozen
readers of a region that does not answer, and then no file of this machine can be read either."""

READ_AHEAD_KB = 1024
"""The kernel's own 128 KiB cost a round trip each: 1.5 GB/s instead of 2.2. More wins nothing."""


class Session:
    """The mount of one file system. Order: `mount`, `serve`, `close`."""

    def __init__(
        self,
        operations: FuseOperations,
        mountpoint: Path,
        *,
        enforced: bool,
        trusted: bool = False,
    ) -> None:
        """With `enforced` the kernel lets everybody in as far as modes and ACLs allow; with
        `trusted`, set-user-id programs and devices have their effect."""
        self._operations = operations
        self._mountpoint = mountpoint
        self._device = 0
        self._enforced = enforced
        self._trusted = trusted
        self._kernel_mount: KernelMount | None = None
        self._options = {f"fsname={TYPE}", f"subtype={TYPE}"}
        if enforced:
            self._options |= _ENFORCED
        if trusted:
            self._options |= _TRUSTED
        self.polling = poll.ShortPolling(poll.best_window())

    def mount(self) -> None:
        """Make the mount; raises MountError."""
        poll.install(self.polling)
        if os.geteuid() == 0:
            self._mount_as_root()
        where = self._mountpoint if self._kernel_mount is None else self._kernel_mount.device
        with _captured_stderr() as said:
            try:
                pyfuse3.init(self._operations, str(where), self._options)
            except RuntimeError as error:
                reason = " ".join(said().split()) or str(error)
                raise MountError(f"Mounting at {self._mountpoint} failed: {reason}") from error

    def _mount_as_root(self) -> None:
        """Where the system lets this process; root of a container may have to go libfuse's way."""
        try:
            self._kernel_mount = KernelMount(
                self._mountpoint,
                TYPE,
                f"fuse.{TYPE}",
                enforced=self._enforced,
                trusted=self._trusted,
            )
        except PermissionError as error:
            log.info("Mounting is left to libfuse: %s", error)
        except OSError as error:
            raise MountError(f"Mounting at {self._mountpoint} failed: {error.strerror}") from error

    async def serve(self) -> None:
        """Answer requests until unmounted or `end` is called; requests under way are finished."""
        await pyfuse3.main(min_tasks=IDLE_TASKS)

    def end(self) -> None:
        """Make `serve` return soon."""
        pyfuse3.terminate()

    def close(self, *, unmount: bool = True) -> None:
        """Unmount, if nobody else did. Nothing of the session may be used any more.

        Without `unmount` the mount stays and fails loudly: for a daemon that breaks down.
        """
        mount = self._kernel_mount
        # In libfuse's order: the kernel must not wait for the device while it unmounts.
        detach = mount is not None and unmount and not mount.is_over()
        pyfuse3.close(unmount=unmount)
        if mount is not None and detach:
            mount.detach()
        poll.uninstall()

    async def look_at_itself(self) -> None:
        """Make the mount's first request: learn its device, let the kernel read more at a time."""
        # stat() asks this very file system, so the loop must not wait for it.
        status = await trio.to_thread.run_sync(self._mountpoint.stat)
        self._device = status.st_dev
        _raise_read_ahead(status.st_dev)
        _raise_background(status.st_dev)

    def abort(self) -> None:
        """Make the kernel give up on all requests, for when it waits for an answer for ever."""
        log.warning("Requests at %s can't be answered any more", self._mountpoint)
        try:
            connection.write(os.minor(self._device), "abort", "1")
        except OSError as error:
            log.warning("Aborting the mount at %s failed: %s", self._mountpoint, error)


def _raise_read_ahead(device: int) -> None:
    """Where this process may."""
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    try:
        setting.write_text(str(READ_AHEAD_KB))
    except OSError as error:
        log.debug("Read-ahead stays as it is: %s", error)


def _raise_background(device: int) -> None:
    """Where this process may."""
    try:
        connection.write(os.minor(device), "max_background", str(MAX_BACKGROUND))
    except OSError as error:
        log.debug("Requests in the background stay as few as they are: %s", error)


@contextmanager
def _captured_stderr() -> Iterator[Callable[[], str]]:
    """Collect what C code writes to standard error: libfuse gives its reasons nowhere else."""
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)

        def said() -> str:
            return os.pread(file.fileno(), 4096, 0).decode(errors="replace")

        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
