"""Writes files and notes them only after fsync of the file and of its directory.

The files are new ones, and old ones written anew in the middle: of those both contents are noted
before, because until fsync either may be there, in any part.
"""

import os
import random
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

SIZES = (1, 3000, 4096, 100_000, 400_000)
PIECE = 32 * 1024


def operations(folder: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Works for ever; yields what is true from now on, after each fsync."""
    rng = random.Random(seed)
    folder.mkdir()
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    number = 0
    try:
        while True:
            number += 1
            path = folder / f"synced-{number}"
            yield {"path": str(path), "is": "started"}
            data = bytearray(rng.randbytes(rng.choice(SIZES)))
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            try:
                write(file, data, 0)
                os.fsync(directory)
                yield noted(path, data)
                yield {"path": str(path), "is": "rewriting"}
                part = rng.randbytes(min(len(data), 5000))
                at = rng.randrange(len(data) - len(part) + 1)
                data[at : at + len(part)] = part
                write(file, part, at)
                yield noted(path, data)
            finally:
                os.close(file)
    finally:
        os.close(directory)


def write(file: int, data: bytes | bytearray, offset: int) -> None:
    for start in range(0, len(data), PIECE):
        os.pwrite(file, data[start : start + PIECE], offset + start)
    os.fsync(file)


def noted(path: Path, data: bytearray) -> dict[str, Any]:
    return {"path": str(path), "is": "file", "sha256": sha256(data).hexdigest()}
