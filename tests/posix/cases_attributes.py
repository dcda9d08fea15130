"""Modes, owners and times; the bits of privilege that changes take away."""

import os
import struct
from functools import partial

from tests.acceptance.child import as_other
from tests.posix.calls import (
    AT_SYMLINK_NOFOLLOW,
    CAP_CHOWN,
    CAP_FSETID,
    UTIME_NOW,
    UTIME_OMIT,
    fallocate,
    fchmodat2,
    utimensat,
)
from tests.posix.case import By, Difference, case
from tests.posix.observe import (
    PAST,
    Seen,
    content,
    extended,
    look,
    mode,
    moved,
    opened,
    put,
    times,
    tried,
    without,
)
from tests.posix.people import COLLEAGUE, EXTRA_GROUP, OWNER, OWNERS, STRANGER, STRANGERS

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
"""A security.capability attribute, version 2: cap_net_raw, effective."""

EVERYTHING = ("file", "dir", "fifo", "empty")


@case()
def chmod_sets_all_twelve_bits() -> Seen:
    seen: Seen = {}
    for name in EVERYTHING:
        modes = []
        for bits in (0o7777, 0o4711, 0o2755, 0o1777, 0o644, 0, 0o755):
            os.chmod(name, bits)
            modes.append(mode(name))
        seen[name] = modes
    fd = os.open("file", os.O_RDONLY)
    seen["descriptor"] = [tried(os.fchmod, fd, 0o6755), mode("file")]
    seen["through a link"] = [tried(os.chmod, "link", 0o600), mode("file"), mode("link")]
    seen["link itself"] = tried(fchmodat2, "link", 0o600, AT_SYMLINK_NOFOLLOW)
    seen["file not followed"] = [tried(fchmodat2, "big", 0o604, AT_SYMLINK_NOFOLLOW), mode("big")]
    seen["missing"] = tried(os.chmod, "missing", 0)
    seen["dangling"] = tried(os.chmod, "dangling", 0)
    seen["times"] = moved(["file", "dir", "."], lambda: os.chmod("file", 0o600))
    seen["same mode"] = moved(["file"], lambda: os.chmod("file", 0o600))
    seen["failed"] = moved(["."], lambda: tried(os.chmod, "missing", 0))
    seen["content"] = content("file")
    return seen


@case(By.ROOT)
def chown_as_root() -> Seen:
    seen: Seen = {}
    for name in (*EVERYTHING, "link"):
        os.chown(name, 123456, 2**32 - 2, follow_symlinks=False)
        seen[name] = look(name)["owner"]
    seen["followed"] = [tried(os.chown, "link", 7, 8), look("file")["owner"], look("link")["owner"]]
    seen["user alone"] = [tried(os.chown, "file", 9, -1), look("file")["owner"]]
    seen["group alone"] = [tried(os.chown, "file", -1, 10), look("file")["owner"]]
    seen["neither"] = [tried(os.chown, "file", -1, -1), look("file")["owner"]]
    seen["dangling"] = tried(os.chown, "dangling", 1, 1)
    seen["missing"] = tried(os.chown, "missing", 1, 1)
    seen["times"] = moved(["file", "."], lambda: os.chown("file", 1, 1))
    seen["no change"] = moved(["file"], lambda: os.chown("file", 1, 1))
    seen["neither times"] = moved(["file"], lambda: os.chown("file", -1, -1))
    return seen


@case(
    By.USER,
    privately={
        "to root": Difference("Rights in a private mount", None),
        "to another group": Difference("Rights in a private mount", None),
        "without the right": Difference("Rights in a private mount", None),
    },
)
def chown_as_an_owner() -> Seen:
    uid, gid = os.getuid(), os.getgid()
    return {
        "to oneself": tried(os.chown, "file", uid, gid),
        "to a group of one's own": tried(os.chown, "file", -1, EXTRA_GROUP),
        "and back": tried(os.chown, "file", uid, gid),
        "neither": tried(os.chown, "file", -1, -1),
        "without the right": tried(os.chown, "other", uid, STRANGERS),
        "to another group": tried(os.chown, "file", -1, STRANGERS),
        "to root": tried(os.chown, "big", 0, -1),
    }


# -- privilege --------------------------------------------------------------------------

