"""Having the kernel hand over what programs wrote through memory maps, and waiting for it.

What write(2) wrote is with the daemon when it returns. Pages written through a shared map stay with the
kernel until it likes; closing a file, by whomever, makes it hand over that file's pages and wait
for the daemon's answer. syncfs(2) hands over all pages, but does not wait for a FUSE daemon's answers.
The daemon may not do this itself: killed meanwhile, it would wait for its own answer for ever.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from imagefs.errors import Busy

Located = tuple[bytes, int]
"""The path of a file in the mount, and its inode number there."""

_TRIES = 10
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})


def collect(mountpoint: str, located: list[Located], again: Callable[[], list[Located]]) -> None:
    """Return once the daemon has what was written before to these files.

    `again` locates them once more if one was moved, leaving out those that are closed. Files
    that this user may not open are told of on standard error. Raises Busy for one that
    never stays in its place, OSError.
    """
    top = os.open(mountpoint, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            left = {ino for path, ino in located if not _handed_over(top, path, ino)}
            # Those that are closed by now have handed over what they had.
            located = [(path, ino) for path, ino in again() if ino in left] if left else []
            if not located:
                return
    finally:
        os.close(top)
    raise Busy(
        f"What was written to {os.fsdecode(located[0][0])} can't be collected while it is moved"
        " again and again: try later"
    )


def _handed_over(top: int, path: bytes, ino: int) -> bool:
    """False if the file is not there (any more)."""
    try:
        fd = _open_below(top, path)
    except PermissionError as error:
        print(
            f"imagefs: What programs wrote to {os.fsdecode(path)} through memory maps may be"
            f" missing: {error.strerror}",
            file=sys.stderr,
        )
        return True
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise
    found = os.fstat(fd).st_ino
    os.close(fd)
    return found == ino


def _open_below(top: int, path: bytes) -> int:
    """Open a file whose path may be longer than the kernel takes at once, following no symlink:
    whoever writes here must not have this command open what he likes."""
    *folders, name = path.split(b"/")
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = os.dup(top)
    try:
        for folder in folders:
            above, directory = directory, os.open(folder, flags, dir_fd=directory)
            os.close(above)
        file = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(name, file, dir_fd=directory)
    finally:
        os.close(directory)
