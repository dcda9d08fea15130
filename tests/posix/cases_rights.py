"""Who may do what: modes, sticky directories, ACLs, checked by the kernel."""

import os
import stat
import struct

from tests.acceptance.child import as_other
from tests.posix.calls import RENAME_EXCHANGE, renameat2
from tests.posix.case import By, Difference, case
from tests.posix.observe import Seen, content, extended, look, mode, opened, put, tried
from tests.posix.people import COLLEAGUE, OWNER, OWNERS, STRANGER, STRANGERS

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NOBODY = 0xFFFFFFFF

ACTORS = {
    "owner": (OWNER, OWNERS, ()),
    "colleague": (COLLEAGUE, COLLEAGUE, (OWNERS,)),
    "stranger": (STRANGER, STRANGERS, ()),
}


def by_all(function: object) -> Seen:
    """What the owner, a member of the group and somebody else see."""
    return {
        name: as_other(uid, gid, function, groups)  # type: ignore[arg-type]
        for name, (uid, gid, groups) in ACTORS.items()
    }


def owned(path: str, bits: int, uid: int = OWNER, gid: int = OWNERS) -> None:
    os.chown(path, uid, gid)
    os.chmod(path, bits)


def acl(*entries: tuple[int, int] | tuple[int, int, int]) -> bytes:
    """An ACL of (tag, rights) or (tag, rights, id)."""
    full = [entry if len(entry) == 3 else (*entry, NOBODY) for entry in entries]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in full)


@case(By.CAST)
def modes_of_files() -> Seen:
    for bits in (0o700, 0o070, 0o007, 0o400, 0o040, 0o004, 0o200, 0o600, 0o644, 0):
        put(f"f{bits:o}", b"#!/bin/true\n")
        owned(f"f{bits:o}", bits)

    def tries() -> object:
        return {
            name: (
                opened(name, os.O_RDONLY), opened(name, os.O_WRONLY), opened(name, os.O_RDWR),
                [os.access(name, way) for way in (os.R_OK, os.W_OK, os.X_OK)],
                tried(os.truncate, name, 100), tried(os.chmod, name, stat.S_IMODE(os.stat(name).st_mode)),
            )
            for name in sorted(os.listdir()) if name.startswith("f") and name[1:].isdigit()
        }  # fmt: skip

    return by_all(tries)


@case(By.CAST)
def modes_of_directories() -> Seen:
    for bits in (0o700, 0o070, 0o007, 0o555, 0o333, 0o444, 0o111, 0o777, 0o755):
        name = f"d{bits:o}"
        os.mkdir(name)
        put(f"{name}/inside", b"x")
        os.chmod(f"{name}/inside", 0o666)
        owned(name, bits)

    def tries() -> object:
        seen = {}
        for name in sorted(os.listdir()):
            if not name[1:].isdigit():
                continue
            new = f"{name}/new{os.getuid()}"
            seen[name] = (
                tried(os.listdir, name) == ["inside"] or tried(os.listdir, name), opened(f"{name}/inside", os.O_RDWR),
                tried(os.stat, f"{name}/missing"), tried(os.mkdir, new), tried(os.rmdir, new),
                opened(new, os.O_CREAT | os.O_WRONLY), tried(os.rename, new, f"{new}x"),
                tried(os.link, f"{name}/inside", f"{new}l"), tried(os.unlink, f"{new}x"),
                tried(os.unlink, f"{new}l"), tried(os.symlink, "x", new), tried(os.unlink, new),
                tried(os.mkfifo, new), tried(os.unlink, new),
            )  # fmt: skip
        return seen

    return by_all(tries)


