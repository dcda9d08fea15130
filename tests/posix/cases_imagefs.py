"""Where imagefs has reasons of its own to differ, each with its row in docs/differences.md."""

import os
import shutil
import stat
import subprocess

from tests.acceptance.child import as_other
from tests.posix.case import By, Difference, case
from tests.posix.observe import Seen, opened, put, tried
from tests.posix.people import STRANGER, STRANGERS

NO_TRUST = "Devices and set-user-id programs"


@case(
    By.CAST,
    differs={
        "device": Difference(NO_TRUST, "EACCES"),
        "program": Difference(NO_TRUST, b"%d\n" % STRANGER),
        "set-group-id": Difference(NO_TRUST, b"%d\n" % STRANGERS),
    },
)
def devices_and_programs_where_others_get_in() -> Seen:
    os.chmod(".", 0o755)
    os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    shutil.copy("/usr/bin/id", "id")
    os.chmod("id", 0o6755)

    def who(option: str) -> bytes:
        return subprocess.run(["./id", option], capture_output=True, check=True).stdout

    return {
        "device": opened("null", os.O_RDWR),
        "program": as_other(STRANGER, STRANGERS, lambda: who("-u")),
        "set-group-id": as_other(STRANGER, STRANGERS, lambda: who("-g")),
        "kept": oct(os.stat("id").st_mode),
    }


@case(By.ROOT)
def devices_and_programs_where_root_is_alone() -> Seen:
    shutil.copy("/usr/bin/id", "id")
    os.chown("id", STRANGER, STRANGERS)
    os.chmod("id", 0o6755)
    told = subprocess.run(["./id", "-u"], capture_output=True, check=True)
    group = subprocess.run(["./id", "-g"], capture_output=True, check=True)
    return {"user": told.stdout, "group": group.stdout}


@case(differs={"none": Difference("SELinux labels", "EOPNOTSUPP")})
def labels_of_selinux() -> Seen:
    return {"none": tried(os.getxattr, "file", "security.selinux")}


@case(
    differs={
        "set": Difference("Attributes below `user.imagefs.`", "EPERM"),
        "removed": Difference("Attributes below `user.imagefs.`", "EPERM"),
    }
)
def attributes_that_imagefs_keeps_for_itself() -> Seen:
    return {
        "set": tried(os.setxattr, "file", "user.imagefs.x", b"1"),
        "removed": tried(os.removexattr, "file", "user.imagefs.x"),
        "listed": os.listxattr("file") in ([], ["user.imagefs.x"]),
    }


@case(
    differs={
        "directory": Difference("Space that files take", 4096),
        "unit": Difference("Space that files take", 131072),
    }
)
def what_stat_says_of_space() -> Seen:
    """A directory of many names has grown on ext4; here its size says nothing."""
    os.mkdir("names")
    for number in range(300):
        put(f"names/{number}-{'n' * 100}")
    return {
        "directory": os.stat("names").st_size,
        "unit": os.stat("file").st_blksize,
    }
