"""What the directory of a case holds before the case acts."""

import os

BIG = bytes(range(251)) * 1200
"""301,200 bytes: three chunks, the last of them not full."""

OLD = 1_234_567_890_123_456_789


def standard() -> None:
    """A little of everything, made in the current directory."""
    for name, data in (
        ("file", b"hello, world\n"),
        ("other", b"other\n"),
        ("big", BIG),
        ("empty", b""),
    ):
        with open(name, "wb") as file:
            file.write(data)
    os.mkdir("dir")
    os.mkdir("dir/sub")
    os.mkdir("emptydir")
    for name in ("dir/a", "dir/b", "dir/sub/deep"):
        with open(name, "wb") as file:
            file.write(name.encode())
    os.symlink("file", "link")
    os.symlink("dir", "dirlink")
    os.symlink("nowhere", "dangling")
    os.symlink("loop", "loop")
    os.link("other", "twin")
    os.mkfifo("fifo", 0o644)
    for name in ("file", "other", "big", "empty", "dir", "dir/sub", "emptydir"):
        os.utime(name, ns=(OLD, OLD))


def nothing() -> None:
    """An empty directory."""


def many() -> None:
    """A directory of many names."""
    os.mkdir("many")
    for number in range(600):
        os.close(os.open(f"many/{number:05d}-{'n' * (number % 40)}", os.O_CREAT | os.O_WRONLY))
