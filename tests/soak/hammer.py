"""A program that works on a small tree without rest; run as `python -m tests.soak.hammer`.

    python -m tests.soak.hammer FOLDER SEED [alone]

It stays within a bounded number of names, so that what grows meanwhile is a leak. Several may work
in one folder: then names come and go between two calls, and the errors that follow from that are
counted and no failure. With `alone`, it knows what every file must hold, and looks. It ends when
its standard input does, and says on standard output how much it did.
"""

import contextlib
import errno
import fcntl
import json
import mmap
import os
import random
import selectors
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

FOLDERS = 3
NAMES = 30
LARGEST = 600_000
HELD = 5

RACES = {
    errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR, errno.ESTALE,
    errno.ELOOP, errno.EINVAL, errno.ENODATA, errno.EPERM, errno.ENXIO,
}  # fmt: skip
"""What a name that another process changed meanwhile leads to; EINVAL and EPERM are renames below
itself and links to directories, ENXIO a fifo that nobody reads."""


class Hammer:
    """Random operations; `written` is what files hold, as far as nobody else writes."""

    def __init__(self, top: Path, seed: int, *, alone: bool) -> None:
        self.top = top
        self.rng = random.Random(seed)
        self.alone = alone
        self.done: Counter[str] = Counter()
        self.races: Counter[str] = Counter()
        self.held: list[int] = []
        self.written: dict[Path, bytes] = {}
        self.operations: list[Callable[[], None]] = [
            self.write, self.write, self.overwrite, self.truncate, self.read, self.read,
            self.map, self.rename, self.rename, self.link, self.symlink, self.unlink,
            self.unlink, self.mkdir, self.rmdir, self.attributes, self.mark,
            self.hold, self.let_go, self.lock, self.fifo, self.sync,
        ]  # fmt: skip

    def step(self) -> None:
        operation = self.rng.choice(self.operations)
        try:
            operation()
        except OSError as error:
            if error.errno not in RACES:
                raise
            self.races[errno.errorcode[error.errno or 0]] += 1
        else:
            self.done[operation.__name__] += 1

    # -- names --------------------------------------------------------------------------

    def folder(self) -> Path:
        return self.top / f"d{self.rng.randrange(FOLDERS)}" / f"e{self.rng.randrange(FOLDERS)}"

    def name(self) -> Path:
        return self.folder() / f"n{self.rng.randrange(NAMES)}"

    def rename(self) -> None:
        old, new = self.name(), self.name()
        old.rename(new)
        if self.alone and not (os.path.lexists(old) and old.samefile(new)) and old != new:
            self.written.pop(new, None)
            if old in self.written:
                self.written[new] = self.written.pop(old)

    def link(self) -> None:
        old, new = self.name(), self.name()
        os.link(old, new, follow_symlinks=False)
        # What is written through one name shows under the other: no longer followed here.
        self.written.pop(old, None)

    def symlink(self) -> None:
        self.name().symlink_to(f"../e{self.rng.randrange(FOLDERS)}/n{self.rng.randrange(NAMES)}")

    def unlink(self) -> None:
        name = self.name()
        name.unlink()
        self.written.pop(name, None)

    def mkdir(self) -> None:
        for _ in range(3):
            self.folder().mkdir(parents=True, exist_ok=True)

    def rmdir(self) -> None:
        self.folder().rmdir()

    def fifo(self) -> None:
        name = self.name()
        os.mkfifo(name)
        name.unlink()

    def list(self) -> None:
        for folder, _, names in os.walk(self.top):
            for name in names[:: self.rng.randrange(1, 5)]:
                with contextlib.suppress(FileNotFoundError):
                    os.lstat(os.path.join(folder, name))

    # -- content ------------------------------------------------------------------------

    @contextlib.contextmanager
    def opened(self, name: Path, flags: int) -> Iterator[int]:
        descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def write(self) -> None:
        name = self.name()
        data = self.rng.randbytes(self.rng.choice((0, 100, 4096, 5000, 130_000, LARGEST)))
        with self.opened(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
            linked = os.fstat(file).st_nlink != 1
            self.written.pop(name, None)
            os.write(file, data)
        if self.alone and not linked:
            self.written[name] = data

    def overwrite(self) -> None:
        name, data = self.name(), self.rng.randbytes(self.rng.choice((1, 100, 4096)))
        offset = self.rng.randrange(LARGEST)
        with self.opened(name, os.O_WRONLY) as file:
            os.pwrite(file, data, offset)
        if (old := self.written.get(name)) is not None:
            old = old.ljust(offset, b"\0")
            self.written[name] = old[:offset] + data + old[offset + len(data) :]

    def truncate(self) -> None:
        name, size = self.name(), self.rng.randrange(LARGEST)
        with self.opened(name, os.O_RDWR) as file:
            os.ftruncate(file, size)
        if (old := self.written.get(name)) is not None:
            self.written[name] = old[:size].ljust(size, b"\0")

    def read(self) -> None:
        name = self.name()
        with self.opened(name, os.O_RDONLY) as file:
            data = os.read(file, 2 * LARGEST)
        wanted = self.written.get(name)
        if wanted is not None and data != wanted:
            raise AssertionError(f"{name} does not hold what was written")

    def map(self) -> None:
        if not self.alone:
            return  # who maps a file that another process cuts dies of SIGBUS, here as anywhere
        name = self.name()
        with self.opened(name, os.O_RDWR) as file:
            if not os.fstat(file).st_size:
                return
            with mmap.mmap(file, 1) as mapping:
                mapping[0] = 77
                mapping.flush()
        if old := self.written.get(name):
            self.written[name] = b"M" + old[1:]

    def sync(self) -> None:
        with self.opened(self.name(), os.O_RDONLY) as file:
            os.fsync(file)

    def hold(self) -> None:
        """Keeps a file open that loses its name, to write to it later."""
        if len(self.held) < HELD:
            name = self.name()
            self.held.append(os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            name.unlink()
            os.write(self.held[-1], bytes(5000))

    def let_go(self) -> None:
        if self.held:
            file = self.held.pop(self.rng.randrange(len(self.held)))
            os.pwrite(file, b"still here", self.rng.randrange(LARGEST))
            os.close(file)

    def lock(self) -> None:
        with self.opened(self.name(), os.O_RDWR) as file, contextlib.suppress(BlockingIOError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    # -- attributes ---------------------------------------------------------------------

    def attributes(self) -> None:
        name = self.name()
        os.chmod(name, self.rng.choice((0o600, 0o644, 0o755)))
        os.utime(name, ns=(self.rng.randrange(10**18), self.rng.randrange(10**18)))

    def mark(self) -> None:
        name = self.name()
        os.setxattr(name, "user.mark", self.rng.randbytes(self.rng.randrange(200)))
        os.getxattr(name, "user.mark")
        if self.rng.random() < 0.5:
            os.removexattr(name, "user.mark")

    # -- the end ------------------------------------------------------------------------

    def finish(self) -> None:
        for file in self.held:
            os.close(file)
        for name, data in self.written.items():
            if name.read_bytes() != data:
                raise AssertionError(f"{name} does not hold what was written")


def main(folder: str, seed: str, *alone: str) -> None:
    hammer = Hammer(Path(folder), int(seed), alone=bool(alone))
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        while not selector.select(0):
            hammer.list()
            for _ in range(50):
                hammer.step()
    hammer.finish()
    print(json.dumps({"done": hammer.done, "races": hammer.races, "checked": len(hammer.written)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
