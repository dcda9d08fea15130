"""The catalog: which images and instances exist, in one SQLite database.

It is the only commit point of a store: what it does not name is garbage, what it names is
complete and durable. It touches its database file and nothing else.
"""

from imagefs.catalog.catalog import Catalog
from imagefs.catalog.rows import Kind, State, TreeRow
from imagefs.catalog.shares import PUBLIC

__all__ = ["PUBLIC", "Catalog", "Kind", "State", "TreeRow"]
