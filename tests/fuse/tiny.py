"""A file system of a few lines, to test the adapter without the vfs."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from imagefs.disk import Space
from imagefs.errors import NoAttribute, NotFound
from imagefs.model import AttributeChange, Attributes, Ino
from imagefs.vfs.node import Entry

ROOT = 1


class Node:
    def __init__(self, number: int, mode: int) -> None:
        self.number = number
        self.mode = mode
        self.data = bytearray()
        self.names: dict[bytes, int] = {}
        self.lookups = 0


class TinyFilesystem:
    """Answers from dictionaries; `before` is called first by every step, and may raise."""

    def __init__(self) -> None:
        self.nodes = {ROOT: Node(ROOT, stat.S_IFDIR | 0o755)}
        self.before: Callable[[str, Any], None] = lambda step, argument: None
        self.steps: list[str] = []
        self._handles: dict[int, int] = {}
        self._numbers = count(2)

    def _step(self, name: str, argument: Any = None) -> None:
        self.before(name, argument)
        self.steps.append(name)

    def _entry(self, number: int) -> Any:
        node = self.nodes[number]
        attributes = Attributes(
            ino=Ino(number), mode=node.mode, nlink=1, uid=0, gid=0, rdev=0, size=len(node.data),
            blocks=-(-len(node.data) // 512), atime=0, mtime=0, ctime=0,
        )  # fmt: skip
        return Entry(number, attributes)  # type: ignore[arg-type]

    def _make(self, parent: int, name: bytes, mode: int) -> Any:
        number = next(self._numbers)
        self.nodes[number] = Node(number, mode)
        self.nodes[parent].names[name] = number
        self.nodes[number].lookups += 1
        return self._entry(number)

    def _handle(self, node: int) -> int:
        handle = next(self._numbers)
        self._handles[handle] = node
        return handle

    def lookup(self, parent: int, name: bytes, caller: Any) -> Any:
        self._step("lookup", name)
        number = self.nodes[parent].names.get(name)
        if number is None:
            return None
        self.nodes[number].lookups += 1
        return self._entry(number)

    def forget(self, pairs: list[tuple[int, int]]) -> None:
        for number, lookups in pairs:
            self.nodes[number].lookups -= lookups

    def getattr(self, node: int) -> Any:
        self._step("getattr", node)
        return self._entry(node)

    def setattr(self, node: int, change: AttributeChange, fh: int | None, caller: Any) -> Any:
        self._step("setattr", change)
        found = self.nodes[node]
        if change.size is not None:
            found.data = found.data[: change.size].ljust(change.size, b"\0")
        if change.mode is not None:
            found.mode = stat.S_IFMT(found.mode) | change.mode
        return self._entry(node)

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Any) -> Any:
        self._step("mkdir", name)
        return self._make(parent, name, stat.S_IFDIR | mode & 0o7777)

    def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Any) -> Any:
        self._step("create", name)
        entry = self._make(parent, name, stat.S_IFREG | mode & 0o7777)
        return self._handle(entry.node), entry

    def unlink(self, parent: int, name: bytes) -> None:
        self._step("unlink", name)
        if self.nodes[parent].names.pop(name, None) is None:
            raise NotFound(f"No {name!r}")

    def open(self, node: int, flags: int, caller: Any) -> int:
        self._step("open", node)
        return self._handle(node)

    def read(self, fh: int, offset: int, size: int) -> bytes:
        self._step("read", (offset, size))
        return bytes(self.nodes[self._handles[fh]].data[offset : offset + size])

    def write(self, fh: int, offset: int, data: bytes) -> int:
        self._step("write", (offset, len(data)))
        file = self.nodes[self._handles[fh]].data
        if offset > len(file):
            file.extend(bytes(offset - len(file)))
        file[offset : offset + len(data)] = data
        return len(data)

    def release(self, fh: int) -> None:
        del self._handles[fh]

    def sync_point(self, fh: int, *, directory: bool) -> int:
        return 0

    def fsync(self, fh: int, point: int, *, directory: bool) -> None:
        self._step("fsync", fh)

    def opendir(self, node: int) -> int:
        return self._handle(node)

    def readdir(self, fh: int, start: int) -> Iterator[tuple[bytes, Any, int]]:
        names = sorted(self.nodes[self._handles[fh]].names.items())
        for position, (name, number) in enumerate(names[start:], start + 1):
            self._step("readdir", name)
            yield name, self._entry(number), position

    def counted(self, node: int) -> None:
        self.nodes[node].lookups += 1

    def releasedir(self, fh: int) -> None:
        del self._handles[fh]

    def statfs(self, node: int) -> Space:
        return Space(4096, 1000, 500, 400, 100, 50)

    def getxattr(self, node: int, name: bytes) -> bytes:
        raise NoAttribute(f"No {name!r}")

    def listxattr(self, node: int) -> list[bytes]:
        return []
