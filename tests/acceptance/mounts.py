"""FUSE mounts of test runs: finding them, ending them, clearing away what a dead run left."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

PREFIX = "imagefs-test-"
OURS = re.compile(re.escape(PREFIX) + r"(?P<pid>\d+)-")
PYTEST_LOCK = ".lock"


def fuse_mounts() -> list[Path]:
    """Where FUSE file systems are mounted, innermost last."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.startswith("fuse"):
            raw = fields.split()[4]
            found.append(Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), raw)))
    return found


def fuse_mounts_below(folder: Path) -> list[Path]:
    return [mount for mount in fuse_mounts() if mount.is_relative_to(folder)]


def detach(mount: Path) -> None:
    """Takes a mount away whatever its state; the daemon behind it sees its end and stops."""
    command = ["umount", "--lazy"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
    subprocess.run([*command, str(mount)], check=False, stderr=subprocess.DEVNULL)


def detach_below(folder: Path) -> list[Path]:
    """Takes away every mount below the folder and returns them."""
    mounts = fuse_mounts_below(folder)
    for mount in reversed(mounts):
        detach(mount)
    return mounts


def new_folder() -> Path:
    """A folder for one test, named after this process, that other users may be let into."""
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    folder.chmod(0o755)
    return folder


def remove_folder(folder: Path) -> None:
    detach_below(folder)
    shutil.rmtree(folder, ignore_errors=True)


def sweep() -> list[Path]:
    """Ends the mounts of test runs that are dead, and of no others; returns what it ended."""
    temporary = Path(tempfile.gettempdir())
    swept = [mount for mount in fuse_mounts_below(temporary) if is_abandoned(mount)]
    for mount in reversed(swept):
        detach(mount)
    for folder in temporary.glob(f"{PREFIX}*"):
        if is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)
    return swept


def is_abandoned(path: Path) -> bool:
    """Whether the path lies in the folder of a test run that is over."""
    for folder in (path, *path.parents):
        if match := OURS.match(folder.name):
            return not is_alive(int(match["pid"]))
        if folder.parent.name.startswith("pytest-of-"):
            return not is_locked_by_pytest(folder)
    return False


def is_locked_by_pytest(folder: Path) -> bool:
    """pytest leaves its process number in the folder of a run for as long as that goes on."""
    try:
        return is_alive(int((folder / PYTEST_LOCK).read_text()))
    except (OSError, ValueError):
        return False


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
