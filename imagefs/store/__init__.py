"""The chunk store: immutable objects in packs, found through an index, verified when read."""

from imagefs.store.store import Store, StoreStatistics
from imagefs.store.writer import StoreWriter

__all__ = ["Store", "StoreStatistics", "StoreWriter"]
