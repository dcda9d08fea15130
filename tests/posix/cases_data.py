"""File content: reading, writing, cutting, mapping, holes, sizes; and the times that changes leave."""

import ctypes
import mmap
import os
import signal

from tests.acceptance.child import end_of
from tests.posix import calls
from tests.posix.calls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO, fallocate
from tests.posix.case import Difference, case
from tests.posix.observe import Seen, content, look, moved, opened, put, tried
from tests.posix.template import BIG

CHUNK = 128 * 1024
NO_FALLOCATE = Difference("`fallocate`", "EOPNOTSUPP")


@case()
def reading_and_writing_anywhere() -> Seen:
    seen: Seen = {}
    model = bytearray(BIG)
    fd = os.open("big", os.O_RDWR)
    for offset, length in (
        (0, 1), (CHUNK - 1, 2), (CHUNK, CHUNK), (2 * CHUNK - 5, 10), (100, 300_000),
        (len(BIG) - 3, 3), (len(BIG), 7), (len(BIG) + 1000, 50), (5 * CHUNK + 17, 4096),
        (4095, 2), (4096, 4096), (65536, 3 * CHUNK),
    ):  # fmt: skip
        data = bytes((offset + at * 7) % 253 for at in range(length))
        if offset > len(model):
            model.extend(bytes(offset - len(model)))
        model[offset : offset + length] = data
        seen[f"write {offset} {length}"] = os.pwrite(fd, data, offset)
        seen[f"same {offset} {length}"] = os.pread(fd, len(model) + 1, 0) == bytes(model)
    seen["content"] = content("big") == bytes(model)
    for offset in (0, 4095, CHUNK - 1, len(model) - 1, len(model), len(model) + 10**9):
        seen[f"read {offset}"] = os.pread(fd, 3, offset)
    seen["none"] = os.pread(fd, 0, 5)
    seen["write nothing"] = (os.pwrite(fd, b"", 10**12), look("big")["size"])
    seen["before the start"] = (tried(os.pread, fd, 1, -1), tried(os.pwrite, fd, b"x", -1))
    seen["vectors"] = os.pwritev(fd, [b"a", b"", b"bc" * 70_000], 3)
    parts = [bytearray(2), bytearray(0), bytearray(5)]
    seen["read vectors"] = (os.preadv(fd, parts, 2), parts)
    return seen


@case()
def seeking() -> Seen:
    fd = os.open("big", os.O_RDWR)
    seen: Seen = {
        "end": os.lseek(fd, 0, os.SEEK_END),
        "behind": os.lseek(fd, 100, os.SEEK_END),
        "read behind": os.read(fd, 10),
        "back": tried(os.lseek, fd, -1, os.SEEK_SET),
        "relative": os.lseek(fd, -50, os.SEEK_CUR),
        "bad": tried(os.lseek, fd, 0, 99),
        "far": os.lseek(fd, 10**12, os.SEEK_SET),
        "size": look("big")["size"],
    }
    twin = os.dup(fd)
    os.lseek(twin, 7, os.SEEK_SET)
    seen["shared position"] = os.read(fd, 3)
    seen["fifo"] = tried(os.lseek, os.open("fifo", os.O_RDWR), 0, os.SEEK_SET)
    return seen


@case()
def cutting_and_growing() -> Seen:
    seen: Seen = {}
    model = bytearray(BIG)
    for size in (
        len(BIG) - 1, CHUNK + 1, CHUNK, 3 * CHUNK, 100, 5 * CHUNK, CHUNK - 1, 200_000, 1, 0, 50,
        0, 2 * CHUNK,
    ):  # fmt: skip
        os.truncate("big", size)
        model = model[:size] + bytearray(max(0, size - len(model)))
        seen[f"to {size}"] = (look("big")["size"], content("big") == bytes(model))
        at = max(0, size - 10)
        with open("big", "r+b", buffering=0) as file:
            file.seek(at)
            file.write(b"ABCDE")
        model[at : at + 5] = b"ABCDE"
        seen[f"written to {size}"] = content("big") == bytes(model)
    return seen


@case()
def what_cannot_be_cut() -> Seen:
    reader = os.open("file", os.O_RDONLY)
    return {
        "directory": tried(os.truncate, "dir", 0),
        "fifo": tried(os.truncate, "fifo", 0),
        "missing": tried(os.truncate, "missing", 0),
        "negative": tried(os.truncate, "file", -1),
        "through a link": [tried(os.truncate, "link", 2), content("file")],
        "dangling": tried(os.truncate, "dangling", 0),
        "loop": tried(os.truncate, "loop", 0),
        "reader": tried(os.ftruncate, reader, 0),
        "fifo descriptor": tried(os.ftruncate, os.open("fifo", os.O_RDWR), 0),
    }


