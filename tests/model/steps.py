"""Which steps there are, in groups, and how their arguments are chosen."""

import fcntl
import os
import stat
from collections.abc import Callable
from typing import Any

from tests.model.choices import (
    FILE,
    FOLDER,
    LINK,
    MAPS,
    OFFSETS,
    OWNERS,
    TARGETS,
    TIMES,
    XATTRS,
    Choices,
)

PAGE = 4096
RWF_DSYNC, RWF_APPEND = 2, 16
Arguments = tuple[Any, ...]
Step = Callable[[Choices], Arguments]


def open_(c: Choices) -> Arguments:
    return c.slot(), c.any(FILE), c.flags(), c.mode()


def open_existing(c: Choices) -> Arguments:
    return c.slot(), c.existing(FILE), "O_RDWR", 0


def open_folder(c: Choices) -> Arguments:
    return c.slot(), c.directory(), "O_RDONLY|O_DIRECTORY", 0


def create(c: Choices) -> Arguments:
    return c.slot(), c.new(), "O_RDWR|O_CREAT", c.mode()


def pread(c: Choices) -> Arguments:
    offset, size = c.offset(), c.size()
    if c.chance(4):
        offset, size = c.aligned(offset, size)
    return c.file(), offset, size


def pwrite(c: Choices) -> Arguments:
    offset, size = c.offset(), c.size()
    if c.chance(4):
        offset, size = c.aligned(offset, size)
    return c.file(), offset, c.seed(), size


def pwritev(c: Choices) -> Arguments:
    sizes = [c.size() for _ in range(c.number(1, 3))]
    flags = c.of((0, 0, RWF_APPEND, RWF_DSYNC))
    return c.file(), c.offset(), c.seed(), sizes, flags


def preadv(c: Choices) -> Arguments:
    return c.file(), c.offset(), [c.size() for _ in range(c.number(1, 3))]


def mmap(c: Choices) -> Arguments:
    offset = c.of((0, 0, 0, PAGE, 128 * 1024))
    length = c.of((PAGE, 2 * PAGE, 40 * PAGE, 100))
    return c.number(0, MAPS - 1), c.file(), offset, length, not c.chance(3), not c.chance(4)


def mapped(c: Choices) -> tuple[int, int]:
    return c.map(), c.of((0, 1, 100, PAGE - 1, PAGE, 2 * PAGE - 3, 31 * PAGE))


def rename(c: Choices) -> Arguments:
    new = c.any() if c.chance(2) else c.new()
    return c.any(), new, c.of((0, 0, 0, 1, 2, 2, 3, 8))


def rename_folder(c: Choices) -> Arguments:
    return c.directory(), c.of((c.directory(), c.new())), c.of((0, 0, 1, 2))


def setxattr(c: Choices) -> Arguments:
    name = c.of(XATTRS)
    flags = c.of((0, 0, os.XATTR_CREATE, os.XATTR_REPLACE))
    return c.any(FILE, FOLDER), name, c.value(name), flags, not c.chance(4)


def set_acl(c: Choices) -> Arguments:
    default = c.chance(2)
    kind = "default" if default else "access"
    path = c.directory() if default else c.existing(FILE, FOLDER)
    return path, f"system.posix_acl_{kind}", c.acl(), 0, True


def utimens(c: Choices) -> Arguments:
    return c.any(), c.of(TIMES), c.of(TIMES), not c.chance(3)


def setlk(c: Choices) -> Arguments:
    kind = c.of((fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK))
    return c.file(), kind, c.of((0, 10, 100)), c.of((0, 1, 50)), c.chance(3)


def chmod(c: Choices) -> Arguments:
    path = c.any(FILE, FOLDER)
    return path, c.mode()


