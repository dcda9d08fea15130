"""Opening: flags, what may be opened how, programs that run, limits."""

import errno
import os
import resource
import shutil
import signal
import subprocess

from tests.acceptance.child import end_of
from tests.posix import calls
from tests.posix.calls import AT_EACCESS, AT_SYMLINK_NOFOLLOW, O_TMPFILE, faccessat2
from tests.posix.case import By, Difference, case
from tests.posix.observe import Seen, content, look, mode, moved, opened, put, tried

NEW = os.O_CREAT | os.O_WRONLY


def written(path: str, flags: int, *parts: bytes) -> bytes:
    """What a file holds after it was opened and written to."""
    fd = os.open(path, flags, 0o644)
    for part in parts:
        os.write(fd, part)
    os.close(fd)
    return content(path)


@case()
def open_creates_and_cuts() -> Seen:
    os.umask(0o027)
    return {
        "new": opened("new", NEW, 0o666),
        "made": look("new"),
        "read only": opened("ro", os.O_CREAT | os.O_RDONLY, 0o000),
        "ro": look("ro"),
        "write to what one may not": written("wo", NEW | os.O_EXCL, b"x"),
        "bits": opened("bits", NEW, 0o7777),
        "bits made": mode("bits"),
        "exclusive": opened("file", NEW | os.O_EXCL),
        "exclusive directory": opened("dir", NEW | os.O_EXCL),
        "exclusive link": opened("link", NEW | os.O_EXCL),
        "existing keeps its mode": [opened("file", NEW, 0o600), mode("file")],
        "cut": written("file", os.O_WRONLY | os.O_TRUNC, b"abc"),
        "cut reading": [opened("big", os.O_RDONLY | os.O_TRUNC), look("big")["size"]],
        "cut nothing": opened("missing", os.O_WRONLY | os.O_TRUNC),
        "cut a directory": opened("dir", os.O_RDONLY | os.O_TRUNC),
        "cut a fifo": opened("fifo", os.O_RDWR | os.O_TRUNC),
        "without writing": written("other", os.O_WRONLY, b"O"),
    }


@case()
def open_of_directories() -> Seen:
    fd = os.open("dir", os.O_RDONLY)
    try:
        return {
            "write": opened("dir", os.O_WRONLY),
            "both": opened("dir", os.O_RDWR),
            "create": opened("dir", os.O_CREAT | os.O_RDONLY),
            "directory": opened("dir", os.O_DIRECTORY),
            "file as directory": opened("file", os.O_DIRECTORY),
            "link as directory": opened("dirlink", os.O_DIRECTORY),
            "link not followed": opened("dirlink", os.O_DIRECTORY | os.O_NOFOLLOW),
            "create a directory": opened("new", os.O_CREAT | os.O_DIRECTORY),
            "read": tried(os.read, fd, 10),
            "pread": tried(os.pread, fd, 10, 0),
            "write to it": tried(os.write, fd, b"x"),
            "ftruncate": tried(os.ftruncate, fd, 0),
            "truncate": tried(os.truncate, "dir", 0),
            "fsync": tried(os.fsync, fd),
            "fdatasync": tried(os.fdatasync, fd),
            "fchdir": tried(os.fchdir, fd),
            "openat": tried(os.stat, "sub/deep", dir_fd=fd).st_size,
        }
    finally:
        os.close(fd)


@case()
def open_of_symlinks() -> Seen:
    path = os.open("link", os.O_PATH | os.O_NOFOLLOW)
    return {
        "followed": opened("link", os.O_RDONLY),
        "not followed": opened("link", os.O_RDONLY | os.O_NOFOLLOW),
        "create not followed": opened("dangling", NEW | os.O_NOFOLLOW),
        "file not followed": opened("file", os.O_RDONLY | os.O_NOFOLLOW),
        "path": look(path),
        "readlink": os.readlink("", dir_fd=path),
        "read": tried(os.read, path, 1),
    }


