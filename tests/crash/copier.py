"""Copies into a mount while the daemon is killed (see tests.crash.worker).

It makes files in a folder, over and over, and tells after every operation that returned what is
true from then on.
"""

import os
import random
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

SIZES = (0, 10, 4096, 5000, 128 * 1024, 300_000, 1_500_000)
PER_FOLDER = 12
WRITE_SIZE = 64 * 1024


def operations(top: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Works for ever; yields what is true from now on, after each operation."""
    rng = random.Random(seed)
    number = 0
    while True:
        folder = top / f"{seed}-{number:06}"
        folder.mkdir()
        yield {"path": str(folder), "is": "directory"}
        files = []
        for _ in range(PER_FOLDER):
            number += 1
            file = folder / f"file-{number}"
            # Announced first: until it is closed, this one file may be anything.
            yield {"path": str(file), "is": "started"}
            yield {"path": str(file), **write_file(file, rng)}
            files.append(file)
        yield from rearrange(folder, files, rng)


def write_file(file: Path, rng: random.Random) -> dict[str, Any]:
    """Writes a file in pieces and closes it, at times after fsync."""
    data = rng.randbytes(rng.choice(SIZES))
    descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
    for start in range(0, len(data), WRITE_SIZE):
        os.write(descriptor, data[start : start + WRITE_SIZE])
    if rng.random() < 0.2:
        os.fsync(descriptor)
    os.close(descriptor)
    return {"is": "file", "sha256": sha256(data).hexdigest()}


def rearrange(folder: Path, files: list[Path], rng: random.Random) -> Iterator[dict[str, Any]]:
    """Removes, renames, links and marks some of the files."""
    removed, renamed, linked, marked = rng.sample(files, 4)
    target = folder / "renamed"
    yield {"path": str(removed), "is": "going"}
    removed.unlink()
    yield {"path": str(removed), "is": "gone"}
    yield {"path": str(renamed), "is": "moving", "to": str(target)}
    renamed.rename(target)
    yield {"path": str(renamed), "is": "moved", "to": str(target)}
    os.link(linked, folder / "linked")
    yield {"path": str(linked), "is": "linked", "to": str(folder / "linked")}
    os.setxattr(marked, "user.mark", marked.name.encode())
    marked.chmod(0o444)
    yield {"path": str(marked), "is": "marked", "mark": marked.name}
