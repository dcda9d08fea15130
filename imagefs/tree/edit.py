"""Changing entries of a stored tree by path: only directories above a change are rewritten."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

import msgspec

from imagefs.errors import NotFound
from imagefs.format.directory import Entry
from imagefs.model import ObjectId
from imagefs.tree.directories import Put, update_directory
from imagefs.tree.pages import Fetch, Pages


def replace_entries(
    fetch: Fetch, put: Put, root: Entry, changes: Mapping[bytes, Entry | None]
) -> Entry:
    """The root entry of the tree `root` with other entries at some paths (None: removed).

    The directories that hold the paths exist and are not themselves among the changes;
    raises NotFound otherwise. Link groups are the caller's to keep in step.
    """
    pages = Pages(fetch)
    pending: dict[bytes, dict[bytes, Entry | None]] = {}
    # Deepest first, so that a directory is written once, after everything below it.
    queue: list[tuple[int, bytes]] = []

    def note(path: bytes, entry: Entry | None) -> None:
        above, _, name = path.rpartition(b"/")
        if above not in pending:
            pending[above] = {}
            heapq.heappush(queue, (-above.count(b"/") - bool(above), above))
        pending[above][name] = entry

    for path, entry in changes.items():
        note(path, entry)
    while queue:
        path = heapq.heappop(queue)[1]
        directory = _directory(pages, root, path)
        changed = _changed(fetch, put, directory, pending.pop(path))
        if not path:
            return changed
        note(path, changed)
    return root


def _changed(fetch: Fetch, put: Put, directory: Entry, changes: dict[bytes, Entry | None]) -> Entry:
    assert directory.ref is not None
    summary = update_directory(fetch, put, ObjectId(directory.ref), changes)
    return msgspec.structs.replace(
        directory, ref=summary.ref, size=summary.size, count=summary.count, links=summary.links
    )


def _directory(pages: Pages, root: Entry, path: bytes) -> Entry:
    entry = root
    for name in path.split(b"/") if path else ():
        found = pages.find(entry, name)
        if found is None or not found[1].is_directory:
            raise NotFound(f"No directory {path!r} in the tree")
        entry = found[1]
    return entry
