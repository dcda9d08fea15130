"""Names: creating, linking, removing, renaming; what each does to types, counts and times."""

import os
import shutil
import socket
import stat

from tests.posix.calls import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_FOLLOW,
    linkat,
)
from tests.posix.case import By, case
from tests.posix.observe import Seen, content, look, mode, opened, put, tried

LONG = "n" * 255
TOO_LONG = "n" * 256


@case()
def names_may_have_255_bytes() -> Seen:
    utf8 = "ü" * 127 + "x"
    return {
        "longest": tried(os.mkdir, LONG),
        "longest in utf-8": tried(os.mkdir, utf8),
        "listed": LONG in os.listdir() and utf8 in os.listdir(),
        "mkdir": tried(os.mkdir, TOO_LONG),
        "mknod": tried(os.mknod, TOO_LONG),
        "create": opened(TOO_LONG, os.O_CREAT | os.O_WRONLY),
        "open": opened(TOO_LONG, os.O_RDONLY),
        "symlink": tried(os.symlink, "file", TOO_LONG),
        "link": tried(os.link, "file", TOO_LONG),
        "link from": tried(os.link, TOO_LONG, "new"),
        "rename": tried(os.rename, "file", TOO_LONG),
        "rename from": tried(os.rename, TOO_LONG, "new"),
        "unlink": tried(os.unlink, TOO_LONG),
        "rmdir": tried(os.rmdir, TOO_LONG),
        "stat": tried(os.stat, TOO_LONG),
        "readlink": tried(os.readlink, TOO_LONG),
        "truncate": tried(os.truncate, TOO_LONG, 0),
        "chmod": tried(os.chmod, TOO_LONG, 0),
        "below": tried(os.stat, f"{TOO_LONG}/x"),
        "getxattr": tried(os.getxattr, TOO_LONG, "user.x"),
        "1025 bytes": tried(os.stat, "n" * 1025),
    }


@case()
def names_hold_any_byte() -> Seen:
    names = [b"new\nline", b"\xff\xfe", b"\x01", b" ", b"-", b"*", b"a\\b", b"~", b"...", b"@"]
    for name in names:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    found = sorted(name for name in os.listdir(b".") if name in names)
    return {"listed": found == sorted(names), "stat": [os.stat(name).st_size for name in names]}


@case()
def paths_end_at_4095_bytes() -> Seen:
    here = "./" * 2045
    return {
        "longest": tried(os.stat, here + ".////")[stat.ST_NLINK] > 0,
        "too long": tried(os.stat, here + "././././"),
        "mkdir": tried(os.mkdir, here + "newname"),
    }


@case()
def every_level_of_a_deep_tree_can_be_reached() -> Seen:
    start = os.open(".", os.O_RDONLY)
    for _ in range(60):
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    put("leaf", b"deep")
    depth = 0
    while os.stat("..").st_ino != os.fstat(start).st_ino:
        os.chdir("..")
        depth += 1
    shutil.rmtree("d" * 200)
    return {"depth": depth, "left": "d" * 200 in os.listdir()}


@case()
def trailing_slashes() -> Seen:
    return {
        "file": tried(os.stat, "file/"),
        "open file": opened("file/", os.O_RDONLY),
        "create": opened("new/", os.O_CREAT | os.O_WRONLY),
        "directory": tried(os.stat, "dir//")[stat.ST_NLINK],
        "mkdir": tried(os.mkdir, "new/"),
        "mkdir of a file": tried(os.mkdir, "file/"),
        "rmdir": tried(os.rmdir, "new/"),
        "rmdir of a file": tried(os.rmdir, "file/"),
        "unlink": tried(os.unlink, "file/"),
        "unlink of a link to a directory": tried(os.unlink, "dirlink/"),
        "rmdir of a link to a directory": tried(os.rmdir, "dirlink/"),
        "lstat of a link to a directory": stat.S_ISDIR(os.lstat("dirlink/").st_mode),
        "readlink": tried(os.readlink, "dirlink/"),
        "rename of a file": tried(os.rename, "file/", "new"),
        "rename to a file": tried(os.rename, "file", "new/"),
        "rename of a directory": tried(os.rename, "emptydir/", "renamed/"),
        "symlink": tried(os.symlink, "x", "newlink/"),
        "link": tried(os.link, "file", "newlink/"),
        "mknod": tried(os.mknod, "new/"),
    }


