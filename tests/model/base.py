"""The tree that every script starts with: a little of everything that an image can hold.

Names are those that scripts use, so that what they make meets what came with the image. Every
time is long past: what an operation sets to the present is seen.
"""

import os
import socket
import stat
import subprocess
from pathlib import Path

from tests.model.side import content
from tests.model.users import ALICE, BOB, TEAM
from tests.umask import umask

CHUNK = 128 * 1024
PAST = 1_000_000_000 * 10**9
CAPABILITY = bytes.fromhex("0100000200200000" + "00" * 12)
LONG = "x" * 255

FILES = {
    "a": (10, 0o644),
    "b": (CHUNK, 0o666),
    "d/a": (3 * CHUNK + 77, 0o666),
    "d/b": (4095, 0o4755),
    "d/e/a": (CHUNK + 1, 0o640),
    "d/e/c": (1, 0o2771),
    "team/a": (5000, 0o664),
    "open/a": (2 * CHUNK, 0o666),
    f"d/{LONG}": (100, 0o600),
    "d/ü": (4097, 0o444),
}
DIRECTORIES = {
    "d": 0o777,
    "d/e": 0o755,
    "d/empty": 0o777,
    "team": 0o2775,
    "open": 0o1777,
    "open/deep": 0o700,
    "open/deep/er": 0o755,
    "acl": 0o777,
}


def build(root: Path) -> None:
    with umask(0):
        build_all(root)


def build_all(root: Path) -> None:
    root.mkdir()
    root.chmod(0o777)
    for name, mode in DIRECTORIES.items():
        (root / name).mkdir()
        (root / name).chmod(mode)
    for number, (name, (size, mode)) in enumerate(FILES.items()):
        (root / name).write_bytes(content(1000 + number, size))
        (root / name).chmod(mode)
    many = root / "many"
    many.mkdir()
    for number in range(40):
        (many / f"entry-{number:02}").touch()
    build_links(root)
    build_special(root)
    build_rights(root)
    build_sparse(root)
    for top, folders, names in os.walk(root, topdown=False):
        for number, name in enumerate([*folders, *names, "."]):
            time = PAST + number * 10**9 + number
            os.utime(os.path.join(top, name), ns=(time, time), follow_symlinks=False)


def build_links(root: Path) -> None:
    os.link(root / "d/a", root / "d/linked")
    os.link(root / "d/a", root / "open/linked")
    os.link(root / "a", root / "d/e/linked")
    (root / "s").symlink_to("d/a")
    (root / "sd").symlink_to("d")
    (root / "loop").symlink_to("loop")
    (root / "d/dangling").symlink_to("nowhere")
    os.link(root / "s", root / "d/s", follow_symlinks=False)


def build_special(root: Path) -> None:
    os.mkfifo(root / "fifo", 0o666)
    os.mknod(root / "device", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(root / "d/disk", 0o660 | stat.S_IFBLK, os.makedev(259, 70_000))
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(root, os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)


def build_rights(root: Path) -> None:
    os.chown(root / "team", 0, TEAM)
    os.chown(root / "team/a", ALICE, TEAM)
    os.chown(root / "d/b", ALICE, TEAM)
    os.chmod(root / "d/b", 0o6755)
    os.chown(root / "d/e/c", BOB, TEAM)
    os.chmod(root / "d/e/c", 0o2771)
    os.chown(root / "open/deep", ALICE, ALICE)
    os.chown(root / "open/a", BOB, BOB)
    os.setxattr(root / "b", "user.a", b"came with the image")
    os.setxattr(root / "b", "user.b", b"")
    os.setxattr(root / "d", "user.a", b"on a directory")
    os.setxattr(root / "d/b", "security.capability", CAPABILITY)
    os.setxattr(root / "a", "trusted.a", b"root only")
    acl = f"u:{ALICE}:rw,g:{TEAM}:r,m::rw"
    subprocess.run(["setfacl", "-m", acl, str(root / "d/e/a")], check=True)
    default = f"u:{BOB}:rwx,d:u:{BOB}:rwx,d:g::rx,d:m::rwx,d:o::rx"
    subprocess.run(["setfacl", "-m", default, str(root / "acl")], check=True)


def build_sparse(root: Path) -> None:
    with open(root / "sparse", "wb") as file:
        file.truncate(20 * CHUNK)
        for chunk in (2, 3, 11):
            file.seek(chunk * CHUNK + 100)
            file.write(content(chunk, 1000))
    with open(root / "d/huge", "wb") as file:
        file.truncate(2**41)
        file.seek(2**40 + 5)
        file.write(b"far out")
    (root / "d/huge").chmod(0o666)
