"""Who may do what in a tree: a matrix of callers, files and operations, as the kernel decides it.

Run by root, in a program of its own, because it becomes each of the callers in turn. Every
answer is an errno's name, or what came of the operation.
"""

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.child import as_other

OWNER, MEMBER, NAMED, NAMED_MEMBER, FURTHER_MEMBER, OTHER = 61001, 61002, 61003, 61004, 61005, 61006
GROUP, NAMED_GROUP, NO_GROUP = 62001, 62002, 62009
MODES = (0o000, 0o100, 0o200, 0o400, 0o010, 0o020, 0o040, 0o001, 0o002, 0o004, 0o640, 0o755, 0o077)
ACLS = {
    "named-user": f"u:{NAMED}:rwx",
    "named-user-nothing": f"u::rwx,u:{NAMED}:-,g::r,o::rwx",
    "named-group": f"g:{NAMED_GROUP}:rwx",
    "masked": f"u:{NAMED}:rwx,g:{NAMED_GROUP}:rwx,g::rwx,m::r",
    "mask-of-nothing": f"u:{NAMED}:rwx,g:{NAMED_GROUP}:rwx,m::-",
}


class Caller(NamedTuple):
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


CALLERS = {
    "root": Caller(0, 0),
    "owner": Caller(OWNER, NO_GROUP),
    "member": Caller(MEMBER, GROUP),
    "named": Caller(NAMED, NO_GROUP),
    "named-member": Caller(NAMED_MEMBER, NAMED_GROUP),
    "further-member": Caller(FURTHER_MEMBER, NO_GROUP, (GROUP,)),
    "other": Caller(OTHER, NO_GROUP),
}
Answers = dict[str, str]


def build(top: Path) -> None:
    """Files and directories of every mode and ACL, and directories with special bits."""
    top.chmod(0o755)
    for kind in ("file", "directory"):
        for mode in MODES:
            make(top / f"{kind}-{mode:04o}", kind, mode)
        for name, acl in ACLS.items():
            make(top / f"{kind}-{name}", kind, 0o700)
            subprocess.run(["setfacl", "-m", acl, top / f"{kind}-{name}"], check=True)
    for name, mode in (
        ("sticky", 0o1777),
        ("plain", 0o777),
        ("setgid", 0o2777),
        ("default", 0o777),
    ):
        make(top / name, "directory", mode)
        for caller in CALLERS:
            for victim in (f"unlinked-by-{caller}", f"renamed-by-{caller}"):
                (top / name / victim).touch()
                os.chown(top / name / victim, MEMBER, GROUP)
    default = f"d:u::rwx,d:u:{NAMED}:rwx,d:g::rx,d:o::-,d:m::rwx"
    subprocess.run(["setfacl", "-m", default, top / "default"], check=True)
    for caller in CALLERS:
        make(top / f"changed-by-{caller}", "file", 0o6755)


def make(path: Path, kind: str, mode: int) -> None:
    if kind == "file":
        shutil.copyfile("/bin/true", path)
    else:
        path.mkdir()
        (path / "inside").write_text("x")
        (path / "inside").chmod(0o666)
    os.chown(path, OWNER, GROUP)
    path.chmod(mode)


def ask(top: Path) -> Answers:
    """Every caller tries everything."""
    answers: Answers = {}
    for name, caller in CALLERS.items():
        said = partial(said_by, name, top)
        answers |= as_other(caller.uid, caller.gid, said, caller.groups)
    return answers


def said_by(caller: str, top: Path) -> Answers:
    os.umask(0)
    return {f"{caller}: {what}": answer for what, answer in tried(top, caller)}


def tried(top: Path, caller: str) -> Iterator[tuple[str, str]]:
    for path in sorted(top.glob("file-*")):
        yield f"read {path.name}", answer(partial(open_and_close, path, os.O_RDONLY))
        yield f"write {path.name}", answer(partial(open_and_close, path, os.O_WRONLY))
        yield f"execute {path.name}", answer(partial(execute, path))
    for path in sorted(top.glob("directory-*")):
        yield f"list {path.name}", answer(partial(os.listdir, path))
        yield f"enter {path.name}", answer((path / "inside").read_text)
        yield f"make in {path.name}", answer(partial(make_and_remove, path / caller))
    for name in ("sticky", "plain", "setgid", "default"):
        folder = top / name
        renamed = folder / f"renamed-by-{caller}"
        yield f"unlink in {name}", answer((folder / f"unlinked-by-{caller}").unlink)
        yield f"rename in {name}", answer(partial(os.rename, renamed, f"{renamed}-new"))
        yield f"file in {name}", answer(partial(new_file, folder / f"file-of-{caller}"))
        yield f"folder in {name}", answer(partial(new_folder, folder / f"of-{caller}"))
    yield from changes(top / f"changed-by-{caller}")


def changes(path: Path) -> Iterator[tuple[str, str]]:
    """What only owners may do, with the mode that each leaves."""
    acl = ["setfacl", "-m", f"u:{NAMED}:r", str(path)]
    yield "utime", answer(lambda: os.utime(path, ns=(1, 1)))
    yield (
        "setfacl",
        answer(lambda: subprocess.run(acl, capture_output=True, check=False).returncode),
    )
    yield "setxattr", answer(lambda: os.setxattr(path, "user.note", b"1"))
    yield "append", answer(lambda: shown(path, lambda: path.open("ab").write(b"x")))
    yield "chmod", answer(lambda: shown(path, lambda: path.chmod(0o2775)))
    yield "chown", answer(lambda: shown(path, lambda: os.chown(path, OTHER, -1)))
    yield "chgrp", answer(lambda: shown(path, lambda: os.chown(path, -1, NO_GROUP)))


def answer(operation: Callable[[], object]) -> str:
    try:
        return str(operation())
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def open_and_close(path: Path, flags: int) -> None:
    os.close(os.open(path, flags))


def execute(path: Path) -> int:
    return os.waitpid(os.posix_spawn(path, [path.name], {}), 0)[1]


def make_and_remove(path: Path) -> None:
    path.touch()
    path.unlink()


def new_file(path: Path) -> str:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return shown(path)


def new_folder(path: Path) -> str:
    path.mkdir()
    return shown(path)


def shown(path: Path, operation: Callable[[], object] = lambda: None) -> str:
    operation()
    status = path.stat()
    acls = [name for name in sorted(os.listxattr(path)) if name.startswith("system.posix_acl")]
    values = {name: os.getxattr(path, name).hex() for name in acls}
    return f"{stat.S_IMODE(status.st_mode):04o} {status.st_uid}:{status.st_gid} {values}"


if __name__ == "__main__":
    build(Path(sys.argv[1]))
    print(json.dumps(ask(Path(sys.argv[1]))))
