"""A life of a store that is written down: what was visible after each step, and what of it was
promised to survive power loss.

Every state has the position in the disk's log at which the step that led to it began. After
power loss at some position, names above the trees must be as in one of the states from the
last one promised before on, and so must each tree; both may have gone on independently.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from imagefs.catalog import Catalog, State, TreeRow
from imagefs.errors import ImagefsError
from imagefs.model import ROOT_INO, Attributes, Ino, TreeNumber
from imagefs.overlay import Overlay
from imagefs.transfer.import_directory import import_directory
from imagefs.vfs import MountOptions
from tests.durability.recording import RecordingDisk
from tests.vfs.conftest import ANN, View

OPTIONS = MountOptions(uid=0, gid=0, enforced=True, seal_after=0)
ACCOUNT = "ann"


class Names(NamedTuple):
    """What the catalog says."""

    trees: frozenset[TreeRow]
    aliases: frozenset[tuple[str, str]]


class Fact(NamedTuple):
    """One path of a tree, all but the content."""

    attributes: Attributes
    target: bytes
    xattrs: tuple[tuple[bytes, bytes], ...]


Facts = dict[bytes, Fact]


class Moment(NamedTuple):
    """A state; the step to it began at `begin` of the log. `contents` has those files that are
    new or other than at the moment before."""

    begin: int
    facts: Facts
    contents: dict[Ino, bytes]


class Promise(NamedTuple):
    """From `position` of the log on, state `index` is durable."""

    position: int
    state: int


class History:
    """The states of one tree."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self.promises: list[Promise] = []

    def promise(self, position: int) -> None:
        self.promises.append(Promise(position, len(self.moments) - 1))

    def window(self, position: int) -> range:
        """The states that may be found after power loss."""
        return _window([m.begin for m in self.moments], self.promises, position)

    def contents(self, window: range, ino: Ino) -> list[bytes]:
        """What the file may hold, each byte of it."""
        found: list[bytes] = []
        for index, moment in enumerate(self.moments[: window.stop]):
            if ino in moment.contents:
                if index <= window.start:
                    found = []
                found.append(moment.contents[ino])
        return found


def _window(begins: list[int], promises: list[Promise], position: int) -> range:
    first = max((p.state for p in promises if p.position <= position), default=0)
    last = max((i for i, begin in enumerate(begins) if begin < position), default=0)
    return range(first, max(first, last) + 1)


def names_of(catalog: Catalog) -> Names:
    """The catalog's state."""
    rows = catalog._rows("1")  # deleted ones too
    return Names(frozenset(rows), frozenset(catalog.aliases(ACCOUNT).items()))


def facts_of(run: Callable[..., Any], overlay: Overlay) -> Facts:
    """The state of a tree."""

    def walk(ino: Ino, path: bytes, attributes: Attributes) -> Iterator[tuple[bytes, Fact]]:
        target = b""
        if stat.S_ISLNK(attributes.mode):
            target = run(overlay.readlink, ino)
        names = run(overlay.list_xattr, ino)
        xattrs = tuple((name, run(overlay.get_xattr, ino, name)) for name in names)
        yield path, Fact(attributes, target, xattrs)
        if stat.S_ISDIR(attributes.mode):
            for item in run(overlay.list, ino, None, 10_000):
                below = path + b"/" + item.name
                yield from walk(item.attributes.ino, below, item.attributes)

    return dict(walk(ROOT_INO, b"", run(overlay.attributes, ROOT_INO)))


def content_of(run: Callable[..., Any], overlay: Overlay, attributes: Attributes) -> bytes:
    """The bytes of a file."""
    data: bytes = run(overlay.read, attributes.ino, 0, attributes.size + 1)
    assert len(data) == attributes.size
    return data