@case()
def paths_through_what_is_no_directory() -> Seen:
    below = "file/below"
    return {
        "stat": tried(os.stat, below),
        "open": opened(below, os.O_CREAT | os.O_WRONLY),
        "mkdir": tried(os.mkdir, below),
        "mknod": tried(os.mknod, below),
        "symlink": tried(os.symlink, "x", below),
        "link": tried(os.link, "other", below),
        "link from": tried(os.link, below, "new"),
        "rename to": tried(os.rename, "other", below),
        "rename from": tried(os.rename, below, "new"),
        "unlink": tried(os.unlink, below),
        "rmdir": tried(os.rmdir, below),
        "chdir": tried(os.chdir, "file"),
        "listdir": tried(os.listdir, "file"),
        "through a fifo": tried(os.stat, "fifo/x"),
        "through a link": tried(os.stat, "link/x"),
        "through nothing": tried(os.stat, "missing/x"),
        "mkdir below nothing": tried(os.mkdir, "missing/x"),
        "empty": tried(os.stat, ""),
    }


@case()
def symlinks_that_lead_nowhere_or_round_and_round() -> Seen:
    os.symlink("b", "a")
    os.symlink("a", "b")
    return {
        "dangling": tried(os.stat, "dangling"),
        "loop": tried(os.stat, "loop"),
        "pair": tried(os.stat, "a"),
        "through a loop": tried(os.stat, "loop/x"),
        "open": opened("loop", os.O_RDONLY),
        "create through dangling": opened("dangling", os.O_CREAT | os.O_WRONLY),
        "created": look("nowhere")["type"],
        "exclusive": opened("dangling", os.O_CREAT | os.O_EXCL | os.O_WRONLY),
        "mkdir": tried(os.mkdir, "loop"),
        "chmod": tried(os.chmod, "loop", 0o600),
        "truncate": tried(os.truncate, "loop", 0),
        "rename": tried(os.rename, "loop", "moved"),
        "unlink": tried(os.unlink, "moved"),
    }


@case()
def forty_symlinks_may_be_followed() -> Seen:
    previous = "file"
    for number in range(41):
        os.symlink(previous, f"s{number}")
        previous = f"s{number}"
    return {"40": tried(content, "s39"), "41": tried(os.stat, "s40")}


@case()
def symlink_targets() -> Seen:
    longest = "t" * 4095
    seen: Seen = {
        "empty": tried(os.symlink, "", "s0"),
        "longest": tried(os.symlink, longest, "s1"),
        "too long": tried(os.symlink, longest + "t", "s2"),
        "existing": tried(os.symlink, "x", "file"),
        "over dangling": tried(os.symlink, "x", "dangling"),
        "any bytes": tried(os.symlink, b"\xff\n \x01", b"s3"),
        "directory": tried(os.symlink, "../..//./x/", "s4"),
    }
    for name in ("s1", "s3", "s4"):
        seen[name] = look(name)
    seen["read"] = [os.readlink(name) for name in (b"s3", b"s4", b"link", b"loop")]
    seen["longest read"] = os.readlink("s1") == longest
    seen["file"] = tried(os.readlink, "file")
    seen["directory read"] = tried(os.readlink, "dir")
    return seen


@case()
def mkdir_makes_an_empty_directory() -> Seen:
    seen: Seen = {"made": tried(os.mkdir, "new", 0o1751), "new": look("new")}
    seen["parent"] = look(".")["nlink"]
    seen["listed"] = os.listdir("new")
    seen["again"] = tried(os.mkdir, "new")
    seen["file"] = tried(os.mkdir, "file")
    seen["link"] = tried(os.mkdir, "link")
    seen["dangling"] = tried(os.mkdir, "dangling")
    seen["dot"] = tried(os.mkdir, ".")
    seen["dot dot"] = tried(os.mkdir, "new/..")
    seen["set-user-id"] = tried(os.mkdir, "bits", 0o6777)
    seen["bits"] = mode("bits")
    return seen


@case()
def rmdir_removes_empty_directories_only() -> Seen:
    return {
        "empty": tried(os.rmdir, "emptydir"),
        "again": tried(os.rmdir, "emptydir"),
        "full": tried(os.rmdir, "dir"),
        "file": tried(os.rmdir, "file"),
        "link": tried(os.rmdir, "dirlink"),
        "fifo": tried(os.rmdir, "fifo"),
        "dot": tried(os.rmdir, "dir/sub/."),
        "dot dot": tried(os.rmdir, "dir/sub/.."),
        "parent": look(".")["nlink"],
        "nlink of a directory": look("dir")["nlink"],
        "emptied": [tried(os.unlink, "dir/sub/deep"), tried(os.rmdir, "dir/sub")],
        "nlink afterwards": look("dir")["nlink"],
    }


