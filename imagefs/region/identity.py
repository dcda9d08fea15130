"""The id of a store: how regions tell one store from another.

It is kept in the store's directory beside what cannot be made again, not among what was fetched
from regions, which anybody may delete: with another id the store's leases and uses in regions would
be a stranger's. A copy of a whole store has its id too, so leases also tell attempts apart.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Final

from imagefs.disk import Disk
from imagefs.errors import Corrupt
from imagefs.region.layout import STORE_ID_SIZE

_FILE: Final = "id"
_WHOLE = re.compile(rb"[0-9a-f]{32}\n")
_LENGTH: Final = 2 * STORE_ID_SIZE + 1


def store_id(store: Path, disk: Disk) -> bytes:
    """The id of the store in this directory, 16 bytes; made, durably, when it is first asked for.

    Blocks. Raises `Corrupt` when the file holds something else.
    """
    path = store / _FILE
    fd = disk.open(path, os.O_RDWR | os.O_CREAT)
    try:
        disk.lock(fd)  # so that two processes make one id
        text = disk.pread(fd, _LENGTH + 1, 0)
        if len(text) < _LENGTH:  # new, or a crash came before it was whole: nobody has used it
            text = f"{secrets.token_hex(STORE_ID_SIZE)}\n".encode()
            disk.pwrite(fd, text, 0)
            disk.fdatasync(fd)
            disk.fsync_dir(store)
    finally:
        disk.close(fd)
    if _WHOLE.fullmatch(text) is None:
        raise Corrupt(
            f"File {path} is not the id of a store: put back what was there, or delete it and"
            " remount, so that the store gets a new one"
        )
    return bytes.fromhex(text.decode().strip())
