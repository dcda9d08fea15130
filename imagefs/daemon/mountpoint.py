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
from pathlib import Path
from typing import NamedTuple

from imagefs.errors import Busy, MountError

_DEVICE = Path("/dev/fuse")
_CONFIGURATION = Path("/etc/fuse.conf")
OUR_TYPE = "fuse.imagefs"
_PROCESS_ATTRIBUTE = "user.imagefs.process"
_MNT_DETACH = 2
_DEAD = {errno.ENOTCONN, errno.ECONNABORTED}
"""What a mount answers whose daemon is gone; the second, to what was asked while it went."""

_END_SECONDS = 10.0
"""How long a daemon may serve after its mount is gone from here."""

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


class _Mount(NamedTuple):
    """One line of the kernel's table; `group` and `master` are its peers and whom it follows."""

    number: int
    parent: int
    device: str
    root: Path
    path: Path
    group: str | None
    master: str | None
    kind: str


def mounted_type(mountpoint: Path) -> str | None:
    """The type of the file system mounted exactly there, None for no mount."""
    mount = _mounted(_mount_table(), mountpoint)
    return mount.kind if mount is not None else None


def mounts() -> list[Path]:
    """Where imagefs is mounted."""
    return [mount.path for mount in _mount_table() if mount.kind == OUR_TYPE]


def is_dead(mountpoint: Path) -> bool:
    """Whether an imagefs is mounted there whose daemon is gone."""
    if mounted_type(mountpoint) != OUR_TYPE:
        return False
    try:
        os.statvfs(mountpoint)
    except OSError as error:
        return error.errno in _DEAD
    return False


def other_places(mountpoint: Path) -> list[Path]:
    """Where what is mounted there is mounted too, and stays when it is unmounted there."""
    table = _mount_table()
    mount = _mounted(table, mountpoint)
    if mount is None:
        return []
    by_number = {other.number: other for other in table}
    return [
        other.path
        for other in table
        if other.device == mount.device
        and other.number != mount.number
        and not _goes_with(other, mount, by_number)
    ]


def _goes_with(other: _Mount, mount: _Mount, by_number: dict[int, _Mount]) -> bool:
    """Whether the kernel unmounts `other` when `mount` is: by propagation of its parent."""
    parent, others_parent = by_number.get(mount.parent), by_number.get(other.parent)
    if parent is None or others_parent is None or parent.group is None:
        return False
    if parent.group not in (others_parent.group, others_parent.master):
        return False
    return _inside(mount, parent) == _inside(other, others_parent)


def _inside(mount: _Mount, parent: _Mount) -> Path:
    """The mountpoint as a path in the parent's file system."""
    return parent.root / mount.path.relative_to(parent.path)


def _mounted(table: list[_Mount], mountpoint: Path) -> _Mount | None:
    """What is visible there: the last of several mounts at one place."""
    return next((mount for mount in reversed(table) if mount.path == mountpoint), None)


def _mount_table() -> list[_Mount]:
    text = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    return [_parsed(line) for line in text.splitlines()]


def _parsed(line: str) -> _Mount:
    fields, _, rest = line.partition(" - ")
    number, parent, device, root, path, _options, *tags = fields.split()
    peers = dict(tag.split(":", 1) for tag in tags if ":" in tag)
    return _Mount(
        number=int(number),
        parent=int(parent),
        device=device,
        root=Path(_unescape(root)),
        path=Path(_unescape(path)),
        group=peers.get("shared"),
        master=peers.get("master"),
        kind=rest.split()[0],
    )


def _unescape(text: str) -> str:
    return re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), text)


def detach(mountpoint: Path) -> None:
    """Take a mount away at once, whoever still uses it; raises MountError."""
    _end(mountpoint, ["-z"], _MNT_DETACH)


def end(mountpoint: Path) -> None:
    """Unmount; raises Busy while something in it is open, MountError if it cannot be."""
    _end(mountpoint, [], 0)


def unmount(mountpoint: Path) -> None:
    """Unmount like `end`, and wait until the daemon is gone.

    Raises Busy, with everything left as it is, while the mount is visible at other places too;
    MountError if the daemon goes on because of places that cannot be seen from here.
    """
    try:
        process = int(os.getxattr(mountpoint, _PROCESS_ATTRIBUTE))
        ended = os.pidfd_open(process)
    except OSError as error:
        (detach if error.errno in _DEAD else end)(mountpoint)
        return
    try:
        _check_only_place(mountpoint)
        end(mountpoint)
        _wait_for_end(mountpoint, process, ended)
    finally:
        os.close(ended)


def _check_only_place(mountpoint: Path) -> None:
    others = other_places(mountpoint)
    if others:
        raise Busy(
            f"Mount {mountpoint} is visible at other places, too:"
            f" `umount {' '.join(map(str, others))}` first"
        )


def _wait_for_end(mountpoint: Path, process: int, ended: int) -> None:
    """Wait for a daemon to put everything away; not for one that goes on serving."""
    # A process descriptor becomes readable when the process ends.
    while not select.select([ended], [], [], _END_SECONDS)[0]:
        if _serves(process):
            raise MountError(
                f"{mountpoint} was unmounted, but its daemon (PID {process}) still serves"
                f" another mount namespace or bind mount; end those or `kill {process}`"
            )


def _serves(process: int) -> bool:
    """Whether a daemon is connected to the kernel; taken for granted where that is hidden."""
    try:
        files = list(Path(f"/proc/{process}/fd").iterdir())
        return any(os.readlink(file) == str(_DEVICE) for file in files)
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _end(mountpoint: Path, options: list[str], flags: int) -> None:
    if os.geteuid() == 0:
        if _libc.umount2(os.fsencode(mountpoint), flags) != 0:
            _refuse(mountpoint, ctypes.get_errno(), "")
        return
    command = ["fusermount3", "-u", *options, "--", str(mountpoint)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        reason = " ".join(ended.stderr.split())
        if "not found" in reason:
            reason = "it is another user's, who can end it, or root"
        _refuse(mountpoint, errno.EBUSY if "busy" in reason else 0, reason)


def _refuse(mountpoint: Path, code: int, reason: str) -> None:
    if code == errno.EBUSY:
        raise Busy(
            f"Mount {mountpoint} is in use: end what has files or its working directory there"
            f" (`fuser -vm {mountpoint}` lists it), then try again"
        )
    raise MountError(f"Mount {mountpoint} can't be ended: {reason or os.strerror(code)}")
