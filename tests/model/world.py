"""A directory of the host and an instance, and every step done in both.

A step that does not end alike in both, or leaves them different, raises Disagreement with the
script so far. `check` compares everything; after each step only what it named is looked at.
"""

import errno
import itertools
import os
import shutil
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from imagefs.control.messages import Commit, Images, Instances, Remove, Reset, Seal
from imagefs.errors import ImagefsError
from tests.model.actor import Actor, Outcome
from tests.model.facts import RECENT, Fact, Tree, differences, entry, told
from tests.model.mount import Mount, copy
from tests.model.operation import LIFE, Operation, parse_script
from tests.model.scan import Scans

BASE = "base"
SECOND = 10**9
NAMING = {"open", "mkdir", "rmdir", "unlink", "mknod", "symlink", "link", "link_open", "rename",
          "reset"}  # fmt: skip
"""Steps after which there may be other paths."""
NUMBERS = itertools.count(1)


class Disagreement(AssertionError):
    """The two trees differ, or differ in what they answer; `script` led there."""

    def __init__(self, what: str, start: str, script: Sequence[Operation]) -> None:
        text = "\n".join([f"# {start}", *map(str, script)])
        super().__init__(f"{what}\n\nThe script:\n{text}\n")
        self.start = start
        self.script = list(script)


