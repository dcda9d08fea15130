"""Listing directories: names from any position on, however the directory changes.

A position is the number of a name in the order given out; `OpenDirectory.names` remembers
which name that was, and the listing goes on behind it. Entries are told fresh for every
reply, because the kernel keeps them.
"""

from __future__ import annotations

from collections.abc import Iterator

from imagefs.model import ROOT_INO, NodeId
from imagefs.vfs.handles import OpenDirectory
from imagefs.vfs.namespace import Namespace
from imagefs.vfs.node import INO_BITS, Entry, node_id
from imagefs.vfs.volume import Volume

Item = tuple[bytes, Entry, int]
"""A name, what it stands for, and the position behind it."""

_BATCH = 32
"""Items fetched at a time: about what one reply of the kernel's usual size holds."""


class Listing:
    """Lists places and directories of volumes; counts no lookups."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def items(self, directory: OpenDirectory, start: int) -> Iterator[Item]:
        """The items from position `start` on; position 0 begins anew."""
        if start == 0:
            directory.names.clear()
            yield b".", self._self_entry(directory), 1
        if start <= 1:
            yield b"..", self._parent_entry(directory), 2
        index = max(start - 2, 0)
        if directory.volume is None:
            yield from self._of_place(directory, index)
        else:
            yield from self._of_volume(directory, directory.volume, index)

    def _self_entry(self, directory: OpenDirectory) -> Entry:
        volume = directory.volume
        if volume is None:
            return self._namespace.entry(self._namespace.place(directory.ino))
        node = node_id(volume.row.number, directory.ino)
        return Entry(node, volume.attributes(directory.ino))

    def _parent_entry(self, directory: OpenDirectory) -> Entry:
        volume = directory.volume
        if volume is None:
            place = self._namespace.place(directory.ino)
            return self._namespace.entry(self._namespace.parent(place))
        if directory.ino == ROOT_INO:
            return self._namespace.entry(self._namespace.place_of(volume.row))
        parent = volume.overlay.parent(directory.ino)
        return Entry(node_id(volume.row.number, parent), volume.attributes(parent))

    def _of_place(self, directory: OpenDirectory, index: int) -> Iterator[Item]:
        place = self._namespace.place(directory.ino)
        if not index:
            directory.names = self._namespace.names(place)
        for position in range(index, len(directory.names)):
            name = directory.names[position]
            entry = self._namespace.peek(place, name)
            if entry is not None:
                yield name, entry, position + 3

    def _of_volume(self, directory: OpenDirectory, volume: Volume, index: int) -> Iterator[Item]:
        names = directory.names
        del names[index:]
        tree = volume.row.number << INO_BITS
        while True:
            after = names[-1] if names else None
            items = volume.overlay.list(directory.ino, after, _BATCH)
            for item in items:
                names.append(item.name)
                entry = Entry(NodeId(tree | item.attributes.ino), item.attributes)
                yield item.name, entry, len(names) + 2
            if len(items) < _BATCH:
                return