@case(By.CAST)
def names_in_sticky_directories() -> Seen:
    def fill(place: str) -> None:
        os.mkdir(place)
        for name, uid in (("own", STRANGER), ("theirs", OWNER), ("roots", 0), ("third", COLLEAGUE)):
            put(f"{place}/{name}")
            os.chown(f"{place}/{name}", uid, STRANGERS)
            os.chmod(f"{place}/{name}", 0o666)
            os.mkdir(f"{place}/{name}.d")
            os.chown(f"{place}/{name}.d", uid, STRANGERS)
            os.chmod(f"{place}/{name}.d", 0o777)
        put(f"{place}/target")
        os.chown(f"{place}/target", COLLEAGUE, COLLEAGUE)

    seen: Seen = {}
    for place, bits, uid in (("sticky", 0o1777, OWNER), ("plain", 0o777, OWNER)):
        for actor in ("stranger", "owner"):
            fill(f"{place}-{actor}")
            owned(f"{place}-{actor}", bits, uid)

            def tries(place: str = f"{place}-{actor}") -> object:
                os.chdir(place)
                return (
                    [
                        tried(os.rename, name, f"{name}2")
                        for name in ("own", "theirs", "roots", "third")
                    ],
                    [
                        tried(os.rename, f"{name}.d", f"{name}.e")
                        for name in ("own", "theirs", "roots")
                    ],
                    tried(renameat2, "own2", "third", RENAME_EXCHANGE),
                    tried(os.rename, "own2", "target"),
                    [
                        tried(os.unlink, name)
                        for name in ("own2", "theirs", "theirs2", "roots", "third")
                    ],
                    [tried(os.rmdir, f"{name}.e") for name in ("own", "theirs", "roots")],
                    [tried(os.rmdir, f"{name}.d") for name in ("third", "roots")],
                    tried(os.link, "roots", "linked"),
                )

            who = ACTORS[actor]
            seen[f"{place} {actor}"] = as_other(who[0], who[1], tries)
    return seen


@case(By.CAST)
def sticky_directories_guard_what_is_opened_to_create() -> Seen:
    """fs.protected_regular and fs.protected_fifos, as this machine has them."""
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)
    put("sticky/file")
    owned("sticky/file", 0o666)
    os.mkfifo("sticky/fifo")
    owned("sticky/fifo", 0o666)
    os.symlink("file", "sticky/link")
    os.lchown("sticky/link", OWNER, OWNERS)

    def tries() -> object:
        return (
            opened("sticky/file", os.O_CREAT | os.O_RDWR),
            opened("sticky/file", os.O_RDWR),
            opened("sticky/fifo", os.O_CREAT | os.O_RDWR | os.O_NONBLOCK),
            opened("sticky/link", os.O_RDONLY),
            tried(os.link, "sticky/file", "sticky/hard"),
        )

    return by_all(tries)


@case(By.CAST)
def moving_a_directory_takes_the_right_to_change_it() -> Seen:
    os.mkdir("from")
    os.mkdir("to")
    os.chmod("from", 0o777)
    os.chmod("to", 0o777)
    for name, bits in (("mine", 0o755), ("theirs", 0o755), ("open", 0o777)):
        os.mkdir(f"from/{name}")
        owned(f"from/{name}", bits, STRANGER if name == "mine" else OWNER)

    def tries() -> object:
        return [
            tried(os.rename, f"from/{name}", f"from/{name}2") for name in ("mine", "theirs", "open")
        ] + [tried(os.rename, f"from/{name}2", f"to/{name}") for name in ("mine", "theirs", "open")]

    return {"stranger": as_other(STRANGER, STRANGERS, tries)}


@case(By.CAST)
def access_times_that_others_may_leave_alone() -> Seen:
    put("file2")
    owned("file2", 0o644)
    return by_all(lambda: opened("file2", os.O_RDONLY | os.O_NOATIME))


@case(By.CAST)
def attributes_belong_to_the_owner() -> Seen:
    put("file2")
    owned("file2", 0o664)
    os.setxattr("file2", "user.there", b"x")

    def tries() -> object:
        return {
            "chmod": tried(os.chmod, "file2", 0o664),
            "chown": tried(os.chown, "file2", os.getuid(), -1),
            "get": tried(os.getxattr, "file2", "user.there"),
            "set": tried(os.setxattr, "file2", "user.mine", b"1"),
            "trusted": tried(os.setxattr, "file2", "trusted.mine", b"1"),
            "get trusted": tried(os.getxattr, "file2", "trusted.mine"),
            "security": tried(os.setxattr, "file2", "security.mine", b"1"),
            "acl": tried(
                os.setxattr, "file2", ACCESS, acl((USER_OBJ, 6), (GROUP_OBJ, 6), (OTHER, 4))
            ),
            "list": sorted(os.listxattr("file2")),
            "remove": tried(os.removexattr, "file2", "user.there"),
        }

    return by_all(tries)


