"""Extended attributes: namespaces, flags, sizes, and where there may be none."""

import ctypes
import os
from os import XATTR_CREATE, XATTR_REPLACE

from tests.acceptance.child import as_other
from tests.posix.case import By, Difference, case
from tests.posix.observe import Seen, extended, moved, put, tried
from tests.posix.people import STRANGER, STRANGERS

LARGER = "Size of extended attributes"
_libc = ctypes.CDLL(None, use_errno=True)


def sized(function: str, *arguments: object) -> object:
    """What getxattr or listxattr says for a buffer of a given size, with its result."""
    found = getattr(_libc, function)(*arguments)
    return found if found >= 0 else os.strerror(ctypes.get_errno())


@case()
def attributes_are_set_read_and_removed() -> Seen:
    seen: Seen = {}
    for name in ("file", "dir"):
        seen[name] = [
            tried(os.getxattr, name, "user.x"), tried(os.setxattr, name, "user.x", b"value"),
            tried(os.getxattr, name, "user.x"), tried(os.setxattr, name, "user.x", b""),
            tried(os.getxattr, name, "user.x"), tried(os.setxattr, name, "user.y", b"\0\xff\n"),
            extended(name), tried(os.removexattr, name, "user.x"),
            tried(os.removexattr, name, "user.x"), extended(name),
        ]  # fmt: skip
    fd = os.open("big", os.O_RDONLY)
    seen["descriptor"] = [tried(os.setxattr, fd, "user.f", b"1"), tried(os.getxattr, fd, "user.f")]
    seen["through a link"] = [
        tried(os.setxattr, "link", "user.l", b"1"),
        tried(os.getxattr, "file", "user.l"),
    ]
    seen["case counts"] = tried(os.getxattr, "big", "user.F")
    seen["missing"] = tried(os.setxattr, "missing", "user.x", b"")
    seen["dangling"] = tried(os.getxattr, "dangling", "user.x")
    return seen


@case()
def flags_say_whether_it_may_exist() -> Seen:
    return {
        "replace none": tried(os.setxattr, "file", "user.x", b"1", XATTR_REPLACE),
        "create": tried(os.setxattr, "file", "user.x", b"2", XATTR_CREATE),
        "create again": tried(os.setxattr, "file", "user.x", b"3", XATTR_CREATE),
        "replace": tried(os.setxattr, "file", "user.x", b"4", XATTR_REPLACE),
        "both": tried(os.setxattr, "file", "user.x", b"5", XATTR_CREATE | XATTR_REPLACE),
        "unknown": tried(os.setxattr, "file", "user.x", b"6", 4),
        "left": extended("file"),
    }


@case(differs={"none": Difference("`XATTR_CREATE` and `XATTR_REPLACE` at once", None)})
def flags_that_contradict_each_other() -> Seen:
    both = XATTR_CREATE | XATTR_REPLACE
    return {"none": tried(os.setxattr, "file", "user.n", b"5", both)}


@case()
def only_files_and_directories_have_user_attributes() -> Seen:
    return {
        name: [
            tried(os.setxattr, name, "user.x", b"1", follow_symlinks=False),
            tried(os.getxattr, name, "user.x", follow_symlinks=False),
            tried(os.removexattr, name, "user.x", follow_symlinks=False),
            tried(os.listxattr, name, follow_symlinks=False),
        ]
        for name in ("link", "dangling", "fifo")
    }


@case()
def namespaces_that_there_are_not() -> Seen:
    seen: Seen = {}
    for name in ("x", "user", "user.", "users.x", "osx.x", "system.x", "system.", "trusted", "os2.x",
                 "btrfs.x", "User.x", ".x", "security", "system.nfs4_acl"):  # fmt: skip
        seen[name] = [
            tried(os.setxattr, "file", name, b"1"), tried(os.getxattr, "file", name),
            tried(os.removexattr, "file", name),
        ]  # fmt: skip
    seen["empty"] = [tried(os.setxattr, "file", "", b"1"), tried(os.getxattr, "file", "")]
    return seen


@case(By.ROOT)
def namespaces_of_root() -> Seen:
    seen: Seen = {}
    for name in ("trusted.x", "security.x"):
        for path in ("file", "dir", "link", "fifo"):
            seen[f"{name} {path}"] = [
                tried(os.setxattr, path, name, b"1", follow_symlinks=False),
                tried(os.getxattr, path, name, follow_symlinks=False),
                extended(path), tried(os.removexattr, path, name, follow_symlinks=False),
            ]  # fmt: skip
    return seen