class World:
    def __init__(self, mount: Mount, actors: dict[str, Actor], start: str) -> None:
        """`start` is "instance" of the base image, or "draft", which is empty."""
        self.mount = mount
        self.actors = actors
        self.start = start
        self.done: list[Operation] = []
        self.number = next(NUMBERS)
        self.folder = mount.home / f"world-{self.number}"
        self.folder.mkdir()
        self.host = self.folder / "host"
        self.image = BASE
        self.images: list[str] = []
        self.origin: Path | None = mount.home / BASE
        self.scans = Scans()
        self.untimed: set[int] = set()
        """Inodes of the host that were written to through maps, and fifos that were: when that counts as a
        change of the file is up to the kernel."""
        self.opened: dict[tuple[str, int], int] = {}
        self.mapped: set[tuple[str, int]] = set()
        self._paths: list[tuple[str, int]] = []
        self.calm_time = 1_100_000_000 * SECOND
        if start == "draft":
            self.image, self.origin = f"draft-{self.number}-", None
            self.instance = mount.images / self.image
            for place in (self.instance, self.host):
                place.mkdir(mode=0o755)
        else:
            copy(mount.home / BASE, self.host)
            self.instance = self._clone()
        self.epoch = self.host.stat().st_ctime_ns - SECOND
        self._enter()
        self.life_calm()

    @property
    def is_draft(self) -> bool:
        return self.origin is None

    @property
    def reference(self) -> str:
        return self.image if self.is_draft else f"{self.image}/{self.instance.name}"

    def fail(self, what: str) -> None:
        raise Disagreement(what, self.start, self.done)

    # -- steps --------------------------------------------------------------------------

    def run(self, lines: Iterable[str]) -> None:
        for operation in parse_script(lines):
            self.perform(operation)

    def perform(self, operation: Operation) -> None:
        operation = self._allowed(operation)
        self.done.append(operation)
        if operation.name in NAMING:
            self._paths = []
        if operation.who == LIFE:
            try:
                getattr(self, f"life_{operation.name}")(*operation.arguments)
            except (OSError, ImagefsError) as error:
                self.fail(f"{operation}: {error!r}")
            return
        actor = self.actors[operation.who]
        self.scans.touch(operation)
        host, instance = actor.ask(operation.name, operation.arguments)
        self._compare(operation, host, instance)
        self._look_at(operation)
        if host.error is None:
            self._note_open(operation)

    def _allowed(self, operation: Operation) -> Operation:
        """The step without what cannot be the same."""
        if operation.name != "chmod":
            return operation
        path, mode = operation.arguments
        if self.is_draft:
            # The root of a draft that nobody may write to is a sealed image's.
            mode |= stat.S_IWUSR
        if self.mapped:
            # Pages that go out take set-id bits away: see `Side.mmap`.
            mode &= ~(stat.S_ISUID | stat.S_ISGID)
        return operation._replace(arguments=(path, mode))

    def _note_open(self, operation: Operation) -> None:
        """Keep account of what is open and mapped, for those who draw the next step."""
        who, (slot, *_) = operation.who, operation.arguments or (0,)
        if operation.name == "open":
            flags = operation.arguments[2]
            self.opened[who, slot] = stat.S_IFDIR if "O_DIRECTORY" in flags else stat.S_IFREG
        elif operation.name == "close":
            self.opened.pop((who, slot), None)
        elif operation.name == "mmap":
            self.mapped.add((who, slot))
        elif operation.name == "munmap":
            self.mapped.discard((who, slot))

    def slots(self, who: str, kind: int) -> list[int]:
        """What a user has open of regular files or directories."""
        return [
            slot for (user, slot), opened in self.opened.items() if (user, opened) == (who, kind)
        ]

    def maps(self, who: str) -> list[int]:
        """What a user has mapped."""
        return sorted(slot for user, slot in self.mapped if user == who)

    def _compare(self, operation: Operation, host: Outcome, instance: Outcome) -> None:
        if operation.name == "getdents":
            problem = self.scans.took(operation, host, instance)
            if problem:
                self.fail(f"{operation}: {problem}")
            return
        facts = host.facts
        if facts is not None and (
            operation.name == "mwrite" or (operation.name == "write" and stat.S_ISFIFO(facts.mode))
        ):
            self.untimed.add(facts.ino)
        host, instance = self._comparable(host, instance)
        if operation.name == "seekdir":
            self.scans.went(operation, host, instance)
            host, instance = host._replace(value=None), instance._replace(value=None)
        if operation.name == "seek_data":
            host = without_holes(host, operation.arguments[1], operation.arguments[2])
        if host != instance:
            self.fail(f"{operation}\n  host     {host}\n  instance {instance}")

    def _comparable(self, host: Outcome, instance: Outcome) -> tuple[Outcome, Outcome]:
        """Without what may differ."""
        timed = host.facts is None or host.facts.ino not in self.untimed
        return self._blurred(host, timed), self._blurred(instance, timed)

    def _blurred(self, outcome: Outcome, timed: bool) -> Outcome:
        facts = outcome.facts
        if facts is None:
            return outcome
        recent = not timed or facts.mtime >= self.epoch
        return outcome._replace(
            facts=facts._replace(mtime=RECENT if recent else facts.mtime, ino=0)
        )

    def _look_at(self, operation: Operation) -> None:
        """Compare what the step named, and where that lies."""
        paths = set()
        for path in operation.paths:
            if not path.startswith(("@", "/")) and "\0" not in path:
                paths |= {path, os.path.dirname(path) or "."}
        for path in sorted(paths):
            host, ino = self._entry(self.host, path)
            instance, _ = self._entry(self.instance, path)
            if ino in self.untimed and isinstance(host, Fact) and isinstance(instance, Fact):
                instance = instance._replace(mtime=host.mtime)
            if host != instance:
                self.fail(f"{operation}\n{path!r}\n  host     {told(host, instance)}\n"
                          f"  instance {told(instance, host)}")  # fmt: skip

    def _entry(self, top: Path, path: str) -> tuple[Fact | str, int]:
        try:
            fact, status = entry(os.fsencode(os.path.join(top, path)), self.epoch)
        except OSError as error:
            return errno.errorcode[error.errno or 0], 0
        return fact, status.st_ino

    def paths(self) -> list[tuple[str, int]]:
        """Every path of the host's tree with its type, in order."""
        if self._paths:
            return self._paths
        result = [(".", stat.S_IFDIR)]
        for folder, folders, names in os.walk(self.host):
            inside = os.path.relpath(folder, self.host)
            for name in [*folders, *names]:
                kind = stat.S_IFMT(os.lstat(os.path.join(folder, name)).st_mode)
                result.append((os.path.normpath(os.path.join(inside, name)), kind))
        self._paths = sorted(result)
        return self._paths

    # -- life ---------------------------------------------------------------------------

    def life_check(self) -> Tree:
        """Compare everything; returns the instance's tree."""
        try:
            host = Tree(os.fsencode(self.host), self.epoch, None)
            instance = Tree(os.fsencode(self.instance), self.epoch, host.ranges)
            found = differences(host, instance, self.untimed)
        except AssertionError as error:
            found = [str(error)]
            instance = None
        if found:
            self.fail("The trees differ:\n" + "\n".join(found))
        self._check_open()
        assert instance is not None
        problems = self.mount.overlay_problems(instance.inodes[b"."])
        if problems:
            self.fail("The overlay is not consistent:\n" + "\n".join(problems))
        return instance

    def _check_open(self) -> None:
        for name, actor in self.actors.items():
            for slot, (host, instance) in actor.ask("look").items():
                host, instance = self._comparable(host, instance)
                if host != instance:
                    self.fail(f"{name} has open at {slot}\n  host     {host}\n"
                              f"  instance {instance}")  # fmt: skip

    def life_calm(self) -> None:
        """Every recent time becomes one that is past, the same on both sides, and stays so: no
        page of a file with a name is still to go out."""
        self.mount.collect(self.reference)
        timed = set()
        for path in walk(os.fsencode(self.host)):
            full = [os.path.join(os.fsencode(top), path) for top in (self.host, self.instance)]
            status = os.lstat(full[0])
            timed.add(status.st_ino)
            if status.st_mtime_ns >= self.epoch or status.st_ino in self.untimed:
                self.calm_time += SECOND + 1
                for name in full:
                    os.utime(name, ns=(self.calm_time,) * 2, follow_symlinks=False)
        self.untimed -= timed

    def life_close(self) -> None:
        """Everything that is open or mapped."""
        for actor in self.actors.values():
            actor.ask("close_all")
        self._forget_open()

    def life_remount(self) -> None:
        self._come_back(self.mount.stop)

    def life_kill(self) -> None:
        """kill -9 of the daemon: nothing that returned is lost."""
        self._come_back(self.mount.kill)

    def life_rest(self) -> None:
        """Wait until the overlay has closed its files."""
        self.life_close()
        fd = os.open(self.instance, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(fd)
        os.close(fd)
        self.mount.wait_for_rest()

    def _come_back(self, end: Any) -> None:
        self.life_close()
        before = self.life_check()
        self._leave()
        end()
        self.mount.start()
        self._enter()
        after = self.life_check()
        for path, status in before.status.items():
            again = after.status[path]
            if remembered(again) != remembered(status):
                self.fail(f"{path!r} before {remembered(status)} after {remembered(again)}")

    def life_commit(self) -> None:
        """The new image is the tree of the host; the instance stays as it is."""
        if self.is_draft:
            return
        self.life_calm()
        self._commit()
        self.life_check()

    def life_clone(self) -> None:
        """Commit, and go on in a clone of the new image."""
        if self.is_draft:
            self.life_seal()
            return
        self.life_close()
        self._let_owner_write()
        self.life_calm()
        self._go_on_in(self._commit())

    def life_seal(self) -> None:
        """The instance or draft becomes an image; go on in a clone of that."""
        self.life_close()
        self._let_owner_write()
        self.life_calm()
        self._leave()
        if self.is_draft:
            name = self.image
            digest = self.mount.call(Seal(name))["digest"]
        else:
            name = self._new_image()
            os.rename(self.instance, self.mount.images / name)
            digest = os.getxattr(self.mount.images / name, "user.imagefs.digest").decode()
        self.images.append(name)
        self._compare_digest(digest)
        self._go_on_in(name, left=True)

    def life_reset(self) -> None:
        """The instance is as its image again."""
        if self.origin is None:
            return
        self.life_close()
        self._leave()
        self.mount.call(Reset(self.reference))
        shutil.rmtree(self.host)
        copy(self.origin, self.host)
        self._enter()
        self.life_check()
        self.life_calm()

    def _let_owner_write(self) -> None:
        """As every clone does: its root can be written to by the owner."""
        for top in (self.host, self.instance):
            os.chmod(top, stat.S_IMODE(top.stat().st_mode) | stat.S_IWUSR)

    def _commit(self) -> str:
        name = self._new_image()
        digest = self.mount.call(Commit(self.reference, name))["digest"]
        self.images.append(name)
        self._compare_digest(digest)
        return name

    def _compare_digest(self, digest: str) -> None:
        expected = self.mount.digest_of(self.host)
        if digest != expected:
            self.fail(f"The image has digest {digest}, the directory of the host {expected}")

    def _go_on_in(self, image: str, *, left: bool = False) -> None:
        if not left:
            self._leave()
        old = None if self.is_draft or left else self.reference
        self.image = image
        origin = self.folder / image
        copy(self.host, origin)
        self.origin = origin
        self.instance = self._clone()
        if old is not None:
            self.mount.call(Remove(old))
        self._enter()
        self.life_check()

    def _new_image(self) -> str:
        return f"image-{self.number}-{len(self.images)}"

    def _clone(self) -> Path:
        path = self.mount.instances / self.image / f"instance-{self.number}-{len(self.images)}"
        path.mkdir()
        return path

    def _enter(self) -> None:
        for actor in self.actors.values():
            actor.ask("enter", str(self.host), str(self.instance))

    def _leave(self) -> None:
        for actor in self.actors.values():
            actor.ask("leave")
        self._forget_open()

    def _forget_open(self) -> None:
        self.scans = Scans()
        self.opened.clear()
        self.mapped.clear()

    def finish(self) -> None:
        """The last comparison: of all, and of what a commit makes of it."""
        self.perform(Operation(LIFE, "seal" if self.is_draft else "commit", ()))

    def remove(self) -> None:
        """Take away what this world made, whatever state a failure left it in."""
        self._leave()
        for request in (Instances(), Images()):
            for item in self.mount.call(request):
                if f"-{self.number}-" in item["reference"]:
                    self.mount.call(Remove(item["reference"]))
        shutil.rmtree(self.folder)


def without_holes(host: Outcome, offset: int, hole: bool) -> Outcome:
    """What lseek answers for a file that is all data, which is all that FUSE can say here."""
    if host.error is not None:
        return host
    _, size = host.value
    if offset >= size:
        return host._replace(value=(-1, size))
    return host._replace(value=(size if hole else offset, size))


def remembered(status: os.stat_result) -> tuple[int, ...]:
    """What must be the same after the next mount."""
    return (
        status.st_ino, status.st_mode, status.st_nlink, status.st_uid, status.st_gid,
        status.st_size, status.st_blocks, status.st_mtime_ns, status.st_ctime_ns,
        status.st_atime_ns,
    )  # fmt: skip


def walk(top: bytes) -> list[bytes]:
    """The paths of a tree, each directory behind what it holds."""
    found = []
    for folder, folders, names in os.walk(top, topdown=False):
        inside = os.path.relpath(folder, top)
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found += [os.path.join(inside, name) for name in [*names, *links]]
        found.append(inside)
    return found
