"""What the kernel lets be set and done about one FUSE mount, by files of its `fusectl` file system.

systemd mounts that at /sys/fs/fuse/connections. Where nobody did, root looks into it without
mounting it anywhere.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_MOUNTED = "/sys/fs/fuse/connections"
# The same on all architectures but alpha, where this fails with ENOSYS.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC = 1
_CREATE = 6

_libc = ctypes.CDLL(None, use_errno=True)


def write(minor: int, name: str, text: str) -> None:
    """Write to the file `name` of the mount whose device has that minor number; raises OSError."""
    try:
        _write(f"{_MOUNTED}/{minor}/{name}", text)
    except FileNotFoundError:
        with _unmounted() as folder:
            _write(f"{minor}/{name}", text, folder)


def _write(path: str, text: str, folder: int | None = None) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


@contextmanager
def _unmounted() -> Iterator[int]:
    """A descriptor of the root of fusectl."""
    context = _called(_FSOPEN, b"fusectl", _CLOEXEC)
    try:
        _called(_FSCONFIG, context, _CREATE, None, None, 0)
        folder = _called(_FSMOUNT, context, _CLOEXEC, 0)
    finally:
        os.close(context)
    try:
        yield folder
    finally:
        os.close(folder)


def _called(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