@case(By.USER)
def namespaces_of_others() -> Seen:
    return {
        name: [
            tried(os.setxattr, "file", name, b"1"), tried(os.getxattr, "file", name),
            tried(os.removexattr, "file", name),
        ]
        for name in ("trusted.x", "security.x", "security.capability")
    }  # fmt: skip


@case(By.CAST)
def what_others_see_of_the_namespaces_of_root() -> Seen:
    for name in ("trusted.x", "security.x", "user.x"):
        os.setxattr("file", name, b"1")

    def look() -> object:
        return sorted(os.listxattr("file")), [
            tried(os.getxattr, "file", name) for name in ("trusted.x", "security.x", "user.x")
        ]

    os.chmod("file", 0o600)
    closed = as_other(STRANGER, STRANGERS, lambda: tried(os.getxattr, "file", "user.x"))
    os.chmod("file", 0o644)
    return {
        "stranger": as_other(STRANGER, STRANGERS, look),
        "closed": closed,
        "root": look(),
    }


@case()
def names_of_attributes_have_255_bytes() -> Seen:
    longest = "user." + "n" * 250
    return {
        "longest": [tried(os.setxattr, "file", longest, b"1"), tried(os.getxattr, "file", longest)],
        "too long": tried(os.setxattr, "file", longest + "n", b"1"),
        "too long to read": tried(os.getxattr, "file", longest + "n"),
        "too long to remove": tried(os.removexattr, "file", longest + "n"),
        "any bytes": [
            tried(os.setxattr, "file", b"user.\xff\n \x01", b"1"),
            os.listxattr("file")[-1:] != [],
        ],
    }


@case(
    differs={
        name: Difference(LARGER, None) for name in ("5000 bytes", "65536 bytes", "twenty of 4000")
    }
)
def how_much_attributes_hold() -> Seen:
    def twenty() -> None:
        for number in range(20):
            os.setxattr("big", f"user.{number}", b"x" * 4000)

    return {
        "3000 bytes": [
            tried(os.setxattr, "file", "user.x", b"x" * 3000), len(os.getxattr("file", "user.x")),
        ],
        "5000 bytes": tried(os.setxattr, "other", "user.x", b"x" * 5000),
        "65536 bytes": tried(os.setxattr, "empty", "user.x", b"x" * 65536),
        "65537 bytes": tried(os.setxattr, "empty", "user.x", b"x" * 65537),
        "twenty of 4000": tried(twenty),
    }  # fmt: skip


@case()
def buffers_that_are_too_small() -> Seen:
    os.setxattr("file", "user.x", b"0123456789")
    buffer = ctypes.create_string_buffer(100)
    return {
        "how much": sized("getxattr", b"file", b"user.x", None, 0),
        "too small": sized("getxattr", b"file", b"user.x", buffer, 9),
        "exact": sized("getxattr", b"file", b"user.x", buffer, 10),
        "value": buffer.value,
        "how much list": sized("listxattr", b"file", None, 0) >= 7,  # type: ignore[operator]
        "list too small": sized("listxattr", b"file", buffer, 3),
        "no names": sized("listxattr", b"big", buffer, 0),
    }


@case()
def attributes_touch_the_inode_alone() -> Seen:
    return {
        "set": moved(["file", "."], lambda: os.setxattr("file", "user.x", b"1")),
        "set the same": moved(["file"], lambda: os.setxattr("file", "user.x", b"1")),
        "read": moved(["file"], lambda: os.getxattr("file", "user.x")),
        "failed": moved(["file"], lambda: tried(os.setxattr, "file", "user.x", b"2", XATTR_CREATE)),
        "removed": moved(["file", "."], lambda: os.removexattr("file", "user.x")),
        "removed none": moved(["file"], lambda: tried(os.removexattr, "file", "user.x")),
    }


@case()
def attributes_belong_to_the_inode() -> Seen:
    os.setxattr("other", "user.x", b"1")
    seen: Seen = {"twin": extended("twin")}
    os.rename("other", "dir/moved")
    seen["moved"] = extended("dir/moved")
    os.link("dir/moved", "again")
    os.setxattr("again", "user.y", b"2")
    seen["again"] = extended("twin")
    put("new")
    os.rename("new", "twin")
    seen["replaced"] = extended("twin")
    os.chmod("again", 0o600)
    os.truncate("again", 0)
    seen["changed"] = extended("again")
    return seen