# -- ACLs -------------------------------------------------------------------------------

WIDE = acl(
    (USER_OBJ, 6), (USER, 6, STRANGER), (GROUP_OBJ, 0), (GROUP, 4, OWNERS), (MASK, 6), (OTHER, 0)
)
NARROW = acl((USER_OBJ, 6), (USER, 6, STRANGER), (GROUP_OBJ, 4), (MASK, 4), (OTHER, 0))
INHERITED = acl((USER_OBJ, 7), (USER, 7, STRANGER), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 1))
PLAIN_DEFAULT = acl((USER_OBJ, 7), (GROUP_OBJ, 7), (OTHER, 7))


@case(By.CAST)
def acls_of_files_decide() -> Seen:
    for name, value in (("wide", WIDE), ("narrow", NARROW)):
        put(name)
        os.chown(name, OWNER, OWNERS)
        os.setxattr(name, ACCESS, value)

    def tries() -> object:
        return [
            (opened(name, os.O_RDONLY), opened(name, os.O_WRONLY), os.access(name, os.R_OK))
            for name in ("wide", "narrow")
        ]

    seen = by_all(tries)
    seen["modes"] = [mode(name) for name in ("wide", "narrow")]
    os.chmod("wide", 0o640)
    seen["after chmod"] = by_all(tries)
    seen["left"] = extended("wide")
    os.chmod("wide", 0o600)
    seen["closed"] = by_all(tries)
    os.removexattr("wide", ACCESS)
    seen["without"] = (by_all(tries), mode("wide"), extended("wide"))
    return seen


@case(By.CAST)
def acls_of_directories_decide() -> Seen:
    os.mkdir("open")
    put("open/inside")
    os.chown("open", OWNER, OWNERS)
    os.setxattr(
        "open",
        ACCESS,
        acl((USER_OBJ, 7), (USER, 7, STRANGER), (GROUP_OBJ, 0), (MASK, 7), (OTHER, 0)),
    )

    def tries() -> object:
        new = f"open/{os.getuid()}"
        return tried(os.listdir, "open") == ["inside"], tried(os.mkdir, new), tried(os.rmdir, new)

    return by_all(tries)


@case(By.ROOT, By.CAST)
def acls_and_modes_agree() -> Seen:
    seen: Seen = {}
    for name, value in (
        ("wide", WIDE), ("narrow", NARROW), ("basic", acl((USER_OBJ, 5), (GROUP_OBJ, 3), (OTHER, 1))),
    ):  # fmt: skip
        os.setxattr("file", ACCESS, value)
        seen[name] = (mode("file"), extended("file"))
        os.setxattr("dir", ACCESS, value)
        seen[f"{name} directory"] = (mode("dir"), extended("dir"))
    os.setxattr("big", ACCESS, WIDE)
    for bits in (0o777, 0o4750, 0o604, 0):
        os.chmod("big", bits)
        seen[f"{bits:o}"] = (mode("big"), extended("big"))
    seen["removed"] = tried(os.removexattr, "big", ACCESS)
    seen["left"] = (mode("big"), extended("big"))
    seen["removed again"] = tried(os.removexattr, "big", ACCESS)
    seen["none"] = tried(os.getxattr, "big", ACCESS)
    seen["default of a file"] = tried(os.setxattr, "big", DEFAULT, INHERITED)
    seen["remove default of a file"] = tried(os.removexattr, "big", DEFAULT)
    seen["default"] = [tried(os.setxattr, "dir", DEFAULT, INHERITED), mode("dir"), extended("dir")]
    seen["no default"] = [tried(os.removexattr, "dir", DEFAULT), extended("dir")]
    seen["symlink"] = tried(os.setxattr, "link", ACCESS, WIDE, follow_symlinks=False)
    seen["fifo"] = [tried(os.setxattr, "fifo", ACCESS, NARROW), mode("fifo")]
    return seen


