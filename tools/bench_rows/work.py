"""The pieces of work that rows time, the same for every contender."""

import os
import random
from pathlib import Path

from bench_rows.machine import run
from bench_rows.measure import stopwatch

MIB = 1 << 20
SMALL = 4096


def walk_seconds(tree: Path) -> float:
    """Time to list a tree and stat everything in it, by a program in C."""
    with stopwatch() as watch:
        run(["find", tree, "-printf", "%s %m\n"])
    return watch.seconds


def read_seconds(tree: Path) -> float:
    """Time to read every file of a tree, by a program in C."""
    with stopwatch() as watch:
        run(["sh", "-c", f"find '{tree}' -type f -print0 | xargs -0 cat >/dev/null"])
    return watch.seconds


def create_seconds(folder: Path, count: int) -> float:
    """Time to create, write 4 KiB to, and close so many files."""
    data = random.Random(1).randbytes(SMALL)
    names = [f"{folder}/small-{number}" for number in range(count)]
    with stopwatch() as watch:
        for name in names:
            file = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            os.write(file, data)
            os.close(file)
    return watch.seconds


def unlink_seconds(folder: Path, count: int) -> float:
    """Time to remove what `create_seconds` made."""
    names = [f"{folder}/small-{number}" for number in range(count)]
    with stopwatch() as watch:
        for name in names:
            os.unlink(name)
    return watch.seconds


def write_seconds(path: Path, size: int) -> float:
    """Time to write a new file of `size` bytes of noise, front to back, and to close it."""
    block = bytearray(random.Random(2).randbytes(MIB))
    with stopwatch() as watch:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        for number in range(size // MIB):
            block[:8] = number.to_bytes(8, "little")
            os.write(file, block)
        os.close(file)
    return watch.seconds


def read_file_seconds(path: Path) -> float:
    """Time to read a file, front to back."""
    with stopwatch() as watch:
        file = os.open(path, os.O_RDONLY)
        while os.read(file, MIB):
            pass
        os.close(file)
    return watch.seconds