@case()
def unlink_removes_names_of_anything_but_directories() -> Seen:
    return {
        "file": tried(os.unlink, "file"),
        "again": tried(os.unlink, "file"),
        "directory": tried(os.unlink, "dir"),
        "empty directory": tried(os.unlink, "emptydir"),
        "link": tried(os.unlink, "dirlink"),
        "dangling": tried(os.unlink, "dangling"),
        "fifo": tried(os.unlink, "fifo"),
        "dot": tried(os.unlink, "."),
        "left": sorted(os.listdir()),
    }


@case()
def mknod_makes_what_it_is_told() -> Seen:
    os.umask(0o027)
    seen: Seen = {}
    for name, kind in (("plain", 0), ("regular", stat.S_IFREG), ("pipe", stat.S_IFIFO),
                       ("sock", stat.S_IFSOCK)):  # fmt: skip
        seen[name] = tried(os.mknod, name, kind | 0o666)
        seen[f"{name} made"] = look(name)
    seen["directory"] = tried(os.mknod, "d", stat.S_IFDIR | 0o777)
    seen["symlink"] = tried(os.mknod, "l", stat.S_IFLNK | 0o777)
    seen["existing"] = tried(os.mknod, "file")
    seen["existing directory"] = tried(os.mknod, "dir")
    seen["existing fifo"] = tried(os.mkfifo, "fifo")
    return seen


@case(By.ROOT)
def devices_work() -> Seen:
    seen: Seen = {}
    for name, kind, number in (
        ("null", stat.S_IFCHR, os.makedev(1, 3)), ("zero", stat.S_IFCHR, os.makedev(1, 5)),
        ("large", stat.S_IFCHR, os.makedev(4095, 1048575)), ("block", stat.S_IFBLK, os.makedev(7, 200)),
    ):  # fmt: skip
        os.mknod(name, kind | 0o660, number)
        seen[name] = look(name)
    with open("zero", "rb", buffering=0) as zero:
        seen["read"] = zero.read(5)
    with open("null", "r+b", buffering=0) as null:
        seen["written"] = null.write(b"x" * 10)
        seen["from null"] = null.read(5)
    seen["none there"] = opened("block", os.O_RDONLY)
    seen["linked"] = tried(os.link, "null", "null2")
    seen["count"] = look("null2")["nlink"]
    seen["renamed"] = tried(os.rename, "null2", "file")
    seen["chmod"] = [tried(os.chmod, "null", 0o600), mode("file")]
    return seen


