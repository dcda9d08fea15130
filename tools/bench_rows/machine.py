"""The machine under the benchmark: its facts, its caches, its programs, its processes."""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

Command = Sequence[str | Path]
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def run(
    command: Command,
    environment: Mapping[str, str] | None = None,
    accepted: tuple[int, ...] = (0,),
) -> str:
    """Runs a program to its end and returns its output.

    Raises RuntimeError if it ends with an exit code that is not accepted.
    """
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in accepted:
        shown = " ".join(map(str, command))
        raise RuntimeError(f"{shown} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def is_installed(program: str) -> bool:
    return shutil.which(program) is not None


def drop_caches() -> bool:
    """Makes the next reads come from the disk; False where that takes more rights."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        return False
    return True


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, user and system."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / CLOCK_TICKS


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def facts(scratch: Path) -> dict[str, str]:
    """What a reader must know to judge the figures."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": f"{os.cpu_count()} x {processor_name()}",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "python": platform.python_version(),
        "scratch": run(["stat", "-f", "-c", "%T", scratch]).strip(),
        "cold rows": "caches dropped" if os.geteuid() == 0 else "caches not dropped (not root)",
    }


def processor_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
