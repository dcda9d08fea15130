"""What else programs ask a file system for: statfs, ioctl, handles, notification, sparse copies."""

import ctypes
import os
import struct
import subprocess

from tests.posix import calls
from tests.posix.case import By, Difference, case
from tests.posix.observe import Seen, content, look, put, tried

IN_ALL = 0xFFF
EVENTS = {
    0x1: "access", 0x2: "modify", 0x4: "attrib", 0x8: "close written", 0x10: "close", 0x20: "open",
    0x40: "moved from", 0x80: "moved to", 0x100: "create", 0x200: "delete", 0x400: "delete self",
    0x800: "move self",
}  # fmt: skip


@case()
def space_is_told() -> Seen:
    told = os.statvfs("file")
    fd = os.open("dir", os.O_RDONLY)
    return {
        "longest name": told.f_namemax,
        "blocks": told.f_blocks > told.f_bfree > 0,
        "available": 0 < told.f_bavail <= told.f_bfree,
        "unit": told.f_frsize,
        "files": told.f_files >= told.f_ffree > 0,
        "by descriptor": os.fstatvfs(fd).f_namemax,
        "missing": tried(os.statvfs, "missing"),
        "pathconf": [os.pathconf("file", name) for name in ("PC_NAME_MAX", "PC_PATH_MAX", "PC_PIPE_BUF", "PC_NO_TRUNC", "PC_CHOWN_RESTRICTED")],
        "read only": bool(told.f_flag & os.ST_RDONLY),
    }  # fmt: skip


NO_FLAGS = Difference("`chattr`, `lsattr`", "ENOTTY")


@case(differs={"flags": NO_FLAGS, "directory": NO_FLAGS, "set": NO_FLAGS})
def flags_of_inodes() -> Seen:
    def flags(path: str) -> object:
        return tried(lambda: calls.ioctl(os.open(path, os.O_RDONLY), calls.FS_IOC_GETFLAGS) > 0)

    fd = os.open("file", os.O_RDONLY)
    return {
        "flags": flags("file"),
        "directory": flags("dir"),
        "set": tried(calls.ioctl, fd, calls.FS_IOC_SETFLAGS, 0x40) != "ENOTTY" or "ENOTTY",
        "unknown": tried(calls.ioctl, fd, 0x12345678),
        "clone": tried(calls.ioctl, os.open("big", os.O_RDWR), calls.FICLONE, fd),
    }


@case(By.ROOT)
def file_handles() -> Seen:
    """As NFS servers use them: good for as long as the kernel knows the inode."""
    mount = os.open(".", os.O_RDONLY)
    seen: Seen = {}
    for name in ("file", "dir"):
        kept = os.open(name, os.O_RDONLY)
        handle = tried(calls.name_to_handle, name)
        fd = tried(calls.open_by_handle, mount, handle)
        seen[name] = os.fstat(fd).st_ino == os.fstat(kept).st_ino if isinstance(fd, int) else fd
    os.rename("file", "renamed")
    fd = tried(calls.open_by_handle, mount, tried(calls.name_to_handle, "renamed"))
    seen["renamed"] = os.read(fd, 5) if isinstance(fd, int) else fd
    return seen


@case(By.ROOT)
def changes_are_notified_to_watchers_of_everything() -> Seen:
    """fanotify, on one file and on a directory's children."""
    modify, close_write, opening, children = 0x2, 0x8, 0x20, 0x08000000
    fd = tried(calls.call, "fanotify_init", 0x3, os.O_RDONLY)
    if not isinstance(fd, int):
        return {"init": fd}
    mask = ctypes.c_uint64(modify | close_write | opening | children)
    seen: Seen = {"mark": tried(calls.call, "fanotify_mark", fd, 1, mask, calls.AT_FDCWD, b"dir")}
    with open("dir/a", "ab", buffering=0) as file:
        file.write(b"x")
    raw = tried(os.read, fd, 4096)
    found = []
    at = 0
    while isinstance(raw, bytes) and at < len(raw):
        length, _, _, _, kinds, told, _ = struct.unpack_from("<IBBHQii", raw, at)
        found.append((kinds, os.read(told, 9)))
        os.close(told)
        at += length
    seen["events"] = found
    return seen


def events(action: object, mask: int = IN_ALL) -> list[tuple[str, str]]:
    """What inotify tells of `dir` while something is done."""
    fd = calls.call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
    calls.call("inotify_add_watch", fd, b"dir", mask)
    action()  # type: ignore[operator]
    raw = tried(os.read, fd, 65536)
    found: list[tuple[str, str]] = []
    at = 0
    while isinstance(raw, bytes) and at < len(raw):
        _, kinds, _, length = struct.unpack_from("iIII", raw, at)
        name = raw[at + 16 : at + 16 + length].rstrip(b"\0").decode()
        found += [(word, name) for bit, word in EVENTS.items() if kinds & bit]
        at += 16 + length
    os.close(fd)
    return found


