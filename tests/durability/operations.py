"""What is done to a store while its disk fails: each operation once, on a small store.

An operation is a function of an open view. Two states of a view are equal when whoever looks
through the mount sees the same; times and inode numbers are left out.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from imagefs.model import CHUNK_SIZE
from imagefs.transfer.import_directory import import_directory
from tests.durability.story import OPTIONS, content_of, facts_of
from tests.vfs.conftest import ANN, View

BIG = random.Random(7).randbytes(CHUNK_SIZE + 3000)
OTHER = random.Random(8).randbytes(CHUNK_SIZE + 9000)
IMPORTED = Path(__file__).parent  # any directory will do

Tree = dict[bytes, tuple[Any, ...]]
Visible = dict[str, Any]


def build(root: Path) -> None:
    """A store with an image, a draft and instances with some changes, closed."""
    view = View(root, OPTIONS)
    view.mkdir("images/base")
    view.mkdir("images/base/etc")
    view.write("images/base/etc/hosts", b"127.0.0.1 localhost\n")
    view.write("images/base/big", BIG)
    view.link("images/base/etc/hosts", "images/base/linked")
    view.lifecycle("seal", "base")
    view.lifecycle("clone", "base", ["a", "b", "fresh", "gone"])
    for name in ("a", "b"):
        place = f"instances/base/{name}"
        view.mkdir(f"{place}/d")
        view.mkdir(f"{place}/empty")
        view.write(f"{place}/d/file", b"content of a file")
        view.write(f"{place}/d/big", BIG)
        view.write(f"{place}/etc/hosts", b"changed ")
    view.lifecycle("remove", "base/gone")
    view.mkdir("images/draft")
    view.write("images/draft/file", b"content of a draft")
    view.symlink("base", "images/alias")
    view.close()


def visible(view: View) -> Visible:
    """Everything that can be seen."""
    found: Visible = {"aliases": view.catalog.aliases("ann")}
    for row in view.catalog.images("ann") + view.catalog.instances("ann"):
        volume = view.vfs._volumes.open(row)
        found[f"{row.kind} {row.reference} {row.state}"] = tree_of(view, volume.overlay)
        view.vfs._volumes.release(volume)
    return found


def tree_of(view: View, overlay: Any) -> Tree:
    """A tree without times and numbers."""
    tree: Tree = {}
    for path, fact in facts_of(view.run, overlay).items():
        a = fact.attributes
        content = content_of(view.run, overlay, a) if stat.S_ISREG(a.mode) else b""
        size = 0 if stat.S_ISDIR(a.mode) else a.size
        tree[path] = (
            a.mode,
            a.nlink,
            a.uid,
            a.gid,
            a.rdev,
            size,
            fact.target,
            fact.xattrs,
            content,
        )
    return tree


def is_written_in_part(found: Visible, before: Visible, after: Visible) -> bool:
    """Whether all is as before but for bytes of files that may be as after."""
    if found.keys() != before.keys():
        return False
    for key, tree in found.items():
        if tree == before[key] or key == "aliases":
            continue
        old, new = before[key], after.get(key, {})
        if tree.keys() != old.keys():
            return False
        for path, (*facts, content) in tree.items():
            if [*facts, content] == list(old[path]):
                continue
            if facts != list(old[path][:-1]) or path not in new:
                return False
            both = zip(content, old[path][-1], new[path][-1], strict=False)
            if not all(byte in (b, c) for byte, b, c in both):
                return False
    return True


class Operation(NamedTuple):
    """`do` is done while the disk fails; `first` before that, in the same session."""

    do: Callable[[View], Any]
    first: Callable[[View], Any] = lambda view: None


A, DRAFT = "instances/base/a", "images/draft"


def _warm(view: View) -> None:
    """The overlay is open and was changed and synced in this session."""
    view.write(f"{A}/warm", b"warm")
    view.fsync(f"{A}/warm")


def _setxattr(view: View, path: str, value: bytes) -> None:
    view.run(view.vfs.setxattr, view.node(path), b"user.x", value, ANN)


def _create(view: View, path: str) -> None:
    view.run(view.vfs.release, view.create(path))


def _truncated(view: View, path: str) -> None:
    view.run(view.vfs.release, view.open_file(path, os.O_WRONLY | os.O_TRUNC))


def _import(view: View) -> None:
    with view.store.writer() as writer:
        manifest = import_directory(IMPORTED, writer, view.store.get)
    view.lifecycle("publish", "imported", manifest, writer.stored_bytes)


def _mknod(view: View) -> None:
    parent, name = view.at(f"{A}/fifo")
    view.run(view.vfs.mknod, parent, name, stat.S_IFIFO | 0o600, 0, ANN)


def _pause(view: View) -> None:
    """Half a minute passes: all becomes durable, files are closed."""
    view.now += 31_000_000_000
    for step in view.vfs.tick():
        view.run(step)


TREE_OPERATIONS: dict[str, Callable[[View], Any]] = {
    "create": lambda v: _create(v, f"{A}/d/new"),
    "mkdir": lambda v: v.mkdir(f"{A}/etc/new"),
    "mknod": _mknod,
    "symlink": lambda v: v.symlink("target", f"{A}/new"),
    "link": lambda v: v.link(f"{A}/d/file", f"{A}/etc/again"),
    "write over": lambda v: v.write(f"{A}/d/big", OTHER[:CHUNK_SIZE], 100),
    "write and grow": lambda v: v.write(f"{A}/d/file", OTHER, 5000),
    "write in the image's": lambda v: v.write(f"{A}/big", b"changed", CHUNK_SIZE - 3),
    "cut": lambda v: v.truncate(f"{A}/d/big", CHUNK_SIZE + 10),
    "cut short": lambda v: v.truncate(f"{A}/d/big", 10),
    "grow": lambda v: v.truncate(f"{A}/d/file", 3 * CHUNK_SIZE),
    "open with O_TRUNC": lambda v: _truncated(v, f"{A}/d/big"),
    "unlink": lambda v: v.unlink(f"{A}/d/big"),
    "unlink the image's": lambda v: v.unlink(f"{A}/linked"),
    "rmdir": lambda v: v.rmdir(f"{A}/empty"),
    "rename": lambda v: v.rename(f"{A}/d/file", f"{A}/etc/moved"),
    "rename over": lambda v: v.rename(f"{A}/d/file", f"{A}/big"),
    "rename directory": lambda v: v.rename(f"{A}/etc", f"{A}/d/etc"),
    "exchange": lambda v: v.rename(f"{A}/d/file", f"{A}/etc", 2),
    "chmod": lambda v: v.chmod(f"{A}/big", 0o600),
    "setxattr": lambda v: _setxattr(v, f"{A}/d", b"x" * 5000),
    "fsync": lambda v: v.fsync(f"{A}/d/file"),
}

OPERATIONS: dict[str, Operation] = {
    **{name: Operation(do) for name, do in TREE_OPERATIONS.items()},
    **{f"{name}, warm": Operation(do, _warm) for name, do in TREE_OPERATIONS.items()},
    "first change": Operation(lambda v: v.chmod("instances/base/fresh/big", 0o600)),
    "first file": Operation(lambda v: _create(v, "instances/base/fresh/new")),
    "fsync after writes": Operation(
        lambda v: v.fsync(f"{A}/d/file"), lambda v: v.write(f"{A}/d/file", BIG)
    ),
    "fsync above": Operation(lambda v: v.fsync("images"), lambda v: v.mkdir("images/other")),
    "draft": Operation(lambda v: v.mkdir("images/new")),
    "clone": Operation(lambda v: v.mkdir("instances/base/new")),
    "clone two": Operation(lambda v: v.lifecycle("clone", "base", ["n1", "n2"])),
    "commit": Operation(lambda v: v.lifecycle("commit", "base/a", "new"), _warm),
    "seal": Operation(lambda v: v.lifecycle("seal", "draft")),
    "mv to images": Operation(lambda v: v.rename(A, "images/new")),
    "unseal": Operation(
        lambda v: v.chmod(DRAFT, 0o755), lambda v: v.lifecycle("seal", "draft")
    ),
    "rename image": Operation(lambda v: v.rename("images/base", "images/new")),
    "rename instance": Operation(lambda v: v.rename(A, "instances/base/new")),
    "reset": Operation(lambda v: v.lifecycle("reset", "base/a")),
    "rm image": Operation(lambda v: v.rmdir("images/base")),
    "rm instance": Operation(lambda v: v.lifecycle("remove", "base/a")),
    "undelete": Operation(lambda v: v.lifecycle("undelete", "base/gone")),
    "alias": Operation(lambda v: v.symlink("base", "images/new")),
    "remove alias": Operation(lambda v: v.unlink("images/alias")),
    "import": Operation(_import),
    "half a minute": Operation(_pause, _warm),
}  # fmt: skip
