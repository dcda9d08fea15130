"""Making and ending a FUSE mount with the system calls themselves, for root.

libfuse's own way leaves out one flag: with MS_POSIXACL the kernel leaves the umask to the
file system, which alone knows whether a default ACL counts in its place. pyfuse3 takes a
descriptor of /dev/fuse that is mounted already where it expects the path.
"""

from __future__ import annotations

import ctypes
import os
import select
from pathlib import Path

_MS_NOSUID, _MS_NODEV, _MS_POSIXACL = 2, 4, 1 << 16
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


class KernelMount:
    """A mount; `device` is what pyfuse3 is to serve, and closes."""

    def __init__(
        self, mountpoint: Path, source: str, kind: str, *, enforced: bool, trusted: bool
    ) -> None:
        """Mount at `mountpoint`; raises OSError. `trusted` mounts honour set-user-id programs
        and devices."""
        self._mountpoint = os.fsencode(mountpoint)
        mode = mountpoint.stat().st_mode
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        data = f"fd={self._fd},rootmode={mode:o},user_id={os.getuid()},group_id={os.getgid()}"
        if enforced:
            data += ",default_permissions,allow_other"
        flags = _MS_POSIXACL | (0 if trusted else _MS_NOSUID | _MS_NODEV)
        arguments = (source.encode(), self._mountpoint, kind.encode(), flags, data.encode())
        if _libc.mount(*arguments):
            number = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(number, os.strerror(number))

    def __repr__(self) -> str:
        return f"<KernelMount at {self._mountpoint!r}>"

    @property
    def device(self) -> str:
        """What stands for the mountpoint towards libfuse."""
        return f"/dev/fd/{self._fd}"

    def is_over(self) -> bool:
        """Whether somebody unmounted it; to be asked while the device is open."""
        poll = select.poll()
        poll.register(self._fd, 0)
        return bool(poll.poll(0))

    def detach(self) -> None:
        """Take it away, also where it is in use; after the device was closed."""
        _libc.umount2(self._mountpoint, _MNT_DETACH)
