"""What the kernel does not tell with a request: groups and capabilities of a process.

Reading them blocks for nothing but the kernel's own memory, and the process waits for the
answer to its request meanwhile.
"""

from __future__ import annotations

from pathlib import Path

from imagefs.vfs import Credentials

_CAP_FSETID = 1 << 4


def credentials(pid: int) -> Credentials:
    """The credentials of a process; those of nobody in particular once it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return Credentials()
    fields = dict(line.partition(":")[::2] for line in text.splitlines())
    return Credentials(
        frozenset(map(int, fields["Groups"].split())),
        bool(int(fields["CapEff"], 16) & _CAP_FSETID),
    )
