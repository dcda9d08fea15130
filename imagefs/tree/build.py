"""Everything that writes trees: directories, contents, and the manifest that names a tree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from imagefs.format.directory import Entry
from imagefs.format.manifest import (
    Manifest,
    encode_link_index,
    encode_link_page,
    encode_manifest,
    path_order,
    split_groups,
)
from imagefs.model import ObjectId
from imagefs.tree.contents import (
    ContentBuilder,
    allocated,
    allocated_change,
    update_content,
    write_content,
)
from imagefs.tree.directories import (
    DirectoryBuilder,
    DirectorySummary,
    Put,
    update_directory,
    write_directory,
)

__all__ = [
    "ContentBuilder",
    "DirectoryBuilder",
    "DirectorySummary",
    "Put",
    "allocated",
    "allocated_change",
    "update_content",
    "update_directory",
    "write_content",
    "write_directory",
    "write_links",
    "write_manifest",
]


def write_manifest(put: Put, root: Entry, groups: Iterable[Sequence[bytes]]) -> ObjectId:
    """Store the manifest of a tree; its id is the image's digest.

    `groups` are the paths of every inode with several names, in any order; exactly these
    entries have `links` 1.
    """
    return put(encode_manifest(Manifest(root, write_links(put, groups))))


def write_links(put: Put, groups: Iterable[Sequence[bytes]]) -> ObjectId | None:
    """Store a link table, None when there are no groups."""
    ordered = sorted(
        (tuple(sorted(group, key=path_order)) for group in groups),
        key=lambda group: path_order(group[0]),
    )
    pages = [put(encode_link_page(page)) for page in split_groups(ordered)]
    return put(encode_link_index(pages)) if pages else None