@case()
def cutting_while_open() -> Seen:
    with open("big", "r+b", buffering=0) as one, open("big", "r+b", buffering=0) as other:
        one.seek(150_000)
        os.truncate("big", 10)
        seen: Seen = {"read": one.read(5), "pread": os.pread(other.fileno(), 100, 5)}
        one.write(b"far")
        seen["hole"] = os.pread(other.fileno(), 20, 0) == BIG[:10] + bytes(10)
        seen["far"] = os.pread(other.fileno(), 10, 149_995)
        seen["size"] = os.fstat(other.fileno()).st_size
    return seen


# -- large files ------------------------------------------------------------------------


@case()
def files_beyond_every_round_number() -> Seen:
    seen: Seen = {}
    fd = os.open("large", os.O_CREAT | os.O_RDWR)
    for offset in (2**31 - 2, 2**32 - 3, 2**40 + 5, 2**43 + CHUNK - 1):
        seen[f"{offset}"] = (os.pwrite(fd, b"mark", offset), os.pread(fd, 8, offset - 2))
    seen["size"] = look("large")["size"]
    seen["cut"] = [tried(os.ftruncate, fd, 2**41), os.pread(fd, 4, 2**40 + 5)]
    seen["longer"] = [tried(os.truncate, "large", 2**43), os.pread(fd, 4, 2**42)]
    seen["seek"] = os.lseek(fd, 0, os.SEEK_END)
    os.ftruncate(fd, 0)
    return seen


LARGEST = Difference("Largest file", None)


@case(
    differs={
        "16 TiB": LARGEST,
        "2**62": LARGEST,
        "largest": LARGEST,
        "write": Difference("Largest file", 1),
        "read": Difference("Largest file", b"x"),
    }
)
def the_largest_file() -> Seen:
    fd = os.open("large", os.O_CREAT | os.O_RDWR)
    seen: Seen = {
        "16 TiB": tried(os.ftruncate, fd, 2**44),
        "2**62": tried(os.ftruncate, fd, 2**62),
        "largest": tried(os.ftruncate, fd, 2**63 - 1),
        "write": tried(os.pwrite, fd, b"x", 2**62),
        "read": tried(os.pread, fd, 1, 2**62),
        "behind the end of numbers": tried(os.pwrite, fd, b"x", 2**63 - 1),
    }
    os.ftruncate(fd, 0)
    return seen


# -- holes ------------------------------------------------------------------------------


def disk_use(path: str) -> int:
    return os.stat(path).st_blocks * 512


@case()
def holes_take_no_space() -> Seen:
    seen: Seen = {}
    with open("sparse", "wb", buffering=0) as file:
        file.truncate(50 * CHUNK)
        seen["empty"] = disk_use("sparse")
        file.seek(20 * CHUNK + 5)
        file.write(b"data")
        os.fsync(file.fileno())
        seen["some"] = 0 < disk_use("sparse") <= 2 * CHUNK
        file.seek(40 * CHUNK)
        file.write(b"x" * CHUNK)
        os.fsync(file.fileno())
        seen["more"] = CHUNK < disk_use("sparse") <= 4 * CHUNK
        file.truncate(30 * CHUNK)
        seen["less"] = 0 < disk_use("sparse") <= 2 * CHUNK
        file.truncate(0)
        seen["none"] = disk_use("sparse")
    seen["whole"] = (disk_use("big") + CHUNK - 1) // CHUNK in {3, 4}
    seen["empty file"] = disk_use("empty")
    seen["blocks"] = [os.lstat(name).st_blocks for name in ("fifo", "link")]
    return seen


HOLES_UNTOLD = "`SEEK_HOLE`, `SEEK_DATA`"