@case(By.ROOT)
def acls_that_are_none() -> Seen:
    return {
        name: tried(os.setxattr, "file", ACCESS, value)
        for name, value in {
            "empty": b"",
            "header": acl(),
            "short": acl((USER_OBJ, 6), (GROUP_OBJ, 6)),
            "no mask": acl((USER_OBJ, 6), (USER, 6, 5), (GROUP_OBJ, 6), (OTHER, 0)),
            "order": acl((GROUP_OBJ, 6), (USER_OBJ, 6), (OTHER, 0)),
            "twice": acl(
                (USER_OBJ, 6), (USER, 6, 5), (USER, 6, 5), (GROUP_OBJ, 6), (MASK, 6), (OTHER, 0)
            ),
            "version": b"\1\0\0\0" + acl((USER_OBJ, 6), (GROUP_OBJ, 6), (OTHER, 0))[4:],
            "cut": acl((USER_OBJ, 6), (GROUP_OBJ, 6), (OTHER, 0))[:-1],
            "tag": acl((USER_OBJ, 6), (GROUP_OBJ, 6), (OTHER, 0), (64, 0)),
            "rights": acl((USER_OBJ, 8), (GROUP_OBJ, 6), (OTHER, 0)),
        }.items()
    }


def _made_below(mask: int) -> Seen:
    os.umask(mask)
    seen: Seen = {}
    for name, bits in (("f", 0o666), ("g", 0o600), ("h", 0o777)):
        os.close(os.open(f"below/{name}", os.O_CREAT | os.O_WRONLY, bits))
    os.mkdir("below/d", 0o777)
    os.mkdir("below/e", 0o700)
    os.mkfifo("below/p", 0o666)
    os.mknod("below/n", 0o666)
    os.symlink("x", "below/s")
    for name in "fghdepns":
        seen[name] = (mode(f"below/{name}"), extended(f"below/{name}"))
    os.mkdir("below/d/deep", 0o777)
    seen["deep"] = (mode("below/d/deep"), extended("below/d/deep"))
    return seen


def _below(default: bytes) -> Seen:
    os.mkdir("below")
    os.setxattr("below", DEFAULT, default)
    return _made_below(0o027)


@case(By.ROOT, By.CAST)
def defaults_are_inherited_and_the_umask_does_not_count() -> Seen:
    return _below(INHERITED)


@case(By.ROOT, By.CAST)
def defaults_without_names_are_inherited() -> Seen:
    return _below(PLAIN_DEFAULT)


@case(
    By.USER,
    privately={
        name: Difference("Default ACLs in an ordinary user's mount", bits)
        for bits, names in (("0o640", ("f", "p", "n")), ("0o750", ("h", "d", "deep")))
        for name in names
    },
)
def defaults_are_inherited_from_an_owner() -> Seen:
    return {name: bits for name, (bits, _) in _below(INHERITED).items()}


@case(By.CAST)
def set_group_id_after_setting_an_acl() -> Seen:
    """Who is not in the group loses it."""
    seen: Seen = {}
    for name, (uid, gid, groups) in {
        "outsider": (OWNER, OWNERS, ()),
        "member": (OWNER, OWNERS, (STRANGERS,)),
        "primary": (OWNER, STRANGERS, ()),
    }.items():
        put("program")
        os.chown("program", OWNER, STRANGERS)
        os.chmod("program", 0o2755)
        as_other(uid, gid, lambda: os.setxattr("program", ACCESS, WIDE), groups)
        seen[name] = mode("program")
        os.unlink("program")
    return seen


@case(By.CAST)
def acls_copied_by_programs() -> Seen:
    import subprocess

    os.setxattr("file", ACCESS, WIDE)
    os.setxattr("dir", DEFAULT, INHERITED)
    subprocess.run(["cp", "-a", "file", "copy"], check=True)
    subprocess.run(["cp", "-a", "dir", "copied"], check=True)
    return {
        "file": (look("copy"), extended("copy"), content("copy")),
        "directory": (look("copied"), extended("copied")),
    }