@case()
def changes_are_notified() -> Seen:
    def write() -> None:
        with open("dir/a", "ab", buffering=0) as file:
            file.write(b"x")

    return {
        "create": events(lambda: put("dir/new", b"x")),
        "write": events(write),
        "read": events(lambda: content("dir/a")),
        "chmod": events(lambda: os.chmod("dir/a", 0o600)),
        "rename": events(lambda: os.rename("dir/a", "dir/c")),
        "in and out": [
            events(lambda: os.rename("dir/c", "c")),
            events(lambda: os.rename("c", "dir/c")),
        ],
        "link": events(lambda: os.link("file", "dir/linked")),
        "unlink": events(lambda: os.unlink("dir/linked")),
        "mkdir": events(lambda: os.mkdir("dir/d")),
        "rmdir": events(lambda: os.rmdir("dir/d")),
        "truncate": events(lambda: os.truncate("dir/c", 1)),
        "xattr": events(lambda: os.setxattr("dir/c", "user.x", b"1")),
    }


@case(differs={"epoll": Difference("`epoll` of files", None)})
def waiting_for_files_never_waits() -> Seen:
    import select

    fd = os.open("file", os.O_RDWR)
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLOUT)
    seen: Seen = {"poll": [kind for _, kind in poll.poll(0)]}
    seen["select"] = [len(found) for found in select.select([fd], [fd], [], 0)]
    with select.epoll() as epoll:
        seen["epoll"] = tried(epoll.register, fd)
    return seen


@case()
def advice_is_taken() -> Seen:
    fd = os.open("big", os.O_RDWR)
    return {
        "fadvise": [tried(os.posix_fadvise, fd, 0, 0, advice) for advice in range(6)],
        "read": os.pread(fd, 3, 200_000),
        "readahead": tried(calls.call, "readahead", fd, ctypes.c_int64(0), 65536),
        "bad": tried(os.posix_fadvise, fd, 0, 0, 99),
    }


@case()
def copies_keep_holes_and_everything_else() -> Seen:
    with open("sparse", "wb") as file:
        file.truncate(10_000_000)
        file.seek(5_000_000)
        file.write(b"data")
    os.setxattr("dir", "user.x", b"1")
    os.chmod("dir/a", 0o640)
    os.utime("dir/sub", ns=(5, 6))
    for command in (
        ["cp", "-a", "--sparse=always", "sparse", "copy"], ["cp", "-a", "dir", "copied"],
        ["tar", "--sparse", "-cf", "archive.tar", "sparse"], ["cp", "--reflink=auto", "big", "big2"],
        ["dd", "if=big", "of=dd", "bs=1000", "conv=sparse", "status=none"],
    ):  # fmt: skip
        subprocess.run(command, check=True)
    os.mkdir("unpacked")
    subprocess.run(["tar", "-xf", "archive.tar", "-C", "unpacked"], check=True)
    return {
        "sparse": [os.stat(name).st_blocks < 2000 for name in ("sparse", "copy", "unpacked/sparse")],
        "same": content("copy") == content("sparse") == content("unpacked/sparse"),
        "archive": look("archive.tar")["size"],
        "directory": [look("copied"), look("copied/a"), os.stat("copied/sub").st_mtime_ns],
        "attribute": tried(os.getxattr, "copied", "user.x"),
        "reflink": content("big2") == content("dd") == content("big"),
        "insisting": subprocess.run(["cp", "--reflink=always", "big", "no"], capture_output=True, check=False).returncode,
        "du": subprocess.run(["du", "-s", "--apparent-size", "-B1", "sparse"], capture_output=True, check=True).stdout,
    }  # fmt: skip


@case()
def a_working_directory_that_is_gone() -> Seen:
    os.chdir("emptydir")
    os.rmdir("../emptydir")
    return {
        "program": subprocess.run(["/bin/true"], check=False).returncode,
        "shell": subprocess.run(["/bin/sh", "-c", ": >new"], capture_output=True, check=False).returncode,
        "above": sorted(os.listdir(".."))[:2],
    }  # fmt: skip


@case()
def files_that_programs_replace() -> Seen:
    """Write aside, sync, rename over: what editors and databases do."""
    for number in range(20):
        with open("file.new", "wb") as file:
            file.write(b"%d" % number)
            file.flush()
            os.fsync(file.fileno())
        os.rename("file.new", "file")
        directory = os.open(".", os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
    return {"content": content("file"), "left": sorted(os.listdir())}