@case(differs={
    "data": Difference(HOLES_UNTOLD, 0),
    "next hole": Difference(HOLES_UNTOLD, 50 * CHUNK),
    "hole": Difference(HOLES_UNTOLD, 50 * CHUNK),
})  # fmt: skip
def holes_are_found_by_seeking() -> Seen:
    fd = os.open("sparse", os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, 50 * CHUNK)
    os.pwrite(fd, b"x" * CHUNK, 20 * CHUNK)
    os.fsync(fd)
    return {
        "data": os.lseek(fd, 0, os.SEEK_DATA),
        "next hole": os.lseek(fd, 20 * CHUNK, os.SEEK_HOLE),
        "hole": os.lseek(fd, 0, os.SEEK_HOLE),
        "no data behind": tried(os.lseek, fd, 50 * CHUNK, os.SEEK_DATA),
        "behind": tried(os.lseek, fd, 60 * CHUNK, os.SEEK_HOLE),
    }


@case(differs={
    "allocate": NO_FALLOCATE, "keep": NO_FALLOCATE, "punch": NO_FALLOCATE, "zero": NO_FALLOCATE,
    "size": Difference("`fallocate`", 13),
})  # fmt: skip
def room_is_reserved() -> Seen:
    fd = os.open("file", os.O_RDWR)
    return {
        "allocate": tried(fallocate, fd, 0, 0, 100_000),
        "size": os.fstat(fd).st_size,
        "keep": tried(fallocate, fd, FALLOC_KEEP_SIZE, 0, 200_000),
        "punch": tried(fallocate, fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 0, 4096),
        "zero": tried(fallocate, fd, FALLOC_ZERO, 0, 4096),
        "reader": tried(fallocate, os.open("file", os.O_RDONLY), 0, 0, 10),
        "negative": tried(fallocate, fd, 0, -1, 10),
        "directory": tried(fallocate, os.open("dir", os.O_RDONLY), 0, 0, 10),
        "fifo": tried(fallocate, os.open("fifo", os.O_RDWR), 0, 0, 10),
    }


@case()
def posix_fallocate_finds_another_way() -> Seen:
    fd = os.open("file", os.O_RDWR)
    return {
        "done": tried(os.posix_fallocate, fd, 0, 300_000),
        "size": os.fstat(fd).st_size,
        "content": os.pread(fd, 20, 0),
        "again": [tried(os.posix_fallocate, fd, 0, 10), os.fstat(fd).st_size],
    }


# -- memory maps ------------------------------------------------------------------------


def size_of(path: str) -> object:
    return look(path)["size"]


@case()
def shared_maps_are_the_file() -> Seen:
    seen: Seen = {}
    with open("big", "r+b", buffering=0) as file:
        with mmap.mmap(file.fileno(), 0) as one, mmap.mmap(file.fileno(), 0) as other:
            seen["read"] = one[:] == BIG
            one[CHUNK - 2 : CHUNK + 3] = b"MAPPD"
            seen["other map"] = other[CHUNK - 2 : CHUNK + 3]
            seen["read call"] = os.pread(file.fileno(), 5, CHUNK - 2)
            os.pwrite(file.fileno(), b"written", 9)
            seen["after a write"] = other[9:16]
            one.flush()
            one[len(BIG) - 1] = 0x41
        seen["unmapped"] = content("big")[-2:]
        seen["size"] = size_of("big")
    seen["content"] = content("big")[CHUNK - 2 : CHUNK + 3]
    return seen


@case()
def private_maps_are_nobody_elses() -> Seen:
    with open("big", "rb") as file:
        with mmap.mmap(
            file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
        ) as view:
            view[5:10] = b"MINE!"
            seen: Seen = {"map": view[4:11], "file": content("big")[4:11]}
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
            seen["read only"] = view[-3:]
        seen["shared for writing"] = tried(mmap.mmap, file.fileno(), 0)
    return seen


@case()
def maps_of_files_without_a_name() -> Seen:
    with open("big", "r+b", buffering=0) as file:
        view = mmap.mmap(file.fileno(), 0)
        os.unlink("big")
    seen: Seen = {"read": view[200_000:200_003]}
    view[200_000:200_003] = b"abc"
    view.flush()
    seen["written"] = view[199_999:200_004]
    view.close()
    return seen


@case()
def maps_of_files_that_change() -> Seen:
    fd = os.open("big", os.O_RDWR)
    seen: Seen = {}
    with mmap.mmap(fd, 0) as view:
        os.ftruncate(fd, 10_000)

        def behind() -> None:
            signal.signal(signal.SIGBUS, signal.SIG_DFL)
            ctypes.string_at(address(view) + 3 * 4096, 1)

        seen["behind the end"] = end_of(behind)
        seen["in the last page"] = view[9_998:10_004]
        view[9_999:10_000] = b"y"
        os.ftruncate(fd, 20_000)
        seen["grown"] = view[9_998:10_004]
        seen["readable again"] = view[15_000]
        view[15_000] = 7
        seen["and writable"] = os.pread(fd, 3, 14_999)
    seen["content"] = content("big")[9_998:10_004]
    return seen


