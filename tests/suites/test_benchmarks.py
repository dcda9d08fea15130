"""bonnie++ and dbench come to their end in an instance."""

import re

import pytest

from tests.suites.ground import FULL, HOURS, Ground

pytestmark = [pytest.mark.mount, pytest.mark.root]

LOADFILE = "/usr/share/dbench/client.txt"


def test_bonnie(ground: Ground) -> None:
    """Sequential and random work on a large file, then very many small ones."""
    size, memory, files = (1024, 512, "8:65536:64:4") if FULL else (32, 16, "1:4096:64:2")
    command = ["bonnie++", "-q", "-u", "root", "-d", ground.work]
    command += ["-s", f"{size}m", "-r", f"{memory}m", "-n", files, "-m", "imagefs"]
    # Without -f it writes all of the file a byte at a time, each with a call of its own.
    command += ["-f"]
    ended = ground.person.run(*map(str, command), timeout=HOURS)
    # One line of comma separated figures; 6 of them count what was done to small files.
    figures = ended.stdout.strip().splitlines()[-1].split(",")
    print("bonnie++:", ",".join(figures))
    assert len(figures) > 40
    assert "imagefs" in figures
    assert not list(ground.work.iterdir())


@pytest.mark.parametrize(
    ("clients", "options"), [(4, ()), (2, ("-S", "-F"))], ids=["plain", "synced"]
)
def test_dbench(ground: Ground, clients: int, options: tuple[str, ...]) -> None:
    """What a file server's clients once did, replayed by several at once."""
    seconds = "60" if FULL else "3"
    command = ["dbench", "-c", LOADFILE, "-D", str(ground.work), "-t", seconds]
    ended = ground.person.run(*command, *options, str(clients), timeout=HOURS)
    operations = {
        name: int(n) for name, n in re.findall(r"^ (\w+) +(\d+) ", ended.stdout, re.MULTILINE)
    }
    print(f"dbench: {clients} clients, {options}: {operations}")
    assert operations["NTCreateX"] > 0
    assert operations["WriteX"] > 0
    # What a client finds amiss begins with the line of the load file.
    assert not re.findall(r"^\[\d+\].*|ERROR.*", ended.stdout + ended.stderr, re.MULTILINE)