PROGRAMS = (0o6755, 0o4755, 0o2755, 0o2745, 0o6644, 0o4644, 0o1755)


def _each(act: object, *, capability: bool = True) -> object:
    """The modes that an act leaves of programs of all kinds, and what of their capability."""
    left = []
    for bits in PROGRAMS:
        put("program", b"#!/bin/true\n" * 3)
        os.chown("program", OWNER, OWNERS)
        os.chmod("program", bits)
        if capability:
            os.setxattr("program", "security.capability", CAPABILITY)
        tried(act)  # type: ignore[arg-type]
        left.append((mode("program"), sorted(extended("program"))))
        os.unlink("program")
    return left


def _write() -> None:
    with open("program", "r+b", buffering=0) as file:
        file.write(b"#")


def _write_nothing() -> None:
    with open("program", "r+b", buffering=0) as file:
        file.write(b"")


def _write_mapped() -> None:
    import mmap

    with open("program", "r+b", buffering=0) as file, mmap.mmap(file.fileno(), 0) as view:
        view[0] = 35
        view.flush()


def _truncate() -> None:
    os.truncate("program", 5)


def _ftruncate() -> None:
    with open("program", "r+b", buffering=0) as file:
        file.truncate(5)


def _open_to_cut() -> None:
    opened("program", os.O_WRONLY | os.O_TRUNC)


def _fallocate() -> None:
    with open("program", "r+b", buffering=0) as file:
        tried(fallocate, file.fileno(), 0, 0, 5)


def _chown_neither() -> None:
    os.chown("program", -1, -1)


def _chown_to_others() -> None:
    os.chown("program", STRANGER, STRANGERS)


def _chown_group() -> None:
    os.chown("program", -1, STRANGERS)


def _touch() -> None:
    os.utime("program")


CHANGES = (
    _write, _write_nothing, _write_mapped, _truncate, _ftruncate, _open_to_cut, _chown_neither,
    _chown_to_others, _chown_group, _touch,
)  # fmt: skip


@case(By.ROOT)
def privilege_after_changes_by_root() -> Seen:
    return {change.__name__: _each(change) for change in CHANGES}


@case(By.CAST)
def privilege_after_changes_by_root_where_others_get_in() -> Seen:
    return {change.__name__: _each(change) for change in CHANGES}


@case(By.ROOT)
def privilege_without_capabilities_of_files() -> Seen:
    return {change.__name__: _each(change, capability=False) for change in CHANGES}


@case(By.ROOT)
def privilege_after_changes_by_root_without_fsetid() -> Seen:
    changes = (_write, _write_nothing, _truncate, _ftruncate, _open_to_cut, _chown_neither, _touch)
    return {change.__name__: _each(partial(without, CAP_FSETID, change)) for change in changes}


@case(By.CAST)
def privilege_after_changes_by_the_owner() -> Seen:
    changes = (_write, _write_nothing, _truncate, _ftruncate, _open_to_cut, _chown_neither, _touch)

    return {change.__name__: _each(partial(as_other, OWNER, OWNERS, change)) for change in changes}


@case(By.CAST)
def privilege_after_changes_by_others() -> Seen:
    changes = (_write, _truncate, _ftruncate, _open_to_cut)
    seen: Seen = {}
    for change in changes:
        modes = []
        for bits in (0o6777, 0o4777, 0o2777, 0o2767, 0o6666):
            put("program", b"#!/bin/true\n")
            os.chown("program", OWNER, OWNERS)
            os.chmod("program", bits)
            as_other(STRANGER, STRANGERS, change)
            modes.append(mode("program"))
        seen[change.__name__] = modes
    return seen


@case(By.CAST)
def privilege_that_chmod_may_give() -> Seen:
    """Set-group-id is for members of the group."""
    os.chmod(".", 0o777)
    put("own")
    os.chown("own", OWNER, STRANGERS)
    put("group")
    os.chown("group", OWNER, OWNERS)
    os.mkdir("folder")
    os.chown("folder", OWNER, STRANGERS)

    def give() -> Seen:
        seen: Seen = {}
        for name in ("own", "group", "folder"):
            os.chmod(name, 0o6775)
            seen[name] = mode(name)
        os.chmod("own", 0o1644)
        seen["sticky file"] = mode("own")
        return seen

    return {
        "outsider": as_other(OWNER, OWNERS, give),
        "member": as_other(OWNER, OWNERS, give, groups=(STRANGERS,)),
        "somebody": as_other(STRANGER, STRANGERS, lambda: tried(os.chmod, "own", 0o777)),
    }