GROUPS: dict[str, dict[str, Step]] = {
    "opening": {
        "open": open_,
        "open ": open_existing,
        "open  ": create,
        "open   ": open_folder,
        "close": lambda c: (c.slot(),),
    },
    "reading": {
        "pread": pread,
        "pread ": pread,
        "read": lambda c: (c.file(), c.size()),
        "preadv": preadv,
        "lseek": lambda c: (c.file(), c.of((-10, *OFFSETS)), c.number(0, 2)),
        "seek_data": lambda c: (c.file(), c.offset(), c.chance(2)),
    },
    "writing": {
        "pwrite": pwrite,
        "pwrite ": pwrite,
        "write": lambda c: (c.file(), c.seed(), c.size()),
        "pwritev": pwritev,
        "copy_range": lambda c: (c.file(), c.file(), c.offset(), c.offset(), c.size()),
        "ftruncate": lambda c: (c.file(), c.size()),
    },
    "sizing": {
        "ftruncate": lambda c: (c.file(), c.offset()),
        "ftruncate ": lambda c: (c.file(), c.size()),
        "truncate": lambda c: (c.existing(FILE), c.offset()),
        "truncate ": lambda c: (c.any(FILE), c.size()),
        "pwrite": pwrite,
        "pread": pread,
    },
    "syncing": {
        "fsync": lambda c: (c.file(),),
        "fdatasync": lambda c: (c.file(),),
        "syncfs": lambda _: (),
    },
    "mapping": {
        "mmap": mmap,
        "mread": lambda c: (*mapped(c), c.of((1, 10, PAGE, 5 * PAGE))),
        "mread ": lambda c: (*mapped(c), c.of((1, 10, PAGE, 5 * PAGE))),
        "mwrite": lambda c: (*mapped(c), c.seed(), c.of((1, 10, PAGE, 5 * PAGE))),
        "mwrite ": lambda c: (*mapped(c), c.seed(), c.of((1, 10, PAGE, 5 * PAGE))),
        "msync": lambda c: (c.map(),),
        "munmap": lambda c: (c.map(),),
        "ftruncate": lambda c: (c.file(), c.size()),
        "pwrite": pwrite,
        "pread": pread,
    },
    "locking": {
        "flock": lambda c: (c.file(), c.of((fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN))),
        "setlk": setlk,
        "getlk": lambda c: (c.file(), fcntl.F_WRLCK, c.of((0, 10, 100)), c.of((0, 1, 50))),
    },
    "making": {
        "mkdir": lambda c: (c.new(), c.mode()),
        "mknod": lambda c: (c.new(), c.mode() | c.of((stat.S_IFIFO, stat.S_IFSOCK, FILE)), 0),
        "mknod ": lambda c: (c.new(), c.mode() | stat.S_IFCHR, os.makedev(5, 300)),
        "symlink": lambda c: (c.of(TARGETS), c.new()),
        "link": lambda c: (c.any(FILE, LINK), c.new(), c.chance(2)),
        "link_open": lambda c: (c.file(), c.new()),
    },
    "removing": {
        "unlink": lambda c: (c.any(),),
        "unlink ": lambda c: (c.existing(FILE),),
        "rmdir": lambda c: (c.any(FOLDER),),
    },
    "renaming": {"rename": rename, "rename ": rename, "rename  ": rename_folder},
    "attributes": {
        "chmod": chmod,
        "chown": lambda c: (c.any(), c.of(OWNERS), c.of(OWNERS), not c.chance(3)),
        "utimens": utimens,
        "utimens ": utimens,
        "setxattr": setxattr,
        "setxattr ": set_acl,
        "removexattr": lambda c: (c.any(FILE, FOLDER), c.of(XATTRS), not c.chance(4)),
    },
    "looking": {
        "stat": lambda c: (c.any(),),
        "access": lambda c: (c.any(), c.number(0, 7), c.chance(2)),
        "readlink": lambda c: (c.any(LINK),),
        "listdir": lambda c: (c.any(FOLDER),),
        "statvfs": lambda c: (c.any(),),
        "getxattr": lambda c: (c.any(FILE, FOLDER), c.of(XATTRS), not c.chance(4)),
        "listxattr": lambda c: (c.any(FILE, FOLDER), not c.chance(4)),
    },
    "listing": {
        "getdents": lambda c: (c.folder(), c.number(1, 12)),
        "getdents ": lambda c: (c.folder(), c.number(1, 12)),
        "seekdir": lambda c: (c.folder(), c.number(0, 30)),
        "unlink": lambda c: (c.existing(FILE),),
        "mkdir": lambda c: (c.new(), c.mode()),
        "rename": rename,
    },
}
"""A name with blanks behind it is another way to choose the arguments of that call."""

NEEDS = {
    "reading": FILE,
    "writing": FILE,
    "sizing": FILE,
    "syncing": FILE,
    "locking": FILE,
    "mapping": FILE,
    "listing": FOLDER,
}
"""What must be open before steps of a group make sense."""

LIFE = {"check": 10, "calm": 4, "close": 2, "rest": 1, "commit": 3, "clone": 1, "seal": 1,
        "reset": 2, "remount": 1, "kill": 1}  # fmt: skip
"""What happens to the instance, and how often."""


def draw(c: Choices, group: str) -> tuple[str, Arguments]:
    """A step of a group, or what opens something for it to work on."""
    needed = NEEDS.get(group)
    if needed is not None and not c.has(needed):
        return "open", open_folder(c) if needed == FOLDER else open_existing(c)
    if group == "mapping" and not c.has_map:
        return "mmap", mmap(c)
    name = c.of(tuple(GROUPS[group]))
    return name.rstrip(), GROUPS[group][name](c)
