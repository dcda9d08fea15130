"""Listing directories: complete, without repeating, while names come and go; positions."""

import ctypes
import os
import stat

from tests.posix.calls import getdents
from tests.posix.case import By, case
from tests.posix.observe import Seen, put, tried
from tests.posix.template import many

TYPES = {
    1: stat.S_IFIFO, 2: stat.S_IFCHR, 4: stat.S_IFDIR, 6: stat.S_IFBLK, 8: stat.S_IFREG,
    10: stat.S_IFLNK, 12: stat.S_IFSOCK,
}  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)
_libc.opendir.restype = ctypes.c_void_p
_libc.readdir64.restype = ctypes.c_void_p
_libc.telldir.restype = ctypes.c_long


class Stream:
    """A directory as C programs read it."""

    def __init__(self, path: str) -> None:
        self._stream = ctypes.c_void_p(_libc.opendir(os.fsencode(path)))

    def read(self) -> bytes | None:
        entry = _libc.readdir64(self._stream)
        return ctypes.string_at(entry + 19) if entry else None

    def rest(self) -> list[bytes]:
        names = []
        while (name := self.read()) is not None:
            names.append(name)
        return names

    def tell(self) -> int:
        return int(_libc.telldir(self._stream))

    def seek(self, position: int) -> None:
        _libc.seekdir(self._stream, ctypes.c_long(position))

    def rewind(self) -> None:
        _libc.rewinddir(self._stream)

    def close(self) -> None:
        _libc.closedir(self._stream)


def names_by(fd: int, size: int) -> list[bytes]:
    """The names that a descriptor still has to give, in pieces of that many bytes."""
    names: list[bytes] = []
    while found := getdents(fd, size):
        names += [name for _, _, _, name in found]
    return names


@case()
def entries_tell_type_and_inode() -> Seen:
    os.mknod("sock", stat.S_IFSOCK | 0o600)
    fd = os.open(".", os.O_RDONLY)
    seen: Seen = {}
    for ino, _, kind, name in getdents(fd, 100_000):
        status = os.lstat(name)
        seen[name.decode()] = (TYPES[kind] == stat.S_IFMT(status.st_mode), ino == status.st_ino)
    seen["end"] = getdents(fd, 100)
    seen["end again"] = getdents(fd, 100)
    os.lseek(fd, 0, os.SEEK_SET)
    seen["again"] = len(names_by(fd, 1000))
    return seen


@case()
def dot_and_dot_dot() -> Seen:
    fd = os.open("dir/sub", os.O_RDONLY)
    found = {name: ino for ino, _, _, name in getdents(fd, 10_000)}
    seen: Seen = {
        "itself": found[b"."] == os.stat("dir/sub").st_ino,
        "above": found[b".."] == os.stat("dir").st_ino,
        "names": sorted(found),
    }
    os.rename("dir/sub", "emptydir/sub")
    os.lseek(fd, 0, os.SEEK_SET)
    found = {name: ino for ino, _, _, name in getdents(fd, 10_000)}
    seen["moved"] = found[b".."] == os.stat("emptydir").st_ino
    seen["looked up"] = os.stat("emptydir/sub/..").st_ino == os.stat("emptydir").st_ino
    return seen


@case()
def buffers_of_any_size() -> Seen:
    put("n" * 255)
    whole = sorted(os.listdir(b"."))
    seen: Seen = {}
    for size in (280, 300, 512, 4096, 65536):
        fd = os.open(".", os.O_RDONLY)
        found = sorted(name for name in names_by(fd, size) if name not in {b".", b".."})
        seen[f"{size}"] = found == whole
    fd = os.open(".", os.O_RDONLY)
    seen["too small"] = tried(getdents, fd, 20)
    seen["file"] = tried(getdents, os.open("file", os.O_RDONLY), 1000)
    return seen


@case(By.ROOT, prepare=many)
def many_names_while_others_come_and_go() -> Seen:
    """Who stays is listed once, who was gone before is not, nobody is listed twice."""
    before = set(os.listdir(b"many"))
    staying = {name for name in before if int(name[:5]) % 3 == 0}
    fd = os.open("many", os.O_RDONLY)
    found: list[bytes] = []
    going = sorted(before - staying, key=lambda name: name[::-1])
    step = 0
    while part := getdents(fd, 1000):
        found += [name for _, _, _, name in part]
        for name in going[step : step + 10]:
            os.unlink(b"many/" + name)
        os.close(os.open(f"many/new-{step}", os.O_CREAT | os.O_WRONLY))
        os.mkdir(f"many/-{step}")
        step += 10
    return {
        "staying": staying <= set(found),
        "once": len(set(found)) == len(found),
        "dots": found.count(b".") == found.count(b"..") == 1,
        "left": staying <= set(os.listdir(b"many")),
    }