@case(differs={"grown": Difference("Behind the end of a map", b"end zz")})
def what_is_written_behind_the_end_of_a_map() -> Seen:
    fd = os.open("new", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"the end")
    with mmap.mmap(fd, 0) as view:
        ctypes.memmove(address(view) + 8, b"zz", 2)
        view.flush()
        seen: Seen = {"file": os.pread(fd, 100, 0), "size": size_of("new")}
        ctypes.memmove(address(view) + 8, b"zz", 2)
        os.ftruncate(fd, 10)
    seen["grown"] = os.pread(fd, 100, 4).replace(b"\0", b" ")
    return seen


def address(view: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


@case()
def maps_of_holes() -> Seen:
    fd = os.open("sparse", os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, 10 * CHUNK)
    with mmap.mmap(fd, 0) as view:
        seen: Seen = {"zeros": view[5 * CHUNK : 5 * CHUNK + 3]}
        view[5 * CHUNK] = 9
        view.flush()
        seen["synced"] = os.pread(fd, 2, 5 * CHUNK)
    return seen


# -- copying ----------------------------------------------------------------------------


@case()
def copying_inside_the_kernel() -> Seen:
    source = os.open("big", os.O_RDONLY)
    target = os.open("new", os.O_CREAT | os.O_RDWR)
    seen: Seen = {"copy_file_range": copied(source, target)}
    seen["content"] = content("new") == BIG
    seen["at"] = tried(os.copy_file_range, source, target, 1000, 5, 200_000)
    seen["there"] = os.pread(target, 3, 200_000) == BIG[5:8]
    os.lseek(source, 0, os.SEEK_SET)
    sent = os.open("sent", os.O_CREAT | os.O_RDWR)
    seen["sendfile"] = os.sendfile(sent, source, 10, 1000)
    seen["sent"] = content("sent") == BIG[10:1010]
    reader, writer = os.pipe()
    seen["splice out"] = os.splice(source, writer, 100, offset_src=CHUNK - 50)
    seen["splice in"] = os.splice(reader, sent, 100, offset_dst=500)
    seen["spliced"] = os.pread(sent, 100, 500) == BIG[CHUNK - 50 : CHUNK + 50]
    seen["to a reader"] = tried(os.copy_file_range, target, source, 10)
    seen["to an appender"] = tried(
        os.copy_file_range, source, os.open("sent", os.O_WRONLY | os.O_APPEND), 10
    )
    seen["overlapping"] = tried(os.copy_file_range, target, target, 100, 0, 50)
    seen["clone"] = tried(calls.ioctl, target, calls.FICLONE, source)
    return seen


def copied(source: int, target: int) -> int:
    total = 0
    while count := os.copy_file_range(source, target, 10**6):
        total += count
    return total


# -- times ------------------------------------------------------------------------------


@case()
def changing_content_touches_the_file() -> Seen:
    fd = os.open("file", os.O_RDWR)

    def mapped() -> None:
        with mmap.mmap(fd, 0) as view:
            view[0] = 65
            view.flush()

    watched = ["file", "."]
    return {
        "write": moved(watched, lambda: os.write(fd, b"x")),
        "write nothing": moved(watched, lambda: os.write(fd, b"")),
        "read": moved(watched, lambda: os.pread(fd, 5, 0)),
        "cut": moved(watched, lambda: os.ftruncate(fd, 5)),
        "cut by path": moved(watched, lambda: os.truncate("file", 4)),
        "grow": moved(watched, lambda: os.truncate("file", 400)),
        "same size by descriptor": moved(watched, lambda: os.ftruncate(fd, 400)),
        "mapped": moved(watched, mapped),
        "opened": moved(watched, lambda: opened("file", os.O_RDWR)),
        "opened to cut": moved(watched, lambda: opened("file", os.O_RDWR | os.O_TRUNC)),
        "opened to cut what is empty": moved(
            watched, lambda: opened("file", os.O_RDWR | os.O_TRUNC)
        ),
        "put": moved(watched, lambda: put("file", b"new")),
        "sync": moved(watched, lambda: os.fsync(fd)),
    }
