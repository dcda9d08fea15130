"""A vfs over a real store in a temporary directory, driven by paths and without a mount."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from operator import attrgetter
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest

from imagefs.catalog import Catalog
from imagefs.disk import Disk
from imagefs.errors import NotFound, NotReady
from imagefs.model import AttributeChange, Ino, NodeId, ObjectId, TreeNumber
from imagefs.overlay.overlay import StoredContent
from imagefs.store import Store
from imagefs.vfs import (
    Caller,
    Entry,
    FileHandle,
    Forgotten,
    MountOptions,
    Superseded,
    Vfs,
    Withdrawn,
)
from imagefs.vfs.inspection import Inspection
from imagefs.vfs.verify import Problem, Verification

P = ParamSpec("P")
T = TypeVar("T")

ROOT = NodeId(1)
ANN = Caller(uid=0, gid=0, pid=1, umask=0o022)


def run(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Take a step as the offline command does: do what it needs in place."""
    while True:
        try:
            return step(*args, **kwargs)
        except NotReady as needed:
            if needed.work is None:
                raise
            result = needed.work()
            if needed.finish is not None:
                needed.finish(result)


class View:
    """One account's view, by path, as a program would use it."""

    def __init__(
        self,
        directory: Path,
        options: MountOptions,
        *,
        cold: bool = False,
        disk: Disk | None = None,
        account: str = "ann",
    ) -> None:
        self.directory = directory
        self.options = options
        self.account = account
        self.disk = disk or Disk()
        self.now = 1_700_000_000_000_000_000
        self.stale: list[Superseded] = []
        self.withdrawn: list[Withdrawn] = []
        self.cold = cold
        self.warm: set[ObjectId] = set()
        self._ticks = count()
        self.open()

    def fetch(self, oid: ObjectId) -> bytes:
        """Stored objects as on a cold machine: the first attempt of every step must wait."""
        if oid not in self.warm:
            raise NotReady(("cold", oid), lambda: self.warm.add(oid))
        return self.store.get(oid)

    def run(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Take a step; what it had to wait for is cold again afterwards."""
        try:
            return run(step, *args, **kwargs)
        finally:
            self.warm.clear()

    def open(self) -> None:
        if not (self.directory / "format").exists():
            Store.create(self.directory, self.disk).close()
        self.store = Store.open(self.directory, self.disk)
        if self.cold:
            self.store.get_nowait = self.fetch  # type: ignore[method-assign]
        self.catalog = Catalog(self.directory / "catalog.db", self.disk)
        self.vfs = Vfs(self.store, self.catalog, self.account, self.options, self.clock, self.disk)
        self.vfs.on_stale = self.told

    def told(self, forgotten: Forgotten) -> None:
        if isinstance(forgotten, Withdrawn):
            self.withdrawn.append(forgotten)
        else:
            self.stale.append(forgotten)

    def clock(self) -> int:
        return self.now + next(self._ticks)

    def close(self) -> None:
        self.vfs.close()
        self.catalog.close()
        self.store.close()

    def remount(self) -> None:
        self.close()
        self.open()

    # -- paths --------------------------------------------------------------------------

    def entry(self, path: str) -> Entry:
        entry = self.run(self.vfs.getattr, ROOT)
        for name in path.strip("/").split("/"):
            if name:
                found = self.run(self.vfs.lookup, entry.node, name.encode(), ANN)
                if found is None:
                    raise NotFound(path)
                entry = found
        return entry

    def node(self, path: str) -> NodeId:
        return self.entry(path).node

    def at(self, path: str) -> tuple[NodeId, bytes]:
        parent, _, name = path.strip("/").rpartition("/")
        return self.node(parent), name.encode()

    def exists(self, path: str) -> bool:
        try:
            self.entry(path)
        except NotFound:
            return False
        return True

    # -- operations ---------------------------------------------------------------------

    def mkdir(self, path: str, mode: int = 0o755) -> Entry:
        return self.run(self.vfs.mkdir, *self.at(path), mode, ANN)

    def rmdir(self, path: str) -> None:
        self.run(self.vfs.rmdir, *self.at(path))

    def unlink(self, path: str) -> None:
        self.run(self.vfs.unlink, *self.at(path))

    def symlink(self, target: str, path: str) -> Entry:
        return self.run(self.vfs.symlink, *self.at(path), target.encode(), ANN)

    def rename(self, old: str, new: str, flags: int = 0) -> None:
        self.run(self.vfs.rename, *self.at(old), *self.at(new), flags)

    def link(self, old: str, new: str) -> None:
        self.run(self.vfs.link, self.node(old), *self.at(new))

    def create(self, path: str, mode: int = 0o644) -> FileHandle:
        fh, _ = self.run(self.vfs.create, *self.at(path), mode, os.O_RDWR, ANN)
        return fh

    def open_file(self, path: str, flags: int = os.O_RDONLY) -> FileHandle:
        return self.run(self.vfs.open, self.node(path), flags, ANN)

    def write(self, path: str, data: bytes, offset: int = 0) -> None:
        fh = self.open_file(path, os.O_RDWR) if self.exists(path) else self.create(path)
        assert self.run(self.vfs.write, fh, offset, data) == len(data)
        self.run(self.vfs.release, fh)

    def fsync(self, path: str) -> None:
        """Sync a file or a directory."""
        if stat.S_ISDIR(self.entry(path).attributes.mode):
            fh = self.run(self.vfs.opendir, self.node(path))
            self.sync_handle(fh, directory=True)
            self.run(self.vfs.releasedir, fh)
        else:
            fh = self.open_file(path)
            self.sync_handle(fh)
            self.run(self.vfs.release, fh)

    def sync_handle(self, fh: FileHandle, *, directory: bool = False) -> None:
        point = self.vfs.sync_point(fh, directory=directory)
        self.run(self.vfs.fsync, fh, point, directory=directory)

    def read(self, path: str, size: int = 1 << 20) -> bytes:
        fh = self.open_file(path)
        try:
            return self.run(self.vfs.read, fh, 0, size)
        finally:
            self.run(self.vfs.release, fh)

    def ls(self, path: str) -> list[str]:
        fh = self.run(self.vfs.opendir, self.node(path))
        names = [name.decode() for name, _, _ in self.run(lambda: list(self.vfs.readdir(fh, 0)))]
        self.run(self.vfs.releasedir, fh)
        assert names[:2] == [".", ".."]
        return names[2:]

    def chmod(self, path: str, mode: int) -> Entry:
        return self.run(self.vfs.setattr, self.node(path), AttributeChange(mode=mode), None, ANN)

    def truncate(self, path: str, size: int) -> Entry:
        return self.run(self.vfs.setattr, self.node(path), AttributeChange(size=size), None, ANN)

    def mode(self, path: str) -> int:
        return stat.S_IMODE(self.entry(path).attributes.mode)

    def attribute(self, path: str, name: str) -> str:
        return self.run(
            self.vfs.getxattr, self.node(path), f"user.imagefs.{name}".encode()
        ).decode()

    def execute(self, *statements: str) -> None:
        """Change the catalog behind everybody's back."""
        with contextlib.closing(
            sqlite3.connect(self.directory / "catalog.db", isolation_level=None)
        ) as connection:
            for statement in statements:
                connection.execute(statement)

    def tick(self) -> None:
        for step in self.vfs.tick():
            self.run(step)

    def settle(self) -> None:
        """Half a minute passes without changes."""
        for _ in range(2):
            self.now += 31 * 1_000_000_000
            self.tick()

    def problems(self) -> list[Problem]:
        """What `imagefs verify` would list."""
        overlays = Asked(self)
        verification = Verification(
            self.store, self.catalog, self.disk, self.account, overlays, lambda entries, size: None
        )
        return list(verification.run())

    def lifecycle(self, verb: str, *args: Any, **named: Any) -> Any:
        return self.run(attrgetter(verb)(self.vfs.lifecycle), *args, **named)


class Asked:
    """Answers for the overlays of a view, as a daemon would."""

    def __init__(self, view: View) -> None:
        self._view = view

    def check(self, number: int) -> list[str]:
        return self._view.run(self._inspection.check, TreeNumber(number))

    def contents(self, number: int, after: int) -> Sequence[StoredContent]:
        return self._view.run(self._inspection.contents, TreeNumber(number), after)

    def path(self, number: int, ino: int) -> bytes:
        return self._view.run(self._inspection.path, TreeNumber(number), Ino(ino))

    @property
    def _inspection(self) -> Inspection:
        return self._view.vfs.lifecycle.inspection


@pytest.fixture(params=["warm", "cold"])
def view(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[View]:
    """A fresh view of a root user's mount; cold, every step waits for every stored object."""
    options = MountOptions(uid=0, gid=0, enforced=True)
    view = View(tmp_path / "store", options, cold=request.param == "cold")
    yield view
    if not request.node.get_closest_marker("damaged"):
        assert view.problems() == []
    view.close()


@pytest.fixture
def base(view: View) -> View:
    """A view with a sealed image `base`: a directory `etc` with two files, `big`, a link."""
    view.mkdir("images/base")
    view.mkdir("images/base/etc")
    view.write("images/base/etc/hosts", b"127.0.0.1 localhost\n")
    view.write("images/base/etc/motd", b"hello\n")
    view.write("images/base/big", b"0123456789abcdef" * 50_000)
    view.link("images/base/etc/motd", "images/base/motd")
    view.lifecycle("seal", "base")
    return view