@case(By.CAST)
def privilege_after_chown_by_the_owner() -> Seen:
    def hand_over() -> object:
        os.chown("program", -1, STRANGERS)
        return mode("program")

    seen: Seen = {}
    for bits in PROGRAMS:
        put("program")
        os.chown("program", OWNER, OWNERS)
        os.chmod("program", bits)
        seen[oct(bits)] = as_other(OWNER, OWNERS, hand_over, groups=(STRANGERS,))
    os.mkdir("folder", 0o755)
    os.chown("folder", OWNER, OWNERS)
    os.chmod("folder", 0o6755)

    def of_directory() -> object:
        os.chown("folder", -1, STRANGERS)
        return mode("folder")

    seen["directory"] = as_other(OWNER, OWNERS, of_directory, groups=(STRANGERS,))
    return seen


@case(By.CAST)
def owners_without_the_right_to_give_away() -> Seen:
    put("program")
    os.chown("program", OWNER, OWNERS)

    def tries() -> Seen:
        return {
            "user": tried(os.chown, "program", STRANGER, -1),
            "foreign group": tried(os.chown, "program", -1, COLLEAGUE),
            "own": tried(os.chown, "program", OWNER, OWNERS),
        }

    return {
        "owner": as_other(OWNER, OWNERS, tries),
        "stranger": as_other(STRANGER, STRANGERS, tries),
        "root without the capability": without(CAP_CHOWN, lambda: tried(os.chown, "program", 5, 5)),
    }


# -- what is made where -----------------------------------------------------------------