class Story:
    """Drives a view on a recording disk and writes down what is visible and what is promised."""

    def __init__(self, root: Path, disk: RecordingDisk, seed: int) -> None:
        self.disk = disk
        self.root = root
        self.rng = random.Random(seed)
        self.names: list[tuple[int, Names]] = []
        self.name_promises: list[Promise] = []
        self.trees: dict[TreeNumber, History] = {}
        self.view: View
        self.tokens = 0

    @property
    def position(self) -> int:
        return len(self.disk.log)

    def open(self) -> None:
        begin = self.position
        self.view = View(self.root, OPTIONS, disk=self.disk)
        self._shorten_logs()
        self.note(begin)

    def _shorten_logs(self) -> None:
        """Logs are moved into their databases after a few pages, so that this happens often."""
        view = self.view
        view.catalog._connection.execute("PRAGMA wal_autocheckpoint = 12")
        view.store._index._writer.execute("PRAGMA wal_autocheckpoint = 12")

    def remount(self) -> None:
        self.view.close()
        self.promise_all()
        begin = self.position
        self.view.open()
        self._shorten_logs()
        self.note(begin)

    # -- writing down -------------------------------------------------------------------

    def do(self, operation: Callable[..., Any], *args: Any) -> Any:
        """A step: what it changed is found out afterwards."""
        begin = self.position
        try:
            return operation(*args)
        finally:
            self.note(begin)

    def note(self, begin: int) -> None:
        names = names_of(self.view.catalog)
        if not self.names or names != self.names[-1][1]:
            self.names.append((begin, names))
        for row in names.trees:
            if row.deleted is None and row.state is not State.SEALED:
                self._note_tree(begin, row)

    def _note_tree(self, begin: int, row: TreeRow) -> None:
        history = self.trees.get(row.number)
        if history is None:
            history = self.trees[row.number] = History()
            self._add(history, begin, self._pristine(row))
        volume = self.view.vfs._volumes.open(row)
        self._add(history, begin, volume.overlay)
        self.view.vfs._volumes.release(volume)

    def _pristine(self, row: TreeRow) -> Overlay:
        """The overlay as it is before it has files."""
        view = self.view
        tree = view.run(view.vfs._volumes.tree, row.manifest)
        nowhere = self.root / "overlays" / ACCOUNT / "none"
        return Overlay(nowhere, tree, view.store.get_nowait, view.disk, view.clock)

    def _add(self, history: History, begin: int, overlay: Overlay) -> None:
        run = self.view.run
        facts = facts_of(run, overlay)
        before = history.moments[-1].facts if history.moments else {}
        if history.moments and facts == before:
            return
        known = {fact.attributes.ino: fact.attributes for fact in before.values()}
        contents = {}
        for fact in facts.values():
            attributes = fact.attributes
            if stat.S_ISREG(attributes.mode) and known.get(attributes.ino) != attributes:
                contents[attributes.ino] = content_of(run, overlay, attributes)
        history.moments.append(Moment(begin, facts, contents))

    def promise_names(self) -> None:
        self.name_promises.append(Promise(self.position, len(self.names) - 1))

    def promise_all(self) -> None:
        self.promise_names()
        for history in self.trees.values():
            history.promise(self.position)

    def names_window(self, position: int) -> range:
        return _window([begin for begin, _ in self.names], self.name_promises, position)

    # -- steps --------------------------------------------------------------------------

    def fsync(self, path: str) -> None:
        """Sync a file or directory; its whole tree is promised then, and all names."""
        self.view.fsync(path)
        self.promise_names()
        number = self.view.node(path) >> 32
        if number:
            self.trees[TreeNumber(number)].promise(self.position)

    def sync_everything(self) -> None:
        """sync(2): all that has returned is promised."""
        self.disk.sync_everything()
        self.promise_all()

    def command(self, verb: str, *args: Any) -> Any:
        """What a command does is promised when it has ended."""
        result = self.do(self.view.lifecycle, verb, *args)
        self.promise_names()
        return result

    def import_image(self, source: Path, name: str) -> None:
        with self.view.store.writer() as writer:
            manifest = import_directory(source, writer, self.view.store.get)
        self.command("publish", name, manifest, writer.stored_bytes)

    def data(self, size: int) -> bytes:
        """Bytes that no other write has."""
        self.tokens += 1
        return random.Random(self.tokens).randbytes(size)

    def tick(self) -> None:
        self.view.now += 31_000_000_000
        self.do(self.view.tick)

    def change(self, place: str) -> None:
        """A random change of one tree, which may be refused."""
        number = TreeNumber(self.view.node(place) >> 32)
        facts = self.trees[number].moments[-1].facts
        paths = [os.fsdecode(path) for path in facts if path]
        directories = [""] + [p for p in paths if stat.S_ISDIR(facts[p.encode()].attributes.mode)]
        files = [p for p in paths if stat.S_ISREG(facts[p.encode()].attributes.mode)]
        steps = [step for weight, step in _STEPS for _ in range(weight)]
        step = self.rng.choice(steps)
        try:
            self.do(step, self, place, directories, paths, files)
        except (ImagefsError, IndexError):
            return


