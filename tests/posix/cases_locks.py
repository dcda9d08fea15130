"""Locks between processes: flock, and fcntl's by process and by open file."""

import fcntl
import os
import struct

from tests.acceptance.child import in_child
from tests.posix.calls import F_OFD_GETLK, F_OFD_SETLK
from tests.posix.case import case
from tests.posix.observe import Seen, tried

_FLOCK = struct.Struct("hhqqi4x")


def posix(
    fd: int, kind: int, start: int = 0, length: int = 0, command: int = fcntl.F_SETLK
) -> object:
    """Set or ask for a lock; what asking tells is the kind that is in the way, and where."""
    request = _FLOCK.pack(kind, os.SEEK_SET, start, length, 0)
    answer = tried(fcntl.fcntl, fd, command, request)
    if isinstance(answer, bytes) and command in {fcntl.F_GETLK, F_OFD_GETLK}:
        kind, _, start, length, pid = _FLOCK.unpack(answer)
        return kind if kind == fcntl.F_UNLCK else (kind, start, length, pid > 0)
    return answer if isinstance(answer, str) else None


def by_another(kind: int, start: int = 0, length: int = 0, command: int = fcntl.F_SETLK) -> object:
    def run() -> object:
        return posix(os.open("file", os.O_RDWR), kind, start, length, command)

    return in_child(run)


def flocked(way: int, flags: int = os.O_RDONLY) -> object:
    return in_child(lambda: tried(fcntl.flock, os.open("file", flags), way | fcntl.LOCK_NB))


@case()
def flock_between_processes() -> Seen:
    fd = os.open("file", os.O_RDONLY)
    seen: Seen = {"shared": tried(fcntl.flock, fd, fcntl.LOCK_SH)}
    seen["other shared"] = flocked(fcntl.LOCK_SH)
    seen["other exclusive"] = flocked(fcntl.LOCK_EX)
    seen["upgrade"] = tried(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    seen["other shared then"] = flocked(fcntl.LOCK_SH)
    again = os.open("file", os.O_RDWR)
    seen["same process"] = tried(fcntl.flock, again, fcntl.LOCK_SH | fcntl.LOCK_NB)
    copy = os.dup(fd)
    os.close(fd)
    seen["held by a copy"] = flocked(fcntl.LOCK_SH)
    os.close(copy)
    seen["let go"] = flocked(fcntl.LOCK_EX)
    seen["directory"] = tried(fcntl.flock, os.open("dir", os.O_RDONLY), fcntl.LOCK_EX)
    seen["bad"] = tried(fcntl.flock, again, 64)
    seen["other file"] = tried(fcntl.flock, os.open("big", os.O_RDONLY), fcntl.LOCK_EX)
    return seen


@case()
def flock_is_inherited_and_outlives_names() -> Seen:
    fd = os.open("file", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    seen: Seen = {
        "inherited": in_child(lambda: tried(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB))
    }
    os.rename("file", "dir/renamed")
    path = os.path.abspath("dir/renamed")
    seen["renamed"] = in_child(
        lambda: tried(fcntl.flock, os.open(path, os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB)
    )
    return seen


@case()
def locks_of_processes_on_ranges() -> Seen:
    fd = os.open("file", os.O_RDWR)
    read, write, none = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
    seen: Seen = {"write": posix(fd, write, 10, 10)}
    seen["in the way"] = by_another(write, 15, 1)
    seen["told"] = by_another(write, 0, 0, fcntl.F_GETLK)
    seen["beside"] = [by_another(write, 0, 10), by_another(write, 20, 5)]
    seen["read in the way"] = by_another(read, 19, 1)
    seen["half is let go"] = [
        posix(fd, none, 10, 5),
        by_another(write, 10, 5),
        by_another(read, 15, 1),
    ]
    seen["read"] = [posix(fd, read, 0, 0), by_another(read, 0, 0), by_another(write, 0, 0)]
    seen["far"] = by_another(write, 10**15, 1)
    seen["own"] = posix(os.open("file", os.O_RDWR), write, 0, 0, fcntl.F_GETLK)
    os.close(os.open("file", os.O_RDONLY))
    seen["any close lets go"] = by_another(write, 0, 0)
    seen["reader for writing"] = posix(os.open("other", os.O_RDONLY), write)
    seen["writer for reading"] = posix(os.open("other", os.O_WRONLY), read)
    seen["child has none"] = [posix(fd, write), in_child(lambda: posix(fd, write))]
    return seen


@case()
def locks_of_open_files() -> Seen:
    read, write = fcntl.F_RDLCK, fcntl.F_WRLCK
    fd = os.open("file", os.O_RDWR)
    other = os.open("file", os.O_RDWR)
    seen: Seen = {"write": posix(fd, write, 0, 10, F_OFD_SETLK)}
    seen["same process"] = posix(other, write, 5, 1, F_OFD_SETLK)
    seen["told"] = posix(other, read, 5, 1, F_OFD_GETLK) != fcntl.F_UNLCK
    os.close(os.open("file", os.O_RDONLY))
    seen["other close"] = posix(other, read, 5, 1, F_OFD_SETLK)
    seen["against processes"] = by_another(write, 0, 1)
    os.close(fd)
    seen["let go"] = posix(other, write, 5, 1, F_OFD_SETLK)
    return seen


@case()
def waiting_for_a_lock() -> Seen:
    reader, writer = os.pipe()
    back, answer = os.pipe()

    def holder() -> str:
        fd = os.open("file", os.O_RDWR)
        fcntl.lockf(fd, fcntl.LOCK_EX)
        os.write(writer, b"x")
        os.read(back, 1)
        os.pwrite(fd, b"DONE!", 0)
        return "held"

    pid = os.fork()
    if pid == 0:
        holder()
        os._exit(0)
    os.read(reader, 1)
    fd = os.open("file", os.O_RDWR)
    seen: Seen = {"taken": tried(fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)}
    os.write(answer, b"x")
    fcntl.lockf(fd, fcntl.LOCK_EX)
    seen["seen"] = os.pread(fd, 5, 0)
    _, status = os.waitpid(pid, 0)
    seen["ended"] = status
    return seen
