"""Every system call that takes a path, and every way in which a path can be bad."""

import os
import socket
from collections.abc import Callable

from tests.acceptance.child import as_other
from tests.posix.calls import AT_FDCWD, AT_SYMLINK_FOLLOW, linkat, renameat2
from tests.posix.case import By, case
from tests.posix.observe import Seen, opened, put, tried
from tests.posix.people import OWNER, OWNERS, STRANGER, STRANGERS


def _bind(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)


CALLS: dict[str, Callable[[str], object]] = {
    "stat": lambda path: os.stat(path).st_nlink,
    "lstat": lambda path: os.lstat(path).st_nlink,
    "access": lambda path: os.access(path, os.F_OK),
    "open": lambda path: opened(path, os.O_RDONLY),
    "open to write": lambda path: opened(path, os.O_WRONLY),
    "open a directory": lambda path: opened(path, os.O_RDONLY | os.O_DIRECTORY),
    "create": lambda path: opened(path, os.O_CREAT | os.O_WRONLY),
    "create alone": lambda path: opened(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY),
    "path only": lambda path: opened(path, os.O_PATH),
    "mkdir": os.mkdir,
    "mknod": os.mknod,
    "mkfifo": os.mkfifo,
    "symlink": lambda path: os.symlink("x", path),
    "link to": lambda path: os.link("other", path),
    "link from": lambda path: linkat(AT_FDCWD, path, "new-link", AT_SYMLINK_FOLLOW),
    "rename to": lambda path: os.rename("big", path),
    "rename from": lambda path: renameat2(path, "new-name", 0),
    "unlink": os.unlink,
    "rmdir": os.rmdir,
    "readlink": lambda path: os.readlink(path) and None,
    "chmod": lambda path: os.chmod(path, 0o644),
    "chown": lambda path: os.chown(path, os.getuid(), os.getgid()),
    "lchown": lambda path: os.lchown(path, os.getuid(), os.getgid()),
    "truncate": lambda path: os.truncate(path, 0),
    "utime": lambda path: os.utime(path, ns=(1, 1)),
    "listdir": lambda path: len(os.listdir(path)),
    "statvfs": lambda path: os.statvfs(path).f_namemax,
    "getxattr": lambda path: os.getxattr(path, "user.x"),
    "setxattr": lambda path: os.setxattr(path, "user.x", b"1"),
    "listxattr": lambda path: len(os.listxattr(path)),
    "removexattr": lambda path: os.removexattr(path, "user.x"),
    "execve": lambda path: os.execv(path, ["x"]),
    "bind": _bind,
}


def each(path: str, *leaving: str) -> Seen:
    """What every call says of a path, but those that would spoil it for the others."""
    return {name: tried(act, path) for name, act in CALLS.items() if name not in leaving}


@case()
def paths_through_nothing() -> Seen:
    return each("missing/below")


@case()
def paths_through_a_file() -> Seen:
    return each("file/below")


@case()
def paths_through_a_loop() -> Seen:
    return each("loop/below")


@case()
def paths_through_a_dangling_link() -> Seen:
    return each("dangling/below")


@case()
def paths_with_a_long_name_in_the_middle() -> Seen:
    return each(f"{'n' * 256}/below", "bind")


@case()
def paths_with_a_long_name_at_the_end() -> Seen:
    return each(f"dir/{'n' * 256}", "bind")


@case()
def paths_that_are_too_long() -> Seen:
    return each("./" * 2048 + "file", "bind")


@case()
def paths_that_are_empty() -> Seen:
    return each("", "bind")


@case()
def paths_to_nothing() -> Seen:
    making = (
        "create",
        "create alone",
        "mkdir",
        "mknod",
        "mkfifo",
        "symlink",
        "link to",
        "rename to",
        "bind",
    )
    return each("missing", *making)


@case()
def paths_to_what_is_there() -> Seen:
    keep = ("unlink", "rmdir", "rename to", "rename from", "truncate", "execve")
    seen: Seen = {}
    for path in ("file", "dir", "link", "dirlink", "emptydir", "dir/.", "dir/..", "."):
        found = each(path, *keep, "link from", "open", "listdir", "chmod", "chown", "lchown")
        seen.update({f"{path} {name}": value for name, value in found.items()})
    return seen


@case(By.CAST)
def paths_through_a_closed_directory() -> Seen:
    """Nobody who may not search a directory learns what is in it."""
    os.mkdir("closed")
    put("closed/file")
    os.mkdir("closed/dir")
    for path in ("closed", "closed/file", "closed/dir"):
        os.chown(path, OWNER, OWNERS)
    os.chmod("closed", 0o600)
    os.chmod(".", 0o777)
    seen: Seen = {}
    for who, (uid, gid) in {"owner": (OWNER, OWNERS), "other": (STRANGER, STRANGERS)}.items():
        for path in ("closed/file", "closed/missing", "closed/dir", "closed/dir/x"):
            seen[f"{who} {path}"] = as_other(uid, gid, lambda path=path: each(path))  # type: ignore[misc]
        seen[f"{who} list"] = as_other(uid, gid, lambda: sorted(tried(os.listdir, "closed")))
    return seen


@case(By.CAST)
def paths_in_a_directory_that_may_not_be_changed() -> Seen:
    os.mkdir("fixed")
    put("fixed/file")
    os.mkdir("fixed/dir")
    os.symlink("file", "fixed/link")
    for path in ("fixed/file", "fixed/dir"):
        os.chown(path, STRANGER, STRANGERS)
    os.chmod("fixed", 0o555)
    os.chmod(".", 0o777)
    return {
        path: as_other(STRANGER, STRANGERS, lambda path=path: each(path))  # type: ignore[misc]
        for path in ("fixed/file", "fixed/dir", "fixed/new", "fixed/link")
    }
