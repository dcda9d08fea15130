"""What a case sees of a file system, in a form that is the same wherever the case runs."""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from tests.acceptance.child import in_child
from tests.posix import calls

P = ParamSpec("P")
T = TypeVar("T")

Seen = dict[str, Any]
"""What a case observed, by the names that it gives to its observations."""

PAST = 1_000_000_000_000_000_000
"""September 2001 in ns: a time that nothing is touched at."""

TYPES = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket", stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
}  # fmt: skip


def error_name(error: OSError) -> str:
    return "EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else errno.errorcode[error.errno or 0]


def tried(function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any:
    """The result of a call, or the name of its error."""
    try:
        return function(*args, **kwargs)
    except OSError as error:
        return error_name(error)


def look(path: str | int) -> Seen:
    """What stat tells that does not depend on the place; a symlink is not followed."""
    status = os.stat(path) if isinstance(path, int) else os.lstat(path)
    kind = TYPES[stat.S_IFMT(status.st_mode)]
    return {
        "type": kind,
        "mode": oct(stat.S_IMODE(status.st_mode)),
        "nlink": status.st_nlink,
        "owner": (status.st_uid, status.st_gid),
        "size": None if kind == "directory" else status.st_size,
        "device": status.st_rdev,
    }


def mode(path: str) -> str:
    return oct(stat.S_IMODE(os.lstat(path).st_mode))


def opened(path: str, flags: int, permissions: int = 0o644) -> str:
    """Whether opening works; the descriptor is closed again."""
    try:
        os.close(os.open(path, flags, permissions))
    except OSError as error:
        return error_name(error)
    return "ok"


def content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def put(path: str, data: bytes = b"") -> None:
    with open(path, "wb") as file:
        file.write(data)


def extended(path: str) -> dict[str, bytes]:
    """All extended attributes but the labels of security modules."""
    names = [name for name in os.listxattr(path, follow_symlinks=False) if "selinux" not in name]
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in sorted(names)}


# -- times ------------------------------------------------------------------------------


def times(path: str) -> tuple[int, int, int]:
    status = os.lstat(path)
    return status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns


def moved(paths: Iterable[str], action: Callable[[], object]) -> dict[str, str]:
    """Which of mtime (m) and ctime (c) an action brings up to date, for each path.

    A path that is gone afterwards is told as such.
    """
    before = {}
    for path in paths:
        os.utime(path, ns=(PAST, PAST), follow_symlinks=False)
        before[path] = times(path)
    pass_time(max(ctime for _, _, ctime in before.values()))
    action()
    return {path: _moved(path, known) for path, known in before.items()}


def _moved(path: str, before: tuple[int, int, int]) -> str:
    try:
        now = times(path)
    except FileNotFoundError:
        return "gone"
    return "m" * (now[1] > before[1]) + "c" * (now[2] > before[2])


def pass_time(moment: int) -> None:
    """Return once the clock that file systems take times from has gone past a moment."""
    while time.clock_gettime_ns(calls.CLOCK_REALTIME_COARSE) <= moment:
        time.sleep(0.001)


# -- other processes --------------------------------------------------------------------


def without(capability: int, function: Callable[[], T]) -> T:
    """The result of a function that runs without one of root's capabilities."""

    def run() -> T:
        calls.drop_capability(capability)
        return function()

    return in_child(run)
