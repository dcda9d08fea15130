"""The volumes in use, the trees they share, and turning a volume into a stored tree.

All clones of one image share one `Tree`. A volume whose row is gone is superseded: it stays
while the kernel knows any of its inodes and its overlay is removed afterwards. An overlay
directory that no row names is garbage from a crash and is removed at the next start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from imagefs.catalog import Catalog, TreeRow
from imagefs.catalog.rows import Sealed
from imagefs.disk import Disk
from imagefs.errors import Corrupt, IOFailure, NoSpace, NotReady, Stale
from imagefs.format.directory import Entry as TreeEntry
from imagefs.model import ROOT_INO, Ino, ObjectId, TreeNumber
from imagefs.overlay import Overlay
from imagefs.store import Store
from imagefs.tree import Tree, build
from imagefs.tree.pages import Pages
from imagefs.vfs.copying import Copying
from imagefs.vfs.volume import Volume

T = TypeVar("T")

OVERLAYS = "overlays"
_RECENT_TREES = 4
_MAX_RESTING = 64
_LOOK_EVERY = 64
_EMPTY_ROOT_MODE = 0o40755


class Volumes:
    """Every volume of one account that is in use."""

    def __init__(
        self, store: Store, catalog: Catalog, account: str, disk: Disk, clock: Callable[[], int]
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._disk = disk
        self._clock = clock
        self._directory = store.path / OVERLAYS / account
        self._volumes: dict[TreeNumber, Volume] = {}
        self._looks = 0
        self._trees: WeakValueDictionary[ObjectId, Tree] = WeakValueDictionary()
        # Shared, because images share directories and memory is bounded once for all.
        self._pages = Pages(store.get_nowait)
        self._recent: deque[Tree] = deque(maxlen=_RECENT_TREES)
        self._empty: ObjectId | None = None
        self._garbage = self._leftovers(account)
        self._clear_unused_numbers()

    def __repr__(self) -> str:
        return f"<Volumes: {len(self._volumes)} in use, {len(self._garbage)} to remove>"

    def __iter__(self) -> Iterator[Volume]:
        return iter(list(self._volumes.values()))

    def __getitem__(self, number: TreeNumber) -> Volume:
        try:
            volume = self._volumes[number]
        except KeyError:
            raise Stale(f"Tree {number} is not in use") from None
        if volume.withdrawn:
            volume.require_shared()
        return volume

    def in_use(self, number: TreeNumber) -> Volume | None:
        """The volume of that number if it is in use."""
        return self._volumes.get(number)

    def open(self, row: TreeRow) -> Volume:
        """The volume for a row of the catalog."""
        volume = self._volumes.get(row.number)
        if volume is None:
            tree = self.tree(row.manifest)
            overlay = Overlay(
                self._path(row.number), tree, self._store.get_nowait, self._disk, self._clock
            )
            volume = self._volumes[row.number] = Volume(row, overlay, self._clock())
            volume.superseded = row.deleted is not None
            self._limit_open()
        elif volume.row is not row:
            volume.row = row
            volume.withdrawn = False
            volume.successor = None
            volume.superseded = row.deleted is not None
        return volume

    def _limit_open(self) -> None:
        """Close files of overlays at rest when many are open: descriptors are limited."""
        self._looks += 1
        if self._looks % _LOOK_EVERY:
            return
        resting = [volume for volume in self._volumes.values() if volume.may_rest]
        for volume in sorted(resting, key=lambda volume: volume.last_use)[:-_MAX_RESTING]:
            volume.overlay.close()

    def tree(self, manifest: ObjectId | None) -> Tree:
        """The stored tree of a manifest, for the loop's thread; None is the empty tree.

        Its manifest is in memory then and stays there for the rest of the step: a step that
        is to change the catalog calls this first, because nothing after a change may raise
        NotReady.
        """
        if manifest is None:
            manifest = self._empty_manifest()
        tree = self._trees.get(manifest)
        if tree is None:
            tree = Tree(self._store.get_nowait, manifest, self._pages)
            self._trees[manifest] = tree
        _ = tree.manifest  # may raise NotReady, better here than later
        self._recent.append(tree)
        return tree

    def supersede(self, volume: Volume, *, remove: bool, successor: TreeRow | None = None) -> None:
        """No name stands for this volume any more; `remove` says that its overlay may go.

        `successor` is what its name stands for now.
        """
        volume.superseded = True
        volume.successor = successor
        volume.committing = None
        if remove:
            self._garbage.add(self._path(volume.row.number))
        self.release(volume)

    def release(self, volume: Volume) -> None:
        """Forget a volume that nothing holds and whose changes are durable.

        One with changes that are not is released when they are: closing it would wait for
        the disk.
        """
        durable = volume.superseded or volume.synced >= volume.changes
        if volume.idle and durable and self._volumes.get(volume.row.number) is volume:
            if self._path(volume.row.number) in self._garbage:
                volume.overlay.abandon()
            else:
                volume.overlay.close()
            del self._volumes[volume.row.number]

    def freeing(self, action: Callable[[], T]) -> T:
        """Do what frees space; on a full disk the store's reserve makes that possible."""
        try:
            return action()
        except NoSpace:
            if not self._store.release_reserve():
                raise
            return action()

    def chores(self) -> list[Callable[[], None]]:
        """Steps that remove overlays nobody needs."""
        numbers = {str(number) for number in self._volumes}
        ready = [path for path in self._garbage if path.name not in numbers]
        return [partial(self._remove, path) for path in ready]

    @property
    def name_changes(self) -> int:
        """How many changes of names above the trees there were: a point to ask durability of."""
        return self._catalog.changes

    @property
    def names_durable(self) -> bool:
        """Whether all of them survive power loss."""
        return self._catalog.synced >= self._catalog.changes

    def require_names_durable(self, target: int) -> None:
        """Raise NotReady with the work that makes the first `target` of them durable."""
        if self._catalog.synced < target:
            raise NotReady(("sync", "names"), self._catalog.sync)

    def commit(
        self,
        volume: Volume,
        purpose: str,
        done: Callable[[Sealed], None],
        copying: Callable[[], Copying] | None = None,
    ) -> NotReady:
        """The work that stores a volume's tree; `done` gets the result on the loop's thread.

        Changes wait until it is over; reading goes on. To be raised by a step. A commit for
        another purpose is waited for first, because its failure is not this one's. Where
        `copying` makes a copy, what is stored is copied too, and `done` follows when that is
        complete.
        """
        key: Hashable = ("commit", volume.row.number, purpose)
        if volume.committing is not None:
            # Under the same key this joins the work that goes on; both get its answer.
            own = volume.committing == key
            return NotReady(volume.committing, _joined if own else None)
        copy = copying() if copying is not None else None
        volume.committing = key
        work = partial(self._store_tree, volume, copy)
        finish = partial(_finish, volume, copy, done)
        remote = bool(volume.row.region)
        return NotReady(key, work, finish, remote=remote, lasting=copy is not None)

    def check(self, volume: Volume, done: Callable[[list[str]], None]) -> NotReady:
        """The work that looks for contradictions in a volume's overlay; like `commit`."""
        key: Hashable = ("check", volume.row.number)
        if volume.committing is not None and volume.committing != key:
            return NotReady(volume.committing, None)
        volume.committing = key

        def finish(problems: list[str] | Exception) -> None:
            volume.committing = None
            self.release(volume)
            if isinstance(problems, Exception):
                raise problems
            done(problems)

        return NotReady(key, partial(self._problems, volume), finish)

    def close(self) -> None:
        """Close every overlay; what was changed stays. One that fails keeps no other from it."""
        with ExitStack() as closing:
            for volume in self._volumes.values():
                closing.callback(volume.overlay.close)
            self._volumes.clear()

    # -- inside -------------------------------------------------------------------------

    def _path(self, number: TreeNumber) -> Path:
        return self._directory / str(number)

    def _store_tree(
        self, volume: Volume, copying: Copying | None
    ) -> tuple[Sealed, Any] | Exception:
        """Commit in a worker thread; failures are results, so that `_finish` always runs."""
        try:
            with self._store.writer() as writer:
                manifest, bookkeeping = volume.overlay.commit(writer, self._store.get)
                writer.finish()
                stored = writer.stored_bytes
            root = Tree(self._store.get, manifest).entry(ROOT_INO)
            sealed = Sealed(manifest, root.count, root.size, stored)
            if copying is not None:
                copying.run(sealed)
        except Exception as error:  # noqa: BLE001 - handed on to `_finish`, which raises it
            return error
        return sealed, bookkeeping

    def _problems(self, volume: Volume) -> list[str] | Exception:
        """Check in a worker thread; as with commits, failures are results."""
        try:
            return volume.overlay.check(self._store.get)
        except (Corrupt, IOFailure) as error:
            return [str(error)]
        except Exception as error:  # noqa: BLE001 - handed on to `finish`, which raises it
            return error

    def _empty_manifest(self) -> ObjectId:
        if self._empty is None:
            with self._store.writer() as writer:
                put = partial(writer.put, metadata=True)
                summary = build.write_directory(put, [])
                root = TreeEntry(
                    name=b"", mode=_EMPTY_ROOT_MODE, uid=0, gid=0, mtime=0, size=summary.size,
                    count=summary.count, ref=summary.ref, links=summary.links, xattrs=None,
                )  # fmt: skip
                self._empty = build.write_manifest(put, root, [])
                writer.finish()
        return self._empty

    def _leftovers(self, account: str) -> set[Path]:
        """Overlay directories that no row names."""
        if not self._disk.is_directory(self._directory):
            return set()
        numbers = {str(number) for number in self._catalog.numbers(account)}
        names = self._disk.listdir(self._directory)
        return {self._directory / name for name in names if name not in numbers}

    def _clear_unused_numbers(self) -> None:
        """Power loss may have taken back the row of a tree whose overlay is there. The catalog
        will give its number to another one, which must not find it."""
        last = self._catalog.last_number()
        for path in list(self._garbage):
            if not path.name.isdecimal() or int(path.name) > last:
                Overlay.delete(path, self._disk)
                self._garbage.discard(path)

    def _remove(self, path: Path) -> None:
        if path in self._garbage:
            work = partial(Overlay.delete, path, self._disk)
            raise NotReady(("remove", path), work, lambda _: self._garbage.discard(path))


def _finish(
    volume: Volume,
    copying: Copying | None,
    done: Callable[[Sealed], None],
    result: tuple[Sealed, Any] | Exception,
) -> None:
    volume.committing = None
    if copying is not None:
        copying.over()
    if isinstance(result, Exception):
        raise result
    sealed, bookkeeping = result
    done(sealed)
    if not volume.superseded:
        volume.overlay.committed(bookkeeping)


def _joined() -> None:
    """The work of a step that joins a commit which is under way."""
    raise RuntimeError("A step joined a commit that nobody carries out")


def root_has(tree: Tree, name: bytes) -> Ino | None:
    """The inode of an entry in a tree's own root."""
    found = tree.lookup(ROOT_INO, name)
    return found[0] if found else None
