"""Opening a store for one account: what the daemon and the offline command have in common."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from imagefs.catalog import Catalog
from imagefs.daemon import clock
from imagefs.disk import Disk
from imagefs.errors import Corrupt, Exists, NotFound
from imagefs.store import Store
from imagefs.vfs import Lifecycle, MountOptions, Vfs
from imagefs.vfs.regions import LOCAL, RegionalImages
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
def vfs(path: Path, account: str, options: MountOptions, home: str = LOCAL) -> Iterator[Vfs]:
    """The file system of an account. Its lock must be held.

    `home` is the region whose images it shows from now on; raises NotFound for one that the
    store does not know.
    """
    disk = Disk()
    with opened(path, disk) as (store, catalog):
        _set_home(catalog, account, home)
        vfs = Vfs(store, catalog, account, options, clock.now, disk)
        try:
            yield vfs
        finally:
            vfs.close()


def _set_home(catalog: Catalog, account: str, home: str) -> None:
    """Commands without a mount see the same images as the last mount."""
    region = "" if home == LOCAL else home
    if region and catalog.region(region) is None:
        raise NotFound(f"There is no region {region}: `imagefs region add {region} URL` adds one")
    if catalog.home(account) != region:
        catalog.set_home(account, region)


@contextlib.contextmanager
def objects(path: Path, account: str) -> Iterator[Store]:
    """The objects of a store and of the regions that it knows, to be read."""
    disk = Disk()
    with opened(path, disk) as (store, catalog):
        regions = RegionalImages(catalog, store, disk, account, clock.now, catalog.home(account))
        try:
            yield store
        finally:
            regions.close()


@contextlib.contextmanager
def lifecycle(path: Path, account: str) -> Iterator[tuple[Lifecycle, Store]]:
    """The images and instances of an account, without a mount. Its lock must be held."""
    disk = Disk()
    with opened(path, disk) as (store, catalog):
        volumes = Volumes(store, catalog, account, disk, clock.now)
        home = catalog.home(account)
        regions = RegionalImages(catalog, store, disk, account, clock.now, home)
        try:
            yield Lifecycle(catalog, volumes, regions, account, clock.now), store
        finally:
            volumes.close()
            regions.close()
