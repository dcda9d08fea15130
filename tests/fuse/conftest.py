"""A mount of the tiny file system, served by this process while another one uses it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
import trio

from imagefs.fuse.operations import FuseOperations
from imagefs.fuse.poll import ShortPolling
from imagefs.fuse.session import Session
from imagefs.fuse.steps import Steps
from imagefs.vfs import Vfs
from tests.fuse.tiny import TinyFilesystem

T = TypeVar("T")


class Mounted:
    """A mounted tiny file system. What touches the mount must run in a worker thread."""

    def __init__(self, path: Path, polling: bool) -> None:
        self.path = path
        self.filesystem = TinyFilesystem()
        self.steps = Steps()
        self.operations = FuseOperations(cast(Vfs, self.filesystem), self.steps)
        self.session = Session(self.operations, path, enforced=False)
        if not polling:
            self.session.polling = ShortPolling(window_ns=0)

    async def use(self, function: Callable[..., T], *arguments: Any) -> T:
        """What a program gets from the mount."""
        return await trio.to_thread.run_sync(function, *arguments)


@asynccontextmanager
async def mounted(path: Path, *, polling: bool) -> AsyncIterator[Mounted]:
    mount = Mounted(path, polling)
    mount.session.mount()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.session.serve)
            yield mount
            mount.session.end()
    finally:
        mount.session.close()


@pytest.fixture(params=[True, False], ids=["polling", "sleeping"])
async def mount(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Mounted]:
    path = tmp_path / "mnt"
    path.mkdir()
    async with mounted(path, polling=request.param) as mount:
        yield mount
    assert mount.operations.failures == 0
    shutil.rmtree(path)
