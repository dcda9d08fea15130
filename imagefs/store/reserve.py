"""Space set aside, so that a store on a full disk can still be opened and emptied.

SQLite has to create a file before it can read a database, and deleting is a transaction, so
without this a store that filled its disk could not even be told to delete something. The
file `reserve` is given up when the disk is full and made again when there is room.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from imagefs.disk import Disk
from imagefs.errors import ImagefsError

log = logging.getLogger(__name__)

RESERVE = 4 * 1024 * 1024
_PLENTY = 16 * RESERVE


def settle(file: Path, disk: Disk) -> None:
    """Makes the reserve where there is plenty of room, gives it up where there is hardly any."""
    space = disk.space(file.parent)
    available = space.blocks_available * space.block_size
    if available < RESERVE:
        release(file, disk)
    elif available > _PLENTY and disk.size_of(file) is None:
        with suppress(FileExistsError):  # another process is faster
            _make(file, disk)


def release(file: Path, disk: Disk) -> bool:
    """Gives the reserve up; False when it was given up before."""
    try:
        disk.unlink(file)
    except FileNotFoundError:
        return False
    log.warning("The disk is full: %s is given up so that there is room to delete", file)
    return True


def _make(file: Path, disk: Disk) -> None:
    fd = disk.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        disk.allocate(fd, RESERVE)
    except ImagefsError as error:  # it can be done without
        log.info("There is no reserve: %s", error)
        disk.unlink(file)
    finally:
        disk.close(fd)
