"""Paths of files as they are now, found by inode: for whoever has to open by name what is open.

Reads rows and the base, changes nothing. Rows are not ordered by inode, so looking for some files
among many names that were made here costs as much as looking for one.
"""

from __future__ import annotations

from collections.abc import Iterable

from imagefs.model import Ino
from imagefs.overlay.database import Database
from imagefs.overlay.links import Places
from imagefs.tree import Tree

_AT_ONCE = 500
"""Parameters of one query; SQLite takes some hundreds everywhere."""


def paths_of(base: Tree, database: Database | None, inos: Iterable[Ino]) -> dict[Ino, bytes]:
    """One path from the root for each of these files; those without a name are left out. May
    raise NotReady."""
    wanted = list(inos)
    if database is None:
        return {ino: base.path(ino) for ino in wanted}
    places = Places(base, database)
    found = _named_by_rows(database, places, wanted)
    for ino in wanted:
        if ino not in found and ino <= base.total:
            path = _unchanged(base, places, ino)
            if path is not None:
                found[ino] = path
    return found


def _named_by_rows(database: Database, places: Places, wanted: list[Ino]) -> dict[Ino, bytes]:
    found: dict[Ino, bytes] = {}
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        marks = ",".join("?" * len(part))
        rows = database.rows(f"SELECT ino, parent, name FROM dentry WHERE ino IN ({marks})", part)
        for ino, parent, name in rows:
            above = places.path(parent)
            if above is not None:
                found[Ino(ino)] = above + name
    return found


def _unchanged(base: Tree, places: Places, ino: Ino) -> bytes | None:
    """Where a name that the base gave the file is now, if one is left."""
    for path in base.link_paths(ino):
        above, _, name = path.rpartition(b"/")
        parent = base.resolve(above)
        assert parent is not None
        now = places.path(parent[0])
        if now is not None and not places.is_shadowed(parent[0], name):
            return now + name
    return None