@case(By.ROOT, prepare=many)
def many_names_while_they_are_renamed() -> Seen:
    """A renamed file may be listed under both names or one, what is not renamed exactly once."""
    before = set(os.listdir(b"many"))
    staying = {name for name in before if int(name[:5]) % 2 == 0}
    moving = iter(sorted(before - staying))
    fd = os.open("many", os.O_RDONLY)
    found: list[bytes] = []
    while part := getdents(fd, 600):
        found += [name for _, _, _, name in part]
        for name in (next(moving, None), next(moving, None)):
            if name is not None:
                os.rename(b"many/" + name, b"many/renamed-" + name)
    return {
        "staying": staying <= set(found),
        "once": all(found.count(name) == 1 for name in staying),
        "number": len(os.listdir("many")) == len(before),
    }


@case(By.ROOT, prepare=many)
def all_is_removed_while_it_is_listed() -> Seen:
    """As `rm -r` does it."""
    fd = os.open("many", os.O_RDONLY)
    removed = 0
    while part := getdents(fd, 2000):
        for _, _, _, name in part:
            if name not in {b".", b".."}:
                os.unlink(b"many/" + name)
                removed += 1
    return {"removed": removed, "rmdir": tried(os.rmdir, "many"), "list": tried(getdents, fd, 100)}


@case(By.ROOT, prepare=many)
def positions_can_be_returned_to() -> Seen:
    stream = Stream("many")
    positions = []
    names = []
    for _ in range(500):
        positions.append(stream.tell())
        names.append(stream.read())
    rest = stream.rest()
    seen: Seen = {"all": len(names) + len(rest), "end": stream.read()}
    for index in (0, 1, 2, 3, 200, 499, 31, 32, 33, 400):
        stream.seek(positions[index])
        seen[f"{index}"] = stream.read() == names[index]
    stream.seek(positions[499])
    seen["rest"] = [stream.read(), *stream.rest()] == [names[499], *rest]
    stream.rewind()
    seen["again"] = [stream.read() for _ in range(500)] == names
    os.unlink(b"many/" + (names[450] or b""))
    stream.rewind()
    seen["without"] = names[450] not in stream.rest()
    stream.close()
    return seen


@case(By.ROOT, prepare=many)
def what_is_gone_does_not_move_positions() -> Seen:
    stream = Stream("many")
    names = [stream.read() for _ in range(100)]
    position = stream.tell()
    following = stream.read()
    for name in names[10:60]:
        os.unlink(b"many/" + (name or b""))
    os.close(os.open("many/000-first", os.O_CREAT | os.O_WRONLY))
    stream.seek(position)
    seen: Seen = {"same": stream.read() == following}
    stream.close()
    return seen


@case(By.ROOT, prepare=many)
def two_readers_of_one_directory() -> Seen:
    one, two = Stream("many"), Stream("many")
    first = [one.read() for _ in range(200)]
    second = two.rest()
    rest = one.rest()
    copy = os.open("many", os.O_RDONLY)
    half = getdents(copy, 5000)
    shared = names_by(os.dup(copy), 5000)
    return {
        "same": first + rest == second,
        "shared position": len(half) + len(shared) == len(second),
        "complete": sorted(name for name in second if name not in {b".", b".."})
        == sorted(os.listdir(b"many")),
    }


@case(By.ROOT, prepare=many)
def ten_thousand_names() -> Seen:
    os.mkdir("large")
    for number in range(10_000):
        os.symlink("x", f"large/{number * 7919 % 10_000:04d}")
    fd = os.open("large", os.O_RDONLY)
    found = [name for name in names_by(fd, 4096) if name not in {b".", b".."}]
    for number in range(0, 10_000, 2):
        os.unlink(f"large/{number:04d}")
    return {
        "complete": sorted(found) == [b"%04d" % number for number in range(10_000)],
        "left": len(os.listdir("large")),
        "nlink": os.stat("large").st_nlink,
    }


@case(By.ROOT)
def directories_count_their_directories() -> Seen:
    os.mkdir("wide")
    for number in range(300):
        os.mkdir(f"wide/{number}")
        put(f"wide/f{number}")
    seen: Seen = {"full": os.stat("wide").st_nlink}
    for number in range(0, 300, 3):
        os.rmdir(f"wide/{number}")
    seen["less"] = os.stat("wide").st_nlink
    return seen
