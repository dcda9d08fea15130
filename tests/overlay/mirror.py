"""Random operations, made on an overlay and on a directory of the host alike."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import stat
from collections.abc import Callable
from typing import Any

from imagefs.errors import ImagefsError
from imagefs.model import CHUNK_SIZE, AttributeChange, Ino
from tests.overlay.workbench import Bench, walk_host

NAMES = [b"a", b"b", b"c.d", b"c", b"\xff\xfe", b"e" * 255, b"Z", b"link"]
SIZES = [0, 1, 100, 4095, 4096, 4097, 20000, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1]
MAX_SIZE = 3 * CHUNK_SIZE + 777
NOREPLACE, EXCHANGE = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)
Place = tuple[Ino, bytes]


def rename_host(old: bytes, new: bytes, flags: int) -> None:
    if _libc.renameat2(-100, old, -100, new, flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Mirror:
    """Makes one random operation after the other on both sides and compares the outcomes."""

    def __init__(self, bench: Bench, directory: bytes, seed: int) -> None:
        self.bench = bench
        self.directory = directory
        self.random = random.Random(seed)
        self.log: list[str] = []
        self.root = os.geteuid() == 0

    # -- choosing -----------------------------------------------------------------------

    def paths(self, want: Callable[[int], bool]) -> list[bytes]:
        return [
            path for path in walk_host(self.directory) if want(os.lstat(self.full(path)).st_mode)
        ]

    def directories(self) -> list[bytes]:
        return [b"", *self.paths(stat.S_ISDIR)]

    def full(self, path: bytes) -> bytes:
        return os.path.join(self.directory, path) if path else self.directory

    def any_name(self) -> bytes:
        above = self.random.choice(self.directories())
        name = self.random.choice(NAMES)
        return above + b"/" + name if above else name

    def existing(self, want: Callable[[int], bool] = lambda mode: True) -> bytes | None:
        paths = self.paths(want)
        return self.random.choice(paths) if paths else None

    def data(self) -> bytes:
        size = self.random.choice([*SIZES, self.random.randrange(MAX_SIZE)]) or 1
        return bytes(size) if self.random.random() < 0.2 else self.random.randbytes(size)

    # -- doing --------------------------------------------------------------------------

    def step(self) -> None:
        operation = self.random.choice(OPERATIONS)
        getattr(self, "do_" + operation)()

    def both(self, what: str, host: Callable[[], Any], ours: Callable[[], Any]) -> bool:
        """Make an operation on both sides; both succeed or both fail for the same reason."""
        self.log.append(what)
        expected = 0
        try:
            host()
        except OSError as error:
            expected = error.errno or 0
        found = 0
        try:
            self.bench.run(ours)
        except ImagefsError as error:
            found = error.errno
        assert found == expected, (
            f"{what}: {errno.errorcode.get(found)} instead of {errno.errorcode.get(expected)}"
        )
        return not expected

    def do_make(self) -> None:
        path = self.any_name()
        kind = self.random.choice([stat.S_IFREG, stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO])
        if self.root and self.random.random() < 0.1:
            kind = self.random.choice([stat.S_IFCHR, stat.S_IFBLK])
        mode = kind | self.random.choice([0o644, 0o755, 0o4711, 0o000])
        rdev = os.makedev(7, 9) if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0
        full = self.full(path)

        def host() -> None:
            if kind == stat.S_IFDIR:
                os.mkdir(full)
            else:
                os.mknod(full, kind, rdev)
            os.chmod(full, stat.S_IMODE(mode))

        place = self.bench.place(path)
        who = os.geteuid(), os.getegid()
        self.both(
            f"make {path!r} {mode:o}",
            host,
            lambda: self.bench.overlay.make(*place, mode, *who, rdev=rdev),
        )

    def do_symlink(self) -> None:
        path = self.any_name()
        target = self.random.choice([b"x", b"\xf0/../..", b"t" * 4095])
        place = self.bench.place(path)
        who = os.geteuid(), os.getegid()
        self.both(
            f"symlink {path!r}",
            lambda: os.symlink(target, self.full(path)),
            lambda: self.bench.overlay.make(*place, stat.S_IFLNK | 0o777, *who, target=target),
        )

    def do_write(self) -> None:
        path = self.existing(stat.S_ISREG)
        if path is None:
            return
        data = self.data()
        offset = self.random.choice([0, self.random.randrange(MAX_SIZE), *SIZES])

        def host() -> None:
            fd = os.open(self.full(path), os.O_WRONLY)
            os.pwrite(fd, data, offset)
            os.close(fd)

        ino = self.bench.ino(path)
        # Root's writes leave set-user-id bits alone, as an overlay does.
        mode = os.lstat(self.full(path)).st_mode
        if not self.root and mode & 0o6222 != 0o0222:
            return
        self.both(
            f"write {path!r} {offset} {len(data)}",
            host,
            lambda: self.bench.overlay.write(ino, offset, data),
        )

    do_write_again = do_write_more = do_write

    def do_truncate(self) -> None:
        path = self.existing(stat.S_ISREG)
        if path is None or not os.access(self.full(path), os.W_OK):
            return
        size = self.random.choice([*SIZES, self.random.randrange(MAX_SIZE)])
        ino = self.bench.ino(path)
        self.both(
            f"truncate {path!r} {size}",
            lambda: os.truncate(self.full(path), size),
            lambda: self.bench.overlay.change_attributes(ino, AttributeChange(size=size)),
        )

    do_truncate_again = do_truncate

    def do_chmod(self) -> None:
        path = self.existing(lambda mode: not stat.S_ISLNK(mode))
        if path is None:
            return
        # Directories that hand on their group are the business of the layer above.
        mode = self.random.choice([0o700, 0o755, 0o1777, 0o4755])
        ino = self.bench.ino(path)
        self.both(
            f"chmod {path!r} {mode:o}",
            lambda: os.chmod(self.full(path), mode),
            lambda: self.bench.overlay.change_attributes(ino, AttributeChange(mode=mode)),
        )

    def do_chown(self) -> None:
        path = self.existing(lambda mode: not mode & 0o6000)
        if path is None or not self.root:
            return
        uid, gid = self.random.randrange(70000), self.random.randrange(70000)
        ino = self.bench.ino(path)
        self.both(
            f"chown {path!r}",
            lambda: os.lchown(self.full(path), uid, gid),
            lambda: self.bench.overlay.change_attributes(ino, AttributeChange(uid=uid, gid=gid)),
        )

    def do_set_xattr(self) -> None:
        path = self.existing(lambda mode: stat.S_ISREG(mode) or stat.S_ISDIR(mode))
        if path is None or not os.access(self.full(path), os.W_OK):
            return
        name = self.random.choice(["user.a", "user.b", "user.\xfc"])
        value = self.random.randbytes(self.random.choice([0, 1, 100, 1000]))
        flags = self.random.choice([0, 0, os.XATTR_CREATE, os.XATTR_REPLACE])
        ino = self.bench.ino(path)
        self.both(
            f"set {name} of {path!r} ({flags})",
            lambda: os.setxattr(self.full(path), name, value, flags),
            lambda: self.bench.overlay.set_xattr(ino, os.fsencode(name), value, flags),
        )

    def do_remove_xattr(self) -> None:
        path = self.existing(lambda mode: stat.S_ISREG(mode) or stat.S_ISDIR(mode))
        if path is None or not os.access(self.full(path), os.W_OK):
            return
        name = self.random.choice(["user.a", "user.b"])
        ino = self.bench.ino(path)
        self.both(
            f"remove {name} of {path!r}",
            lambda: os.removexattr(self.full(path), name),
            lambda: self.bench.overlay.remove_xattr(ino, os.fsencode(name)),
        )

    def do_link(self) -> None:
        old = self.existing(lambda mode: not stat.S_ISDIR(mode))
        if old is None:
            return
        new = self.any_name()
        ino = self.bench.ino(old)
        place = self.bench.place(new)
        self.both(
            f"link {old!r} {new!r}",
            lambda: os.link(self.full(old), self.full(new), follow_symlinks=False),
            lambda: self.bench.overlay.link(ino, *place),
        )

    def do_unlink(self) -> None:
        path = self.existing() if self.random.random() < 0.9 else self.any_name()
        if path is None:
            return
        place = self.bench.place(path)

        def ours() -> None:
            ino = self.bench.overlay.unlink(*place)
            if self.bench.overlay.orphan(ino):
                self.bench.overlay.discard(ino)

        self.both(f"unlink {path!r}", lambda: os.unlink(self.full(path)), ours)

    def do_rmdir(self) -> None:
        path = self.existing(stat.S_ISDIR) if self.random.random() < 0.9 else self.any_name()
        if path is None:
            return
        place = self.bench.place(path)

        def ours() -> None:
            self.bench.overlay.discard(self.bench.overlay.rmdir(*place))

        self.both(f"rmdir {path!r}", lambda: os.rmdir(self.full(path)), ours)

    def do_rename(self) -> None:
        old = self.existing() if self.random.random() < 0.95 else self.any_name()
        if old is None:
            return
        new = self.existing() if self.random.random() < 0.4 else self.any_name()
        if new is None:
            return
        flags = self.random.choice([0, 0, 0, NOREPLACE, EXCHANGE])
        # The kernel looks at this before it asks any file system.
        if (old + b"/").startswith(new + b"/") and old != new:
            return
        places = (*self.bench.place(old), *self.bench.place(new))

        def ours() -> None:
            replaced = self.bench.overlay.rename(*places, flags)
            if replaced is not None and self.bench.overlay.orphan(replaced):
                self.bench.overlay.discard(replaced)

        self.both(
            f"rename {old!r} {new!r} ({flags})",
            lambda: rename_host(self.full(old), self.full(new), flags),
            ours,
        )

    do_rename_again = do_rename

    def do_empty_directory(self) -> None:
        """Everything below one directory goes, and it too."""
        path = self.existing(stat.S_ISDIR)
        if path is None or self.random.random() < 0.7:
            return
        below = [path, *(path + b"/" + name for name in walk_host(self.full(path)))]
        for victim in reversed(below):
            place = self.bench.place(victim)
            is_directory = stat.S_ISDIR(os.lstat(self.full(victim)).st_mode)
            remove = os.rmdir if is_directory else os.unlink
            ours = self.bench.overlay.rmdir if is_directory else self.bench.overlay.unlink
            self.both(
                f"remove {victim!r}",
                lambda: remove(self.full(victim)),  # noqa: B023 - called at once
                lambda: ours(*place),  # noqa: B023
            )

    def do_sync(self) -> None:
        self.log.append("sync")
        self.bench.overlay.sync()

    def do_reopen(self) -> None:
        self.log.append("reopen")
        self.bench.reopen()

    def do_kill(self) -> None:
        self.log.append("kill")
        self.bench.kill()


OPERATIONS = sorted(name.removeprefix("do_") for name in dir(Mirror) if name.startswith("do_"))
