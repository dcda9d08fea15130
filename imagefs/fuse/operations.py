"""pyfuse3's request handlers: each turns one request into one step of the vfs and back.

Handlers are written as plain functions and made asynchronous by `_handler`, the one place
that waits and maps errors. A handler may run several times for one request, because a step
that is not ready is taken again: translation must not change anything.

`flush` and `poll` are missing on purpose: their first ENOSYS makes the kernel stop asking. It
asks for `access` only where it does not check rights itself.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext, SetattrFields, StatvfsData

from imagefs.errors import Busy, ImagefsError, NoAttribute, NotReady, NotSupported
from imagefs.fuse.conversion import absent, attribute_change, attributes, caller, statistics
from imagefs.fuse.steps import Steps
from imagefs.model import NodeId
from imagefs.vfs import FileHandle, SyncPoint, Vfs
from imagefs.vfs.node import tree_of

PROCESS_ATTRIBUTE = b"user.imagefs.process"
"""Extended attribute of the mount's root: the process that serves it."""

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


def _changing(
    function: Callable[Concatenate[FuseOperations, P], T],
) -> Callable[Concatenate[FuseOperations, P], Coroutine[Any, Any, T]]:
    """Make a handler of a step that may change something; see `next_change`."""

    def change(self: FuseOperations, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result = function(self, *args, **kwargs)
        self.changed()
        return result

    functools.update_wrapper(change, function)
    return _handler(change)


def _handler(
    function: Callable[Concatenate[FuseOperations, P], T],
) -> Callable[Concatenate[FuseOperations, P], Coroutine[Any, Any, T]]:
    """Make a handler that waits for what the step needs and raises nothing but FUSEError."""

    async def handle(self: FuseOperations, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            try:
                return function(self, *args, **kwargs)
            except (NotReady, Busy) as found:
                obstacle = found
            return await self.steps.go_on(obstacle, function, self, *args, **kwargs)
        except Exception as error:
            raise self.answer(function.__name__, error) from error

    functools.update_wrapper(handle, function)
    return handle


class FuseOperations(pyfuse3.Operations):
    """The vfs as pyfuse3 wants it; belongs to the loop's thread.

    `failures` counts errors that are bugs: they were logged and answered with EIO.
    """

    supports_dot_lookup = False

    def __init__(
        self, vfs: Vfs, steps: Steps, *, acl: bool = False, writeback_cache: bool = False
    ) -> None:
        """`acl` is for mounts where the kernel enforces modes, because then it asks for ACLs."""
        super().__init__()
        self.steps = steps
        self.failures = 0
        self._change_awaited: trio.Event | None = None
        self.enable_acl = acl
        self.enable_writeback_cache = writeback_cache
        self._vfs = vfs

    async def next_change(self) -> None:
        """Return after the next request that may have changed something."""
        self._change_awaited = trio.Event()
        try:
            await self._change_awaited.wait()
        finally:
            self._change_awaited = None

    def changed(self) -> None:
        """Something may have changed."""
        if self._change_awaited is not None:
            self._change_awaited.set()

    def answer(self, operation: str, error: Exception) -> FUSEError:
        """What the kernel is told about an error."""
        if isinstance(error, ImagefsError):
            if error.errno in _TELLING:
                log.info("%s: %s", operation, error)
            elif error.errno in _ALARMING:
                log.error("%s: %s", operation, error)
            return FUSEError(error.errno)
        self.unexpected(operation, error)
        return FUSEError(errno.EIO)

    def unexpected(self, operation: str, error: Exception) -> None:
        """Log and count a bug."""
        self.failures += 1
        log.error("Operation %s failed unexpectedly", operation, exc_info=error)

    # -- names and attributes -----------------------------------------------------------

    @_handler
    def lookup(self, parent: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        entry = self._vfs.lookup(NodeId(parent), name, caller(ctx))
        if not tree_of(NodeId(parent)):
            self.changed()  # a tree may be in use from now on that has to be watched
        return _ABSENT if entry is None else attributes(entry)

    async def forget(self, pairs: Sequence[tuple[int, int]]) -> None:
        try:
            self._vfs.forget([(NodeId(node), count) for node, count in pairs])
            self.changed()
        except Exception as error:  # noqa: BLE001 - the kernel waits for no answer
            self.answer("forget", error)

    @_handler
    def getattr(self, node: int, ctx: RequestContext) -> EntryAttributes:
        return attributes(self._vfs.getattr(NodeId(node)))

    @_changing
    def setattr(
        self,
        node: int,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        change = attribute_change(attr, fields)
        handle = None if fh is None else FileHandle(fh)
        return attributes(self._vfs.setattr(NodeId(node), change, handle, caller(ctx)))

    @_handler
    def access(self, node: int, mode: int, ctx: RequestContext) -> bool:
        return self._vfs.access(NodeId(node), mode)

    @_handler
    def readlink(self, node: int, ctx: RequestContext) -> bytes:
        return self._vfs.readlink(NodeId(node))

    @_handler
    def statfs(self, ctx: RequestContext) -> StatvfsData:
        return statistics(self._vfs.statfs(NodeId(pyfuse3.ROOT_INODE)))

    # -- making and removing ------------------------------------------------------------

    @_changing
    def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        return attributes(self._vfs.mknod(NodeId(parent), name, mode, rdev, caller(ctx)))

    @_changing
    def mkdir(self, parent: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        return attributes(self._vfs.mkdir(NodeId(parent), name, mode, caller(ctx)))

    @_changing
    def symlink(
        self, parent: int, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        return attributes(self._vfs.symlink(NodeId(parent), name, target, caller(ctx)))

    @_changing
    def link(
        self, node: int, new_parent: int, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        return attributes(self._vfs.link(NodeId(node), NodeId(new_parent), new_name))

    @_changing
    def unlink(self, parent: int, name: bytes, ctx: RequestContext) -> None:
        self._vfs.unlink(NodeId(parent), name)

    @_changing
    def rmdir(self, parent: int, name: bytes, ctx: RequestContext) -> None:
        self._vfs.rmdir(NodeId(parent), name)

    @_changing
    def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        self._vfs.rename(NodeId(parent), name, NodeId(new_parent), new_name, flags)

    # -- files --------------------------------------------------------------------------

    @_changing
    def create(
        self, parent: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        handle, entry = self._vfs.create(NodeId(parent), name, mode, flags, caller(ctx))
        return FileInfo(fh=handle), attributes(entry)

    @_handler
    def open(self, node: int, flags: int, ctx: RequestContext) -> FileInfo:
        # keep_cache is FileInfo's default: pages change through this mount only.
        return FileInfo(fh=self._vfs.open(NodeId(node), flags, caller(ctx)))

    @_handler
    def read(self, fh: int, offset: int, size: int) -> bytes:
        return self._vfs.read(FileHandle(fh), offset, size)

    @_changing
    def write(self, fh: int, offset: int, data: bytes) -> int:
        return self._vfs.write(FileHandle(fh), offset, data)

    @_changing
    def release(self, fh: int) -> None:
        self._vfs.release(FileHandle(fh))
        self.steps.closed()

    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._fsync(fh, await self._sync_point(fh, directory=False), directory=False)

    @_handler
    def _sync_point(self, fh: int, *, directory: bool) -> SyncPoint:
        return self._vfs.sync_point(FileHandle(fh), directory=directory)

    @_handler
    def _fsync(self, fh: int, point: SyncPoint, *, directory: bool) -> None:
        self._vfs.fsync(FileHandle(fh), point, directory=directory)

    # -- directories --------------------------------------------------------------------

    @_handler
    def opendir(self, node: int, ctx: RequestContext) -> int:
        return self._vfs.opendir(NodeId(node))

    @_changing  # as `lookup`
    def readdir(self, fh: int, start: int, token: pyfuse3.ReaddirToken) -> None:
        replied = False
        try:
            for name, entry, position in self._vfs.readdir(FileHandle(fh), start):
                if not pyfuse3.readdir_reply(token, name, attributes(entry), position):
                    return
                replied = True
                if name not in _SELF_AND_PARENT:
                    self._vfs.counted(entry.node)
        except (NotReady, ImagefsError):
            # What is in the reply has reached the kernel; it asks again for what comes next.
            if not replied:
                raise

    @_changing
    def releasedir(self, fh: int) -> None:
        self._vfs.releasedir(FileHandle(fh))

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await self._fsync(fh, await self._sync_point(fh, directory=True), directory=True)

    # -- extended attributes ------------------------------------------------------------

    @_handler
    def getxattr(self, node: int, name: bytes, ctx: RequestContext) -> bytes:
        if node == pyfuse3.ROOT_INODE and name == PROCESS_ATTRIBUTE:
            return str(os.getpid()).encode()
        try:
            return self._vfs.getxattr(NodeId(node), name)
        except NoAttribute:
            if name == _SELINUX:
                # `ls -l` asks for it at every file, unless one says that there are none.
                raise NotSupported("No SELinux labels here") from None
            raise

    @_handler
    def listxattr(self, node: int, ctx: RequestContext) -> Sequence[bytes]:
        return self._vfs.listxattr(NodeId(node), caller(ctx))

    @_changing
    def setxattr(self, node: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        self._vfs.setxattr(NodeId(node), name, value, caller(ctx))

    @_changing
    def removexattr(self, node: int, name: bytes, ctx: RequestContext) -> None:
        self._vfs.removexattr(NodeId(node), name)


_ABSENT = absent()
_SELINUX = b"security.selinux"
_SELF_AND_PARENT = (b".", b"..")

_TELLING = frozenset({errno.EINVAL, errno.EPERM, errno.EBUSY, errno.EACCES})
"""Users see a bare errno where a reason would help: it goes to the log."""

_ALARMING = frozenset({errno.EIO})