def _pick(story: Story, names: list[str]) -> str:
    return story.rng.choice(names)


def _new(story: Story, directories: list[str]) -> str:
    return f"{_pick(story, directories)}/{story.rng.choice('abcdefgh')}{story.rng.randrange(9)}"


def _size(story: Story) -> int:
    return story.rng.choice((1, 100, 4000, 5000, 20_000, 140_000))


def _make(story: Story, place: str, directories: list[str], *_: list[str]) -> None:
    path = place + _new(story, directories)
    view = story.view
    if view.exists(path):
        return
    view.run(view.vfs.release, view.create(path))


def _write(story: Story, place: str, *lists: list[str]) -> None:
    files = lists[2]
    offset = story.rng.choice((0, 10, 4096, 131_000, 200_000))
    story.view.write(place + _pick(story, files), story.data(_size(story)), offset)


def _cut(story: Story, place: str, *lists: list[str]) -> None:
    story.view.truncate(place + _pick(story, lists[2]), _size(story))


def _mkdir(story: Story, place: str, directories: list[str], *_: list[str]) -> None:
    story.view.mkdir(place + _new(story, directories))


def _unlink(story: Story, place: str, *lists: list[str]) -> None:
    story.view.unlink(place + _pick(story, lists[2]))


def _rmdir(story: Story, place: str, directories: list[str], *_: list[str]) -> None:
    story.view.rmdir(place + _pick(story, directories[1:]))


def _rename(story: Story, place: str, directories: list[str], *lists: list[str]) -> None:
    flags = story.rng.choice((0, 0, 0, 1, 2))
    old = place + _pick(story, lists[0])
    new = place + (_pick(story, lists[0]) if flags != 1 and story.rng.random() < 0.5 else
                   _new(story, directories))  # fmt: skip
    story.view.rename(old, new, flags)


def _link(story: Story, place: str, directories: list[str], *lists: list[str]) -> None:
    story.view.link(place + _pick(story, lists[1]), place + _new(story, directories))


def _symlink(story: Story, place: str, directories: list[str], *_: list[str]) -> None:
    story.view.symlink("target" + _new(story, directories), place + _new(story, directories))


def _xattr(story: Story, place: str, *lists: list[str]) -> None:
    view = story.view
    value = story.data(story.rng.choice((3, 3000)))
    view.run(view.vfs.setxattr, view.node(place + _pick(story, lists[1])), b"user.x", value, ANN)


def _chmod(story: Story, place: str, *lists: list[str]) -> None:
    story.view.chmod(place + _pick(story, lists[1]), story.rng.choice((0o600, 0o4755, 0o700)))


_STEPS: tuple[tuple[int, Callable[..., None]], ...] = (
    (4, _make), (8, _write), (3, _cut), (2, _mkdir), (3, _unlink), (1, _rmdir), (4, _rename),
    (2, _link), (1, _symlink), (2, _xattr), (1, _chmod),
)  # fmt: skip
