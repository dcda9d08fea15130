"""One daemon from start to stop.

Start: checks, store, lock, vfs, mount, socket, report. Stop (signal): no new commands, the
kernel is told of what is still queued while requests are served, then requests under way are
finished and the mount goes; or (unmounted by somebody) the loop ends by itself. In both
cases the vfs and the store are closed last, then the lock is let go.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import pwd
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from socket import socket

import trio

from imagefs.control.address import listen, socket_path
from imagefs.control.server import ControlServer
from imagefs.daemon import assembly, background, mountpoint, process
from imagefs.daemon.lock import AccountLock, Holder
from imagefs.daemon.settings import MountSettings
from imagefs.daemon.status import Status
from imagefs.errors import InvalidArgument, NotPermitted
from imagefs.fuse.invalidations import Invalidations
from imagefs.fuse.operations import FuseOperations
from imagefs.fuse.session import Session
from imagefs.fuse.steps import Steps
from imagefs.vfs import MountOptions, Vfs

log = logging.getLogger(__name__)

_LOCK_SECONDS = 30.0
"""How long a start waits for a daemon that is about to end, or for a command."""

_DRAIN_SECONDS = 5.0
"""How long a stop waits for the kernel to hear of what is queued for it."""

_JOIN_SECONDS = 2.0
"""How long it waits, after that, for the thread that tells the kernel."""

_STOPPING = (signal.SIGTERM, signal.SIGINT)


def serve(settings: MountSettings, ready: Callable[[], None], open_log: Callable[[], None]) -> None:
    """Mount and serve until unmounted or told to stop.

    `open_log` is called once there is a store, `ready` once mounted. Raises ImagefsError
    when the mount cannot be made.
    """
    place, store = settings.mountpoint_path, settings.store_path
    options = mount_options(settings)
    mountpoint.check_fuse(allow_other=settings.allow_other)
    mountpoint.check_place(place, store)
    assembly.create_store(store)
    with AccountLock(store, settings.account) as lock:
        socket_name = str(socket_path(store, settings.account))
        lock.take_in_time(settings.mountpoint, socket_name, _LOCK_SECONDS, _is_mounted)
        open_log()
        mountpoint.prepare(place)
        with assembly.vfs(store, settings.account, options, settings.region) as vfs:
            process.tune()
            trio.run(_Daemon(settings, options, vfs).run, ready)


def _is_mounted(holder: Holder) -> bool:
    """Whether the holder of a lock is a daemon that serves its mount."""
    if holder.mountpoint is None:
        return False
    return mountpoint.mounted_type(Path(holder.mountpoint)) == mountpoint.OUR_TYPE


def mount_options(settings: MountSettings) -> MountOptions:
    """What the vfs needs to know of a mount; raises NotPermitted, InvalidArgument."""
    uid, gid = os.getuid(), os.getgid()
    if settings.owner is not None:
        if os.geteuid() != 0:
            raise NotPermitted("--owner is for root only")
        try:
            entry = pwd.getpwnam(settings.owner)
        except KeyError:
            raise InvalidArgument(f"There is no user {settings.owner}") from None
        uid, gid = entry.pw_uid, entry.pw_gid
    return MountOptions(
        uid=uid,
        gid=gid,
        enforced=os.geteuid() == 0 or settings.allow_other,
        open_to_all=settings.allow_other,
        seal_after=settings.seal_after,
        rest_after=settings.rest_after,
    )


class _Daemon:
    """The running parts of one mount."""

    def __init__(self, settings: MountSettings, options: MountOptions, vfs: Vfs) -> None:
        self._settings = settings
        self._vfs = vfs
        self._steps = Steps()
        self._operations = FuseOperations(vfs, self._steps, acl=options.enforced)
        for_root_only = options.enforced and not options.open_to_all and options.uid == 0
        self._session = Session(
            self._operations,
            settings.mountpoint_path,
            enforced=options.enforced,
            trusted=for_root_only,
        )
        self._invalidations = Invalidations()
        self._vfs.on_stale = self._invalidations.add
        self._status = Status(settings, vfs, self._operations, self._session)
        self._control = ControlServer(
            vfs.lifecycle, self._steps, self._settled, self._status.report
        )
        self._socket = socket_path(settings.store_path, settings.account)
        self._accepting = trio.CancelScope()

    async def run(self, ready: Callable[[], None]) -> None:
        """Mount, serve, unmount."""
        with trio.open_signal_receiver(*_STOPPING, signal.SIGUSR1) as signals:
            faulthandler.register(signal.SIGUSR1, chain=True)
            with contextlib.closing(listen(self._socket)) as listening:
                try:
                    await self._mounted(listening, signals, ready)
                finally:
                    self._socket.unlink(missing_ok=True)
            faulthandler.unregister(signal.SIGUSR1)
        log.info("Ended the mount at %s", self._settings.mountpoint)

    async def _mounted(
        self, listening: socket, signals: AsyncIterator[int], ready: Callable[[], None]
    ) -> None:
        self._session.mount()
        self._invalidations.start()
        try:
            await self._serve(listening, signals, ready)
        except BaseException:
            # What looks like an empty directory must not take the place of somebody's data.
            self._end_session(unmount=False)
            raise
        self._end_session(unmount=True)

    def _end_session(self, *, unmount: bool) -> None:
        if not self._invalidations.stop(_JOIN_SECONDS):
            self._session.abort()
            self._invalidations.stop(_JOIN_SECONDS)
        self._session.close(unmount=unmount)

    async def _serve(
        self, listening: socket, signals: AsyncIterator[int], ready: Callable[[], None]
    ) -> None:
        """Serve requests; everything else ends with that."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._commands, listening)
            nursery.start_soon(self._heed, signals)
            nursery.start_soon(background.run, self._vfs, self._operations, self._steps)
            nursery.start_soon(self._welcome, ready)
            await self._session.serve()
            self._vfs.lifecycle.regions.cancel()
            nursery.cancel_scope.cancel()

    async def _commands(self, listening: socket) -> None:
        """Answer commands until the daemon stops; those that come later find nobody."""
        with self._accepting:
            await self._control.serve(listening)
        self._socket.unlink(missing_ok=True)

    async def _welcome(self, ready: Callable[[], None]) -> None:
        """Say that the mount works, once it has answered its first request."""
        await self._session.look_at_itself()
        log.info("Mounted account %s at %s", self._settings.account, self._settings.mountpoint)
        ready()

    async def _heed(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGUSR1:
                log.info("State of the daemon\n%s", self._status.stacks())
                continue
            log.info("Stopping on %s", signal.Signals(number).name)
            break
        self._accepting.cancel()
        self._vfs.lifecycle.regions.cancel()
        # The thread that tells the kernel can block on a request of a program, which then
        # must be answered: so this happens while requests are served.
        with trio.move_on_after(_DRAIN_SECONDS):
            await self._invalidations.drain()
        self._session.end()

    async def _settled(self) -> None:
        """What a command did is visible in the mount."""
        self._operations.changed()
        await self._invalidations.drain()
