"""What the machine's steps are made of: paths, sizes, modes, ACLs.

Everything ends up as plain values in an `Operation`; what exists is taken from the host's
directory, which is the same in every repetition of a script.
"""

import random
import stat
import struct
from collections.abc import Sequence
from typing import TypeVar

from tests.model.base import CAPABILITY, CHUNK, LONG
from tests.model.system import SECOND
from tests.model.users import ALICE, BOB, TEAM
from tests.model.world import World
from tests.posix.calls import UTIME_NOW, UTIME_OMIT

T = TypeVar("T")
FILE, FOLDER, LINK = stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK
SLOTS, MAPS = 4, 2

NAMES = ("a", "b", "c", "e", "linked", "ü", "s", LONG)
ODD_PATHS = ("missing/a", "a/b", "a/", "loop", "loop/a", "sd/c", "sd/", "x" * 256, "", ".", "d/..",
             "d/.", "fifo/a", "sd/e/c", "d/dangling/")  # fmt: skip
TARGETS = ("a", "d", "e", "c", "nowhere", "d/e", "a/", "x" * 4095, "x" * 255 + "/y", "/nonexistent")
SIZES = (0, 1, 10, 100, 511, 4095, 4096, 4097, 8192, 65536, CHUNK - 1, CHUNK, CHUNK + 1, 300_000)
OFFSETS = (0, 1, 100, 4095, 4096, 5000, 8192, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK,
           3 * CHUNK, 3 * CHUNK + 78, 11 * CHUNK, 64 * CHUNK, 2**31 - 1, 2**32 + 1, 2**40 + 5, 2**41,
           2**43 - 3)  # fmt: skip
MODES = (0o644, 0o666, 0o600, 0o755, 0o777, 0o000, 0o4755, 0o2755, 0o6777, 0o2644, 0o1777, 0o2775,
         0o7000, 0o070, 0o007)  # fmt: skip
ACCESS_MODES = ("O_RDWR", "O_RDONLY", "O_WRONLY")
OPEN_FLAGS = ("O_CREAT", "O_CREAT|O_EXCL", "O_TRUNC", "O_APPEND", "O_NOFOLLOW", "O_DIRECTORY", "O_PATH",
              "O_SYNC", "O_DSYNC", "O_DIRECT", "O_CREAT|O_TRUNC", "O_CREAT|O_APPEND")  # fmt: skip
OWNERS = (-1, 0, ALICE, BOB, TEAM, 4_000_000_000)
TIMES = (UTIME_NOW, UTIME_OMIT, 0, 1, -1, -SECOND, -(2**31) * SECOND, -5 * SECOND + 123_456_789,
         2**31 * SECOND, 2**32 * SECOND + 7, 4_500_000_000 * SECOND + 999_999_999,
         1_234_567_890_123_456_789)  # fmt: skip
XATTRS = ("user.a", "user.b", "user.ü", "trusted.a", "security.a", "security.capability", "user.",
          "nonsense", "system.a", "user." + "n" * 250, "user." + "n" * 251,
          "system.posix_acl_access", "system.posix_acl_default")  # fmt: skip
VALUES = (b"", b"x", b"\0binary\xff", b"v" * 200)


class Choices:
    """Draws for one step of one user in one world."""

    def __init__(self, rng: random.Random, world: World, who: str) -> None:
        self._random = rng
        self._world = world
        self._who = who

    def of(self, values: Sequence[T]) -> T:
        return self._random.choice(values)

    def number(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def chance(self, one_in: int) -> bool:
        return self._random.randrange(one_in) == 0

    # -- paths --------------------------------------------------------------------------

    def existing(self, *kinds: int) -> str:
        """A path of one of these types, of any if none is named or there is none."""
        found = self._world.paths()
        wanted = [path for path, kind in found if not kinds or kind in kinds]
        return self.of(wanted or [path for path, _ in found])

    def directory(self) -> str:
        return self.existing(FOLDER)

    def new(self) -> str:
        """A path whose directory exists; the name may be taken."""
        if self.chance(8):
            return f"@{self.folder()}/{self.of(NAMES)}"
        if self.chance(12):
            return self.of(ODD_PATHS)
        folder = self.directory()
        name = self.of(NAMES)
        return name if folder == "." else f"{folder}/{name}"

    def any(self, *kinds: int) -> str:
        """Mostly something that exists."""
        choice = self.number(0, 11)
        if choice == 0:
            return f"@{self._open(kinds[0] if kinds else FILE)}"
        return self.new() if choice == 1 else self.existing(*kinds)

    def slot(self) -> int:
        """Of anything that is open, or free."""
        return self.number(0, SLOTS - 1)

    def file(self) -> int:
        """Mostly of an open file."""
        return self._open(FILE)

    def folder(self) -> int:
        """Mostly of an open directory."""
        return self._open(FOLDER)

    def _open(self, kind: int) -> int:
        found = self._world.slots(self._who, kind)
        return self.of(found) if found and not self.chance(12) else self.slot()

    def map(self) -> int:
        """Mostly of a mapping that there is."""
        found = self._world.maps(self._who)
        return self.of(found) if found and not self.chance(12) else self.number(0, MAPS - 1)

    def has(self, kind: int) -> bool:
        return bool(self._world.slots(self._who, kind))

    @property
    def has_map(self) -> bool:
        return bool(self._world.maps(self._who))

    def aligned(self, offset: int, size: int) -> tuple[int, int]:
        return offset // 4096 * 4096, -(-size // 4096) * 4096

    # -- values -------------------------------------------------------------------------

    def flags(self) -> str:
        flags = [self.of(ACCESS_MODES)]
        flags += [self.of(OPEN_FLAGS) for _ in range(self.number(0, 2))]
        return "|".join(dict.fromkeys(flags))

    def offset(self) -> int:
        return self.of(OFFSETS) if not self.chance(4) else self.number(0, 4 * CHUNK)

    def size(self) -> int:
        return self.of(SIZES) if not self.chance(4) else self.number(0, 2 * CHUNK)

    def seed(self) -> int:
        return self.number(0, 5)

    def mode(self) -> int:
        return self.of(MODES)

    def value(self, name: str) -> bytes:
        if name.startswith("system.posix_acl"):
            return self.acl()
        if name == "security.capability":
            return CAPABILITY
        return self.of(VALUES)

    def acl(self) -> bytes:
        """Mostly a valid one; in the order of ids, because `cp -a` puts it in that order."""
        entries = [(1, self.number(0, 7), 0xFFFFFFFF)]
        for tag, ids in ((2, (ALICE, BOB)), (8, (BOB, TEAM))):
            named = [ident for ident in ids if self.chance(2)]
            entries += [(tag, self.number(0, 7), ident) for ident in named]
            if tag == 2:
                entries.append((4, self.number(0, 7), 0xFFFFFFFF))
        if len(entries) > 2 or self.chance(3):
            entries.append((16, self.number(0, 7), 0xFFFFFFFF))
        entries.append((32, self.number(0, 7), 0xFFFFFFFF))
        if self.chance(10):
            del entries[self.number(0, len(entries) - 1)]
        return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