@case()
def open_of_a_path_only() -> Seen:
    fd = os.open("file", os.O_PATH)
    by_number = f"/proc/self/fd/{fd}"
    seen: Seen = {
        "read": tried(os.read, fd, 1),
        "write": tried(os.write, fd, b"x"),
        "fchmod": tried(os.fchmod, fd, 0o600),
        "fchown": tried(os.fchown, fd, -1, -1),
        "fsync": tried(os.fsync, fd),
        "ftruncate": tried(os.ftruncate, fd, 0),
        "getxattr": tried(os.listxattr, fd),
        "stat": look(fd),
        "chmod by /proc": [tried(os.chmod, by_number, 0o640), mode("file")],
        "open by /proc": opened(by_number, os.O_RDWR),
    }
    os.unlink("file")
    seen["unlinked"] = look(fd)
    seen["open unlinked"] = opened(by_number, os.O_RDWR)
    seen["directory"] = opened("dir", os.O_PATH | os.O_DIRECTORY)
    return seen


@case(differs={"made": Difference("`O_TMPFILE`", "EOPNOTSUPP")})
def files_made_without_a_name() -> Seen:
    return {"made": opened(".", O_TMPFILE | os.O_RDWR)}


@case()
def appending_writes_at_the_end() -> Seen:
    first = os.open("file", os.O_RDWR | os.O_APPEND)
    second = os.open("file", os.O_WRONLY | os.O_APPEND)
    seen: Seen = {"start": os.lseek(first, 0, os.SEEK_CUR)}
    os.write(first, b"one ")
    os.write(second, b"two ")
    os.lseek(first, 0, os.SEEK_SET)
    os.write(first, b"three ")
    seen["position"] = os.lseek(first, 0, os.SEEK_CUR)
    seen["pwrite"] = os.pwrite(first, b"four ", 2)
    seen["read"] = os.pread(first, 100, 0)
    os.ftruncate(first, 3)
    os.write(second, b"five")
    seen["after a cut"] = content("file")
    third = os.open("file", os.O_WRONLY)
    seen["by flag"] = os.pwritev(third, [b"six", b"ty"], 0, os.RWF_APPEND)
    seen["position kept"] = os.lseek(third, 0, os.SEEK_CUR)
    seen["at the end"] = content("file")
    seen["elsewhere"] = written("big", os.O_WRONLY | os.O_APPEND, b"tail")[-6:]
    return seen


@case()
def synchronous_writes() -> Seen:
    seen: Seen = {}
    for name, flag in (("sync", os.O_SYNC), ("data", os.O_DSYNC), ("read", os.O_RSYNC)):
        seen[name] = written(name, NEW | flag, b"safe", b"ly")
    seen["big"] = len(written("big", os.O_WRONLY | os.O_SYNC, b"x" * 200_000))
    fd = os.open("big", os.O_RDWR)
    seen["flagged"] = os.pwritev(fd, [b"now"], 5, os.RWF_SYNC)
    seen["data flagged"] = os.pwritev(fd, [b"now"], 5, os.RWF_DSYNC)
    seen["fsync"] = [tried(os.fsync, fd), tried(os.fdatasync, fd)]
    seen["range"] = tried(calls.call, "sync_file_range", fd, 0, 4096, 7)
    seen["syncfs"] = tried(calls.call, "syncfs", fd)
    return seen


@case()
def direct_input_and_output() -> Seen:
    import mmap

    with mmap.mmap(-1, 8192) as page:
        page[:] = b"D" * 8192
        fd = os.open("direct", NEW | os.O_DIRECT | os.O_EXCL)
        seen: Seen = {"written": os.write(fd, page), "at": os.pwrite(fd, page, 4096)}
        os.close(fd)
        seen["content"] = content("direct") == b"D" * 12288
        reader = os.open("direct", os.O_RDONLY | os.O_DIRECT)
        seen["read"] = os.preadv(reader, [page], 4096)
        seen["at the end"] = os.preadv(reader, [page], 8192)
        seen["behind"] = os.preadv(reader, [page], 16384)
        # What is in the page cache and what goes around it are the same.
        with open("direct", "r+b", buffering=0) as plain:
            plain.write(b"plain")
            os.preadv(reader, [page], 0)
            seen["seen"] = bytes(page[:6])
        writer = os.open("direct", os.O_WRONLY | os.O_DIRECT)
        page[:5] = b"around"[:5]
        os.pwrite(writer, page, 0)
        seen["seen through the cache"] = content("direct")[:6]
        seen["append"] = len(written_direct(page))
    return seen


def written_direct(page: object) -> bytes:
    fd = os.open("direct", os.O_WRONLY | os.O_DIRECT | os.O_APPEND)
    os.write(fd, page)  # type: ignore[arg-type]
    os.close(fd)
    return content("direct")


