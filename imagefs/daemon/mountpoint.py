"""Which places can be mounted on, and taking a dead daemon's mount away.

A mountpoint inside the store, or the other way round, would make the kernel wait for the
daemon while the daemon waits for the kernel. A directory that holds something would hide it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import select
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from imagefs.errors import Busy, MountError

_DEVICE = Path("/dev/fuse")
_CONFIGURATION = Path("/etc/fuse.conf")
OUR_TYPE = "fuse.imagefs"
_PROCESS_ATTRIBUTE = "user.imagefs.process"
_MNT_DETACH = 2
_DEAD = {errno.ENOTCONN, errno.ECONNABORTED}
"""What a mount answers whose daemon is gone; the second, to what was asked while it went."""

_libc = ctypes.CDLL(None, use_errno=True)


def check_fuse(*, allow_other: bool) -> None:
    """Raise MountError unless this process can make FUSE mounts."""
    if not _DEVICE.exists():
        raise MountError(
            f"There is no {_DEVICE}: load the kernel module with `modprobe fuse` as root; a"
            f" container needs the device passed in (docker run --device {_DEVICE})"
        )
    try:
        os.close(os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise MountError(
            f"{_DEVICE} can't be opened ({error.strerror}): root can allow it with"
            f" `chmod 0666 {_DEVICE}`; a container needs the device passed in"
        ) from error
    if os.geteuid() == 0:
        return
    if shutil.which("fusermount3") is None:
        raise MountError("Program fusermount3 is missing: install the package fuse3")
    if allow_other and not user_allow_other(_CONFIGURATION):
        raise MountError(
            f"--allow-other is for root only, unless {_CONFIGURATION} has a line"
            " `user_allow_other`: root can add it"
        )


def user_allow_other(configuration: Path) -> bool:
    """Whether ordinary users may let others into their mounts."""
    try:
        lines = configuration.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def check_place(mountpoint: Path, store: Path) -> None:
    """Raise MountError unless one of the two directories lies outside of the other."""
    mountpoint, store = mountpoint.resolve(), store.resolve()
    if mountpoint == store or store in mountpoint.parents:
        raise MountError(
            f"Mountpoint {mountpoint} lies inside the store {store}: choose a place outside"
        )
    if mountpoint in store.parents:
        raise MountError(
            f"Store {store} lies inside the mountpoint {mountpoint}: choose another place"
            " for one of them"
        )


def prepare(mountpoint: Path) -> None:
    """Make `mountpoint` an empty directory that nothing is mounted on.

    Makes it where it is missing and takes away the mount of a daemon that died. Raises
    MountError, Busy.
    """
    try:
        # Asks the daemon; stat might be answered by what the kernel remembers of a dead one.
        os.statvfs(mountpoint)
    except FileNotFoundError:
        _make(mountpoint)
        return
    except OSError as error:
        if error.errno not in _DEAD:
            raise MountError(f"Mountpoint {mountpoint} can't be used: {error.strerror}") from error
        detach(mountpoint)
        prepare(mountpoint)
        return
    if not mountpoint.is_dir():
        raise MountError(f"Mountpoint {mountpoint} is not a directory: choose a directory")
    kind = mounted_type(mountpoint)
    if kind == OUR_TYPE:
        raise Busy(
            f"There is an imagefs mounted at {mountpoint} already: use it, or"
            f" `imagefs umount {mountpoint}` first"
        )
    if kind is not None:
        raise Busy(
            f"Something else ({kind}) is mounted at {mountpoint}: unmount it, or choose"
            " another place"
        )
    _check_empty(mountpoint)


def _make(mountpoint: Path) -> None:
    try:
        mountpoint.mkdir(parents=True)
    except OSError as error:
        raise MountError(f"Mountpoint {mountpoint} can't be made: {error.strerror}") from error


def _check_empty(mountpoint: Path) -> None:
    try:
        with os.scandir(mountpoint) as entries:
            first = next(entries, None)
    except OSError as error:
        raise MountError(f"Mountpoint {mountpoint} can't be read: {error.strerror}") from error
    if first is not None:
        raise MountError(
            f"Mountpoint {mountpoint} is not empty (it holds {first.name}): choose an empty or"
            " a new directory"
        )


def mounted_type(mountpoint: Path) -> str | None:
    """The type of the file system mounted exactly there, None for no mount."""
    found = None
    for path, kind in _mount_table():
        if path == mountpoint:
            found = kind
    return found


def mounts() -> list[Path]:
    """Where imagefs is mounted."""
    return [path for path, kind in _mount_table() if kind == OUR_TYPE]


def _mount_table() -> Iterator[tuple[Path, str]]:
    """Mountpoints and types; of several mounts at one place the last is the visible one."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields, _, rest = line.partition(" - ")
        yield Path(_unescape(fields.split()[4])), rest.split()[0]


def _unescape(text: str) -> str:
    return re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), text)


def detach(mountpoint: Path) -> None:
    """Take a mount away at once, whoever still uses it; raises MountError."""
    _end(mountpoint, ["-z"], _MNT_DETACH)


def end(mountpoint: Path) -> None:
    """Unmount; raises Busy while something in it is open, MountError if it cannot be."""
    _end(mountpoint, [], 0)


def unmount(mountpoint: Path) -> None:
    """Unmount like `end`, and wait until the daemon is gone."""
    try:
        process = int(os.getxattr(mountpoint, _PROCESS_ATTRIBUTE))
        ended: int | None = os.pidfd_open(process)
    except OSError as error:
        if error.errno in _DEAD:
            detach(mountpoint)
            return
        ended = None
    end(mountpoint)
    if ended is not None:
        # A process descriptor becomes readable when the process ends.
        select.select([ended], [], [])
        os.close(ended)


def _end(mountpoint: Path, options: list[str], flags: int) -> None:
    if os.geteuid() == 0:
        if _libc.umount2(os.fsencode(mountpoint), flags) != 0:
            _refuse(mountpoint, ctypes.get_errno(), "")
        return
    command = ["fusermount3", "-u", *options, "--", str(mountpoint)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        busy = "busy" in ended.stderr
        _refuse(mountpoint, errno.EBUSY if busy else 0, " ".join(ended.stderr.split()))


def _refuse(mountpoint: Path, code: int, reason: str) -> None:
    if code == errno.EBUSY:
        raise Busy(
            f"Mount {mountpoint} is in use: end what has files or its working directory there"
            f" (`fuser -vm {mountpoint}` lists it), then try again"
        )
    raise MountError(f"Mount {mountpoint} can't be ended: {reason or os.strerror(code)}")
