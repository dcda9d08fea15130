"""Trees with everything that a file system must keep, made for the tests."""

import os
import random
import socket
import stat
import subprocess
import sys
from pathlib import Path

CHUNK = 128 * 1024
LONGEST_TARGET = 4095
LONGEST_NAME = 255
SECOND = 10**9
TIMES = {
    "before-1970": -5 * SECOND + 123_456_789,
    "epoch": 0,
    "last-nanosecond": SECOND - 1,
    "after-2106": 4_500_000_000 * SECOND + 1,
}
SIZES = (0, 1, 4095, 4096, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 77)


def build(root: Path, *, privileged: bool) -> None:
    """Fills a new directory; `privileged` adds what only root can make on an ordinary file system."""
    root.mkdir(parents=True)
    make_contents(root / "contents")
    make_names(root / "names")
    make_links(root / "links")
    make_sparse(root / "sparse")
    make_attributes(root / "attributes", unreadable=privileged)
    make_special(root / "special")
    if privileged:
        make_privileged(root / "privileged")
    make_times(root / "times")
    os.utime(root, ns=(SECOND, 1_600_000_000 * SECOND + 7))


def content(size: int, seed: int) -> bytes:
    """Half noise, half text: part compresses, nothing repeats."""
    rng = random.Random(seed)
    return (rng.randbytes(size // 2) + f"line {seed}\n".encode() * size)[:size]


def make_contents(folder: Path) -> None:
    folder.mkdir()
    for size in SIZES:
        (folder / f"size-{size}").write_bytes(content(size, size))
    (folder / "zeros").write_bytes(bytes(3 * CHUNK))
    (folder / "duplicate").write_bytes(content(SIZES[-1], SIZES[-1]))


def make_names(folder: Path) -> None:
    folder.mkdir()
    names = (
        b"not-utf8-\xff\xfe",
        "grüße-日本".encode(),
        b"new\nline",
        b"-leading-dash",
        b".hidden",
        b"back\\slash",
        b"sp ace",
        b"x" * LONGEST_NAME,
        b"\x01\x7f",
    )
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(name)
    deep = folder
    for level in range(40):
        deep /= f"level-{level:02}"
        deep.mkdir()
    (deep / "bottom").write_text("here\n")
    (folder / "empty").mkdir()


def make_links(folder: Path) -> None:
    folder.mkdir()
    (folder / "one").mkdir()
    (folder / "two").mkdir()
    (folder / "one/file").write_text("shared by three names\n")
    os.link(folder / "one/file", folder / "two/same")
    os.link(folder / "one/file", folder / "another")
    (folder / "relative").symlink_to("one/file")
    (folder / "dangling").symlink_to("nowhere/at/all")
    (folder / "absolute").symlink_to("/etc/passwd")
    (folder / "longest").symlink_to(("x" * 200 + "/") * 20 + "y" * (LONGEST_TARGET - 4020))
    os.link(folder / "relative", folder / "two/linked-symlink", follow_symlinks=False)


def make_sparse(folder: Path) -> None:
    folder.mkdir()
    with open(folder / "holes", "wb") as file:
        file.truncate(64 * CHUNK)
        for chunk in (3, 17, 40):
            file.seek(chunk * CHUNK + 100)
            file.write(content(1000, chunk))
    with open(folder / "all-hole", "wb") as file:
        file.truncate(8 * CHUNK + 5)


def make_attributes(folder: Path, *, unreadable: bool) -> None:
    folder.mkdir()
    modes = (0o400, 0o600, 0o644, 0o755, 0o777, 0o4755, 0o2755, 0o6711, 0o1644)
    for mode in (0o000, 0o200, *modes) if unreadable else modes:
        file = folder / f"mode-{mode:04o}"
        file.write_text(f"{mode:o}\n")
        file.chmod(mode)
    for mode in (0o700, 0o755, 0o1777, 0o2775):
        (folder / f"directory-{mode:04o}").mkdir()
        (folder / f"directory-{mode:04o}").chmod(mode)
    file = folder / "xattrs"
    file.write_text("look closer\n")
    os.setxattr(file, "user.empty", b"")
    os.setxattr(file, "user.binary", bytes(range(256)))
    os.setxattr(folder, "user.on-directory", b"yes")
    acl = folder / "acl"
    acl.write_text("for some\n")
    shared = folder / "acl-directory"
    shared.mkdir()
    subprocess.run(["setfacl", "-m", "u:1234:rw,g:4321:r,m::rw", acl], check=True)
    subprocess.run(["setfacl", "-m", "u:1234:rwx,d:u:1234:rwx,d:g::r", shared], check=True)


def make_special(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        # A socket's path is limited to 108 bytes, wherever the tests run.
        here = os.open(folder, os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)


def make_privileged(folder: Path) -> None:
    folder.mkdir()
    os.mknod(folder / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(folder / "disk", 0o660 | stat.S_IFBLK, os.makedev(259, 70_000))
    (folder / "theirs").write_text("not root's\n")
    os.chown(folder / "theirs", 1234, 4321)
    (folder / "big-ids").write_text("32 bits\n")
    os.chown(folder / "big-ids", 3_000_000_000, 4_000_000_000)
    (folder / "link").symlink_to("theirs")
    os.lchown(folder / "link", 1234, 4321)
    ping = folder / "capable"
    ping.write_text("capabilities\n")
    os.setxattr(ping, "security.capability", bytes.fromhex("0100000200200000" + "00" * 12))
    os.setxattr(ping, "trusted.note", b"root only")
    (folder / "setuid").write_text("set-user-id\n")
    os.chown(folder / "setuid", 1234, 4321)
    (folder / "setuid").chmod(0o6755)


def make_times(folder: Path) -> None:
    folder.mkdir()
    for name, time in TIMES.items():
        (folder / name).write_text(f"{name}\n")
        os.utime(folder / name, ns=(time, time))
    (folder / "symlink").symlink_to("epoch")
    os.utime(folder / "symlink", ns=(1, 987_654_321), follow_symlinks=False)
    (folder / "directory").mkdir()
    os.utime(folder / "directory", ns=(1, 1_000_000_001))


if __name__ == "__main__":
    # For a tree of another user.
    build(Path(sys.argv[1]), privileged=False)
