"""What power loss may leave of a directory, given the log of what was done to it.

The rules, stricter than any file system we know of:

- What was synced is there: a file's bytes and size after its sync, the names in a directory
  after the directory's. Syncing a file says nothing of its name, syncing a directory nothing
  of the files in it.
- What was not synced is there or not, in any combination: of a file each page (of SQLite's
  files each sector) as after any of the writes since, the size likewise; of a directory each
  making, removing or renaming by itself. A rename is one thing. A file may so be longer than
  what was written of it, with zeros.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.durability.recording import (
    Create,
    MakeDirectory,
    Operation,
    Punch,
    Remove,
    RemoveDirectory,
    Rename,
    Resize,
    Sync,
    SyncDirectory,
    SyncEverything,
    Write,
    WriteDurably,
)

PAGE = 4096
SECTOR = 512


class _Content:
    """The bytes of a file; what lies behind `data` and before `size` is zeros."""

    __slots__ = ("data", "size")

    def __init__(self, data: bytes = b"", size: int | None = None) -> None:
        self.data = bytearray(data)
        self.size = len(data) if size is None else size

    def copy(self) -> _Content:
        return _Content(bytes(self.data), self.size)

    def put(self, offset: int, data: bytes) -> None:
        if offset > len(self.data):
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset : offset + len(data)] = data

    def resize(self, size: int) -> None:
        self.size = size
        del self.data[size:]

    def apply(self, operation: Write | Resize | Punch) -> None:
        if isinstance(operation, Write):
            self.put(operation.offset, operation.data)
            self.size = max(self.size, operation.offset + len(operation.data))
        elif isinstance(operation, Resize):
            self.resize(operation.size)
        else:
            end = min(operation.offset + operation.length, len(self.data))
            if end > operation.offset:
                self.put(operation.offset, bytes(end - operation.offset))


class _Least(random.Random):
    """Chooses as little as possible."""

    def choice(self, options: Any) -> Any:
        return options[0]

    def random(self) -> float:
        return 1.0

    def randint(self, least: int, most: int) -> int:
        return least


class _File:
    """A file: what is durable, and what was done since."""

    __slots__ = ("durable", "grain", "least", "least_size", "pending")

    def __init__(self, durable: _Content, grain: int) -> None:
        self.durable = durable
        self.grain = grain
        self.least: dict[int, int] = {}
        """By page, how many of the pending operations are durable for it."""
        self.least_size = 0
        self.pending: list[Write | Resize | Punch] = []

    def sync(self) -> None:
        for operation in self.pending:
            self.durable.apply(operation)
        self.pending = []
        self.least = {}
        self.least_size = 0

    def write_durably(self, operation: Write) -> None:
        """These pages and the size that reaches them are durable, the rest is not."""
        self.pending.append(operation)
        last = operation.offset + len(operation.data) - 1
        for page in range(operation.offset // self.grain, last // self.grain + 1):
            self.least[page] = len(self.pending)
        self.least_size = len(self.pending)

    def nothing(self) -> _Content:
        """What is durable alone."""
        if not self.least:
            return self.durable
        return self.some(_Least())

    def everything(self) -> _Content:
        content = self.durable.copy()
        for operation in self.pending:
            content.apply(operation)
        return content

    def some(self, rng: random.Random) -> _Content:
        """Each page as after some of the operations, the size as after some of them."""
        pending = self.pending
        content = self.durable.copy()
        most = len(pending)
        bias = rng.choice((0.0, 0.5, 0.9, 1.0))

        def some_version(least: int) -> int:
            return most if rng.random() < bias else rng.randint(least, most)

        sizes = some_version(self.least_size)
        versions: dict[int, int] = {}
        final = content.size
        for number, operation in enumerate(pending):
            if isinstance(operation, Resize):
                if number < sizes:
                    final = operation.size
                    del content.data[operation.size :]
                continue
            if isinstance(operation, Write):
                data, begin = operation.data, operation.offset
                if number < sizes:
                    final = max(final, begin + len(data))
            else:
                begin = operation.offset
                data = bytes(max(0, min(operation.length, len(content.data) - begin)))
            end = begin + len(data)
            while begin < end:
                page = begin // self.grain
                stop = min((page + 1) * self.grain, end)
                if page not in versions:
                    versions[page] = some_version(self.least.get(page, 0))
                if number < versions[page]:
                    content.put(begin, data[: stop - begin])
                data = data[stop - begin :]
                begin = stop
        content.size = final
        del content.data[final:]
        return content


class _Set(NamedTuple):
    name: str
    node: int


class _Drop(NamedTuple):
    name: str


class _Move(NamedTuple):
    old: str
    new: str
    node: int


Change = _Set | _Drop | _Move


def _change(names: dict[str, int], change: Change) -> None:
    if isinstance(change, _Set):
        names[change.name] = change.node
    elif isinstance(change, _Drop):
        names.pop(change.name, None)
    else:
        names.pop(change.old, None)
        names[change.new] = change.node


class _Directory:
    """The names in a directory: what is durable, and what was done since."""

    __slots__ = ("durable", "pending")

    def __init__(self) -> None:
        self.durable: dict[str, int] = {}
        self.pending: list[Change] = []

    def sync(self) -> None:
        self.durable = self.after(self.pending)
        self.pending = []

    def after(self, changes: Sequence[Change]) -> dict[str, int]:
        names = dict(self.durable)
        for change in changes:
            _change(names, change)
        return names


class Nodes:
    """A directory tree on a disk that may lose power. `apply` the log, `leave` what is left.

    Directories and files are numbered: a name may stand for one and then for another.
    """

    def __init__(self, root: str, nodes: dict[str, int]) -> None:
        """Everything below `root` is durable; `nodes` numbers the files there."""
        self._root = root
        self._directories: dict[int, _Directory] = {0: _Directory()}
        self._files: dict[int, _File] = {}
        self._paths: dict[str, int] = {root: 0}
        """What bears which name now."""
        self._last = 0
        for directory, directories, names in os.walk(root):
            for name in directories:
                self._add_directory(os.path.join(directory, name))
            for name in names:
                path = os.path.join(directory, name)
                with open(path, "rb") as file:
                    self._add_file(path, nodes[path], _Content(file.read()))
        for known in self._directories.values():
            known.sync()

    def _add_directory(self, path: str) -> None:
        self._last -= 1  # files have numbers above zero
        self._directories[self._last] = _Directory()
        self._set(path, self._last)

    def _add_file(self, path: str, node: int, content: _Content) -> None:
        self._files[node] = _File(content, SECTOR if ".db" in os.path.basename(path) else PAGE)
        self._set(path, node)

    def _parent(self, path: str) -> _Directory:
        return self._directories[self._paths[os.path.dirname(path)]]

    def _set(self, path: str, node: int) -> None:
        self._paths[path] = node
        self._parent(path).pending.append(_Set(os.path.basename(path), node))

    def apply(self, operation: Operation) -> None:
        match operation:
            case Create(path, node):
                self._add_file(path, node, _Content())
            case Write(node, _, _) | Resize(node, _) | Punch(node, _, _):
                self._files[node].pending.append(operation)
            case WriteDurably(node, offset, data):
                self._files[node].write_durably(Write(node, offset, data))
            case MakeDirectory(path):
                self._add_directory(path)
            case Remove(path) | RemoveDirectory(path):
                del self._paths[path]
                self._parent(path).pending.append(_Drop(os.path.basename(path)))
            case Rename(old, new):
                node = self._paths.pop(old)
                self._paths[new] = node
                names = os.path.basename(old), os.path.basename(new)
                self._parent(new).pending.append(_Move(*names, node))
            case Sync() | SyncDirectory() | SyncEverything():
                self._sync(operation)

    def _sync(self, operation: Sync | SyncDirectory | SyncEverything) -> None:
        match operation:
            case Sync(node):
                self._files[node].sync()
            case SyncEverything():
                for file in self._files.values():
                    file.sync()
                for directory in self._directories.values():
                    directory.sync()
            case SyncDirectory(path):
                # A directory above the one that is watched is of no interest.
                if path in self._paths:
                    self._directories[self._paths[path]].sync()

    # -- what is left -------------------------------------------------------------------

    def nothing(self, target: Path) -> None:
        """Only what was synced."""
        durable = {node: file.nothing() for node, file in self._files.items()}
        self._write(target, 0, {n: d.durable for n, d in self._directories.items()}, durable)

    def everything(self, target: Path) -> None:
        """All of it, as after a kill."""
        names = {n: d.after(d.pending) for n, d in self._directories.items()}
        whole = {node: file.everything() for node, file in self._files.items()}
        self._write(target, 0, names, whole)

    def some(self, target: Path, rng: random.Random) -> None:
        """Some of what was not synced."""
        odds = rng.choice((0.1, 0.5, 0.9, 1.0))
        names = {
            number: directory.after([c for c in directory.pending if rng.random() < odds])
            for number, directory in sorted(self._directories.items())
        }
        contents = {node: file.some(rng) for node, file in sorted(self._files.items())}
        self._write(target, 0, names, contents)

    def _write(
        self,
        target: Path,
        number: int,
        names: dict[int, dict[str, int]],
        contents: dict[int, _Content],
    ) -> None:
        target.mkdir(mode=0o700)
        for name, node in names[number].items():
            path = target / name
            if node < 0:
                self._write(path, node, names, contents)
                continue
            content = contents[node]
            path.write_bytes(content.data)
            os.truncate(path, content.size)


def syncs(log: Sequence[Operation]) -> Iterator[int]:
    """Where in the log something becomes durable."""
    for position, operation in enumerate(log):
        if isinstance(operation, Sync | SyncDirectory | SyncEverything):
            yield position