@case(By.USER, private=True)
def devices_take_root() -> Seen:
    return {
        "character": tried(os.mknod, "null", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
        "block": tried(os.mknod, "b", stat.S_IFBLK | 0o666, os.makedev(7, 0)),
        "whiteout": tried(os.mknod, "w", stat.S_IFCHR | 0o666, 0),
        "made": [name for name in ("null", "b") if os.path.lexists(name)],
    }


@case()
def links_share_one_inode() -> Seen:
    seen: Seen = {"before": look("file")["nlink"], "linked": tried(os.link, "file", "dir/again")}
    put("dir/again", b"through the other name")
    os.chmod("dir/again", 0o640)
    seen["content"] = content("file")
    seen["same"] = os.path.samefile("file", "dir/again")
    seen["file"], seen["again"] = look("file"), look("dir/again")
    os.unlink("file")
    seen["after"] = look("dir/again")["nlink"]
    seen["twins"] = (look("twin")["nlink"], os.path.samefile("twin", "other"))
    seen["fifo"] = tried(os.link, "fifo", "fifo2")
    seen["symlink"] = tried(os.link, "link", "link2", follow_symlinks=False)
    seen["link2"] = look("link2")
    seen["followed"] = tried(linkat, AT_FDCWD, "dirlink", "dir2", AT_SYMLINK_FOLLOW)
    seen["directory"] = tried(os.link, "dir", "dir2")
    seen["missing"] = tried(os.link, "missing", "x")
    seen["existing"] = tried(os.link, "twin", "big")
    seen["itself"] = tried(os.link, "twin", "twin")
    seen["over a directory"] = tried(os.link, "twin", "dir")
    return seen


@case()
def link_of_an_open_file() -> Seen:
    seen: Seen = {}
    with open("file", "rb") as file:
        path = f"/proc/self/fd/{file.fileno()}"
        seen["by /proc"] = tried(linkat, AT_FDCWD, path, "named", AT_SYMLINK_FOLLOW)
        seen["count"] = os.fstat(file.fileno()).st_nlink
        os.unlink("file")
        os.unlink("named")
        seen["gone by /proc"] = tried(linkat, AT_FDCWD, path, "back", AT_SYMLINK_FOLLOW)
        seen["gone by descriptor"] = tried(linkat, file.fileno(), "", "back", AT_EMPTY_PATH)
        seen["left"] = os.fstat(file.fileno()).st_nlink
    return seen


@case(By.ROOT)
def link_of_a_descriptor_as_root() -> Seen:
    with open("file", "rb") as file:
        return {
            "linked": tried(linkat, file.fileno(), "", "named", AT_EMPTY_PATH),
            "count": look("named")["nlink"],
        }


@case()
def files_without_a_name_stay_open() -> Seen:
    seen: Seen = {}
    with open("big", "r+b", buffering=0) as file, open("big", "rb", buffering=0) as reader:
        os.unlink("big")
        seen["count"] = os.fstat(file.fileno()).st_nlink
        file.seek(200_000)
        seen["written"] = file.write(b"still here")
        seen["read"] = os.pread(reader.fileno(), 12, 199_999)
        seen["cut"] = tried(os.ftruncate, file.fileno(), 100)
        seen["grown"] = tried(os.ftruncate, file.fileno(), 500_000)
        seen["size"] = os.fstat(reader.fileno()).st_size
        seen["chmod"] = tried(os.fchmod, file.fileno(), 0o600)
        seen["mode"] = look(reader.fileno())["mode"]
        seen["utime"] = tried(os.utime, file.fileno(), ns=(5, 6))
        seen["mtime"] = os.fstat(reader.fileno()).st_mtime_ns
        seen["sync"] = tried(os.fsync, file.fileno())
        seen["again"] = opened("big", os.O_RDONLY)
        seen["by /proc"] = opened(f"/proc/self/fd/{file.fileno()}", os.O_RDWR)
        put("big", b"another")
        seen["other"] = (os.fstat(file.fileno()).st_size, content("big"))
        seen["xattr"] = tried(os.setxattr, file.fileno(), "user.x", b"v")
        seen["xattr read"] = tried(os.getxattr, reader.fileno(), "user.x")
    return seen


@case()
def directories_without_a_name_stay_open() -> Seen:
    fd = os.open("emptydir", os.O_RDONLY)
    os.chdir("emptydir")
    os.rmdir("../emptydir")
    return {
        "stat": look(fd),
        "nlink": os.stat(".").st_nlink,
        "list": tried(os.listdir, fd),
        "mkdir": tried(os.mkdir, "x"),
        "create": opened("x", os.O_CREAT | os.O_WRONLY),
        "symlink": tried(os.symlink, "x", "y"),
        "lookup": tried(os.stat, "x"),
        "parent": tried(os.stat, "../file")[stat.ST_SIZE],
        "getcwd": tried(os.getcwd),
        "rename into": tried(os.rename, "../file", "x"),
        "link into": tried(os.link, "../file", "x"),
        "chmod": tried(os.fchmod, fd, 0o700),
        "mode": look(fd)["mode"],
        "again": tried(os.mkdir, "../emptydir"),
        "new": os.stat("../emptydir").st_ino != os.fstat(fd).st_ino,
        "sync": tried(os.fsync, fd),
    }


def connected(name: str) -> bytes:
    """What goes through a socket that is bound to a name."""
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(name)
        server.listen()
        client.connect(name)
        taken, _ = server.accept()
        with taken:
            client.sendall(b"hello")
            return taken.recv(10)


@case()
def sockets_connect() -> Seen:
    os.umask(0o027)
    seen: Seen = {"through": connected("sock"), "made": look("sock")}
    with socket.socket(socket.AF_UNIX) as again:
        seen["bound again"] = tried(again.bind, "sock")
        seen["dead"] = tried(again.connect, "sock")
        seen["file"] = tried(again.connect, "file")
        seen["missing"] = tried(again.connect, "missing")
    seen["open"] = opened("sock", os.O_RDWR)
    os.rename("sock", "dir/s")
    seen["renamed"] = look("dir/s")["type"]
    return seen


@case()
def fifos_carry_data() -> Seen:
    reader = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open("fifo", os.O_WRONLY)
    os.write(writer, b"through")
    seen: Seen = {"read": os.read(reader, 100)}
    os.close(reader)
    seen["no reader"] = opened("fifo", os.O_WRONLY | os.O_NONBLOCK)
    seen["size"] = look("fifo")
    seen["truncate"] = tried(os.truncate, "fifo", 10)
    return seen