@case(differs={"written": Difference("`O_DIRECT`", 3), "read": Difference("`O_DIRECT`", b"odd")})
def direct_writes_of_any_length() -> Seen:
    fd = os.open("direct", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    return {"written": tried(os.write, fd, b"odd"), "read": tried(os.pread, fd, 3, 0)}


@case()
def open_without_access_time() -> Seen:
    return {
        "own": opened("file", os.O_RDONLY | os.O_NOATIME),
        "directory": opened("dir", os.O_RDONLY | os.O_NOATIME),
    }


@case()
def close_on_exec_and_other_flags() -> Seen:
    import fcntl

    fd = os.open("file", os.O_RDWR | os.O_APPEND | os.O_NONBLOCK)
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    seen: Seen = {"append": bool(flags & os.O_APPEND), "nonblock": bool(flags & os.O_NONBLOCK)}
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    os.write(fd, b"HELLO")
    seen["append taken back"] = content("file")
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    os.write(fd, b"end")
    seen["append given"] = content("file")
    seen["direct given"] = tried(fcntl.fcntl, fd, fcntl.F_SETFL, os.O_DIRECT)
    return seen


# -- programs ---------------------------------------------------------------------------


def outcome(*command: str) -> object:
    def run() -> object:
        done = subprocess.run(command, capture_output=True, check=False)
        return done.returncode, done.stdout

    return tried(run)


@case()
def programs_and_scripts_run() -> Seen:
    shutil.copy("/bin/echo", "echo")
    put("script", b"#!./echo the\necho never\n")
    put("shell", b"#!/bin/sh\necho $0 $1\n")
    put("loopy", b"#!./loopy\n")
    seen: Seen = {"no x": outcome("./script")}
    for name in ("echo", "script", "shell", "loopy", "empty"):
        os.chmod(name, 0o755)
    os.symlink("shell", "alias")
    seen["program"] = outcome("./echo", "hello")
    seen["script"] = outcome("./script", "words")
    seen["shell"] = outcome("./shell", "word")
    seen["by a link"] = outcome("./alias", "word")
    seen["directory"] = outcome("./dir")
    seen["missing"] = outcome("./missing")
    seen["round and round"] = outcome("./loopy")
    put("bad", b"#!./missing\n")
    os.chmod("bad", 0o755)
    seen["no interpreter"] = outcome("./bad")
    os.chmod("echo", 0o644)
    seen["not any more"] = outcome("./echo")
    return seen


@case()
def running_programs_are_not_written_to() -> Seen:
    shutil.copy("/bin/sleep", "sleep")
    os.chmod("sleep", 0o755)
    with open("sleep", "r+b"):
        seen: Seen = {"open for writing": outcome("./sleep", "0")}
    with subprocess.Popen(["./sleep", "1000"]) as running:
        # The program that Popen starts has replaced its process when Popen returns.
        seen["write"] = opened("sleep", os.O_WRONLY)
        seen["cut"] = tried(os.truncate, "sleep", 0)
        seen["read"] = opened("sleep", os.O_RDONLY)
        seen["replaced"] = tried(os.rename, "file", "sleep")
        seen["new one"] = opened("sleep", os.O_WRONLY)
        running.kill()
    seen["ended"] = running.returncode == -signal.SIGKILL
    return seen


@case()
def libraries_are_mapped_from_here() -> Seen:
    import ctypes

    source = ctypes.util.find_library("z") if hasattr(ctypes, "util") else None
    library = next(
        path
        for path in (
            "/lib/x86_64-linux-gnu/libz.so.1",
            "/usr/lib/x86_64-linux-gnu/libz.so.1",
            source,
        )
        if path and os.path.exists(path)
    )
    shutil.copy(library, "libz.so")
    loaded = ctypes.CDLL(os.path.abspath("libz.so"))
    return {"crc": loaded.crc32(0, b"hello", 5) & 0xFFFFFFFF}


# -- limits -----------------------------------------------------------------------------


def limited(function: object) -> object:
    """In a child whose files may have 1000 bytes."""

    def run() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        outcome = tried(function)  # type: ignore[arg-type]
        os._exit(outcome if isinstance(outcome, int) else 100 + getattr(errno, outcome or "EPERM"))

    return end_of(run)


@case()
def the_size_that_a_process_may_write() -> Seen:
    fd = os.open("limited", os.O_CREAT | os.O_RDWR)

    def killed() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        os.pwrite(fd, b"x", 1000)

    return {
        "partly": limited(lambda: os.pwrite(fd, b"x" * 100, 950)),
        "size": look("limited")["size"],
        "behind": limited(lambda: os.pwrite(fd, b"x", 1000)),
        "cut longer": limited(lambda: os.truncate("limited", 1001)),
        "grown": limited(lambda: os.ftruncate(fd, 2000)),
        "signal": end_of(killed),
        "size afterwards": look("limited")["size"],
    }


# -- what may be done -------------------------------------------------------------------


@case(By.ROOT)
def access_of_root() -> Seen:
    os.chmod("file", 0)
    os.chmod("emptydir", 0)
    return {
        "all": [os.access("file", way) for way in (os.F_OK, os.R_OK, os.W_OK, os.X_OK)],
        "directory": os.access("emptydir", os.R_OK | os.W_OK | os.X_OK),
        "missing": tried(faccessat2, "missing", os.F_OK, 0),
        "effective": tried(faccessat2, "file", os.R_OK, AT_EACCESS),
        "link": tried(faccessat2, "dangling", os.F_OK, AT_SYMLINK_NOFOLLOW),
        "dangling": tried(faccessat2, "dangling", os.F_OK, 0),
        "bad mode": tried(faccessat2, "file", 64, 0),
        "open": opened("file", os.O_RDWR),
        "list": tried(os.listdir, "emptydir"),
        "run": outcome("./file"),
    }


@case(
    By.USER,
    privately={
        "all": Difference("Rights in a private mount", [True, True, True, False]),
        "directory": Difference("Rights in a private mount", True),
        "open": Difference("Rights in a private mount", "ok"),
        "write": Difference("Rights in a private mount", "ok"),
        "list": Difference("Rights in a private mount", []),
        "search": Difference("Rights in a private mount", "ENOENT"),
        "make": Difference("Rights in a private mount", None),
    },
)
def access_of_an_owner_without_rights() -> Seen:
    os.chmod("file", 0)
    os.chmod("emptydir", 0)
    return {
        "all": [os.access("file", way) for way in (os.F_OK, os.R_OK, os.W_OK, os.X_OK)],
        "directory": os.access("emptydir", os.R_OK),
        "missing": tried(faccessat2, "missing", os.F_OK, 0),
        "open": opened("file", os.O_RDONLY),
        "write": opened("file", os.O_WRONLY),
        "list": tried(os.listdir, "emptydir"),
        "search": tried(os.stat, "emptydir/x"),
        "make": tried(os.mkdir, "emptydir/y"),
        "stat": look("file"),
        "chmod": tried(os.chmod, "file", 0o400),
        "then": opened("file", os.O_RDONLY),
    }


@case()
def nobody_runs_what_has_no_right_to_run() -> Seen:
    seen: Seen = {}
    for bits in (0o644, 0o600, 0o755, 0o700):
        os.chmod("file", bits)
        seen[f"{bits:o}"] = [os.access("file", way) for way in (os.R_OK, os.W_OK, os.X_OK)]
    seen["directory"] = os.access("dir", os.R_OK | os.W_OK | os.X_OK)
    seen["shell"] = outcome("/bin/sh", "-c", "test -x other; echo $?; test -x dir; echo $?")
    seen["missing"] = os.access("missing", os.X_OK)
    seen["fifo"] = os.access("fifo", os.R_OK | os.W_OK)
    seen["chdir"] = tried(os.chdir, "dir")
    return seen


@case()
def an_open_file_keeps_its_rights() -> Seen:
    fd = os.open("file", os.O_RDWR)
    os.fchmod(fd, 0)
    reader = os.open("other", os.O_RDONLY)
    new = os.open("new", os.O_CREAT | os.O_RDWR | os.O_EXCL, 0)
    return {
        "read": os.read(fd, 5),
        "write": os.write(fd, b"x"),
        "cut": tried(os.ftruncate, fd, 0),
        "write to a reader": tried(os.write, reader, b"x"),
        "cut through a reader": tried(os.ftruncate, reader, 0),
        "read from a writer": tried(os.read, os.open("twin", os.O_WRONLY), 1),
        "new": os.write(new, b"x"),
        "times": moved(["file"], lambda: os.fchmod(fd, 0o644)),
    }