@case()
def umask_takes_bits_away() -> Seen:
    seen: Seen = {}
    for mask in (0, 0o022, 0o077, 0o777):
        os.umask(mask)
        name = f"{mask:o}"
        os.close(os.open(f"f{name}", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(f"d{name}")
        os.mkfifo(f"p{name}")
        os.symlink("x", f"s{name}")
        seen[name] = [mode(kind + name) for kind in "fdps"]
    return seen


@case(By.CAST)
def what_is_made_in_a_directory_that_hands_down_its_group() -> Seen:
    os.mkdir("shared")
    os.chown("shared", OWNER, OWNERS)
    os.chmod("shared", 0o2777)
    os.mkdir("plain")
    os.chown("plain", OWNER, OWNERS)
    os.chmod("plain", 0o777)

    def make() -> Seen:
        os.umask(0)
        seen: Seen = {}
        for place in ("shared", "plain"):
            name = f"{place}/{os.getuid()}-{len(os.getgroups())}"
            os.close(os.open(f"{name}f", os.O_CREAT | os.O_WRONLY, 0o6775))
            os.close(os.open(f"{name}g", os.O_CREAT | os.O_WRONLY, 0o2745))
            os.close(os.open(f"{name}h", os.O_CREAT | os.O_WRONLY, 0o2665))
            os.mkdir(f"{name}d", 0o775)
            os.mkdir(f"{name}e", 0o3775)
            os.mkfifo(f"{name}p", 0o2775)
            os.symlink("x", f"{name}s")
            os.mknod(f"{name}n", 0o2775)
            for kind in "fghdepsn":
                found = look(name + kind)
                seen[f"{place} {kind}"] = (found["mode"], found["owner"])
        return seen

    return {
        "root": make(),
        "owner": as_other(OWNER, OWNERS, make),
        "member": as_other(STRANGER, STRANGERS, make, groups=(OWNERS,)),
        "stranger": as_other(STRANGER, STRANGERS, make),
    }


# -- times ------------------------------------------------------------------------------


@case()
def times_are_kept_to_the_nanosecond() -> Seen:
    seen: Seen = {}
    for moment in (
        0, 1, -1, 999_999_999, -999_999_999, -1_000_000_000, 1_234_567_890_123_456_789,
        -(2**31 - 1) * 10**9, (2**31 - 1) * 10**9 + 999_999_999, 2**31 * 10**9, 2**32 * 10**9 + 5,
        4_300_000_000 * 10**9 + 123, 9_000_000_000 * 10**9 + 7,
    ):  # fmt: skip
        for name in ("file", "dir", "link"):
            os.utime(name, ns=(moment, moment + 1), follow_symlinks=False)
            seen[f"{name} {moment}"] = times(name)[:2]
    fd = os.open("big", os.O_RDONLY)
    seen["descriptor"] = [tried(os.utime, fd, ns=(3, 4)), times("big")[:2]]
    seen["through a link"] = [tried(os.utime, "link", ns=(5, 6)), times("file")[:2]]
    seen["missing"] = tried(os.utime, "missing", ns=(1, 1))
    seen["dangling"] = tried(os.utime, "dangling", ns=(1, 1))
    return seen


@case(differs={
    "far before": Difference("Times", -(2**63)),
    "before": Difference("Times", -(2**31 + 5) * 10**9),
    "far behind": Difference("Times", 2**63 - 1),
    "behind": Difference("Times", 2**63 - 1),
})  # fmt: skip
def times_beyond_what_can_be_kept() -> Seen:
    seen: Seen = {}
    for name, seconds in (
        ("far before", -(10**11)), ("before", -(2**31) - 5), ("behind", 9_500_000_000),
        ("far behind", 10**11),
    ):  # fmt: skip
        utimensat("file", (seconds, 0), (seconds, 0))
        status = os.stat("file")
        seen[name] = status.st_mtime_ns
    return seen


@case()
def times_set_to_now_or_left_alone() -> Seen:
    now, omit, past = (0, UTIME_NOW), (0, UTIME_OMIT), (1_000_000, 5)

    def after(atime: tuple[int, int], mtime: tuple[int, int]) -> object:
        os.utime("file", ns=(PAST, PAST))
        error = tried(utimensat, "file", atime, mtime)
        found = times("file")
        return error, ["left" if at == PAST else "now" if at > PAST else at for at in found]

    seen: Seen = {
        "both now": after(now, now),
        "both left": after(omit, omit),
        "one now": after(now, omit),
        "other now": after(omit, now),
        "one set": after(past, omit),
        "other set": after(now, past),
        "bad": after((0, 10**9), now),
        "negative": after((0, -1), now),
    }
    seen["link"] = [
        tried(utimensat, "link", past, past, AT_SYMLINK_NOFOLLOW), times("link")[:2],
        times("file")[1] > PAST,
    ]  # fmt: skip
    seen["touched"] = moved(["file"], lambda: os.utime("file"))
    seen["set"] = moved(["file"], lambda: os.utime("file", ns=(PAST, PAST)))
    seen["left alone"] = moved(["file"], lambda: utimensat("file", omit, omit))
    return seen


@case(By.CAST)
def times_that_others_may_set() -> Seen:
    for name, bits in (("closed", 0o644), ("open", 0o666)):
        put(name)
        os.chown(name, OWNER, OWNERS)
        os.chmod(name, bits)
    now, omit, past = (0, UTIME_NOW), (0, UTIME_OMIT), (1_000_000, 5)

    def tries() -> Seen:
        return {
            f"{name} {way}": tried(utimensat, name, *pair)
            for name in ("closed", "open")
            for way, pair in {
                "now": (now, now), "left": (omit, omit), "set": (past, past),
                "one now": (now, omit), "one set": (past, now),
            }.items()
        }  # fmt: skip

    return {
        "owner": as_other(OWNER, OWNERS, tries),
        "stranger": as_other(STRANGER, STRANGERS, tries),
    }


def _atime_moved(path: str, action: object) -> bool:
    before = os.stat(path).st_atime_ns
    action()  # type: ignore[operator]
    return os.stat(path).st_atime_ns > before


@case(differs={
    "read": Difference("Access times", False),
    "list": Difference("Access times", False),
})  # fmt: skip
def reading_moves_the_access_time() -> Seen:
    """As `relatime` does on ext4, where it is not newer than the others."""
    os.utime("file", ns=(PAST, PAST + 1))
    os.utime("dir", ns=(PAST, PAST + 1))
    return {
        "read": _atime_moved("file", lambda: content("file")),
        "list": _atime_moved("dir", lambda: os.listdir("dir")),
        "stat": _atime_moved("file", lambda: os.stat("file")),
        "set by hand": [tried(os.utime, "file", ns=(7, 8)), os.stat("file").st_atime_ns],
    }
