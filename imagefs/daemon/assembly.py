"""Opening a store for one account: what the daemon and the offline command have in common."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from imagefs.catalog import Catalog
from imagefs.daemon import clock
from imagefs.disk import Disk
from imagefs.errors import Corrupt, Exists
from imagefs.store import Store
from imagefs.vfs import Lifecycle, MountOptions, Vfs
from imagefs.vfs.volumes import Volumes

log = logging.getLogger(__name__)

CATALOG = "catalog.db"


def create_store(path: Path) -> None:
    """Make a store where there is none."""
    with contextlib.suppress(Exists):
        Store.create(path).close()


@contextlib.contextmanager
def opened(path: Path, disk: Disk) -> Iterator[tuple[Store, Catalog]]:
    """The store and its catalog, closed afterwards; raises StoreError, Corrupt."""
    store = Store.open(path, disk)
    try:
        _require_catalog(store, disk)
        catalog = Catalog(path / CATALOG, disk)
        try:
            yield store, catalog
        finally:
            catalog.close()
    finally:
        store.close()


def _require_catalog(store: Store, disk: Disk) -> None:
    """Raise Corrupt when the catalog of a store that was used is gone: a new, empty one would
    make all that is in the store look deleted. It is made before the first object is stored."""
    catalog = store.path / CATALOG
    if disk.size_of(catalog) is None and store.statistics().objects:
        raise Corrupt(f"The catalog {catalog} is missing: put a good copy of it in its place")


@contextlib.contextmanager
def vfs(path: Path, account: str, options: MountOptions) -> Iterator[Vfs]:
    """The file system of an account. Its lock must be held."""
    disk = Disk()
    with opened(path, disk) as (store, catalog):
        vfs = Vfs(store, catalog, account, options, clock.now, disk)
        try:
            yield vfs
        finally:
            vfs.close()


@contextlib.contextmanager
def lifecycle(path: Path, account: str) -> Iterator[tuple[Lifecycle, Store]]:
    """The images and instances of an account, without a mount. Its lock must be held."""
    disk = Disk()
    with opened(path, disk) as (store, catalog):
        volumes = Volumes(store, catalog, account, disk, clock.now)
        try:
            yield Lifecycle(catalog, volumes, account, clock.now), store
        finally:
            volumes.close()
