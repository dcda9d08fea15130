"""A C program built in an instance: the same objects as on the host, and make agrees on what is new."""

import fcntl
import re
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.fixtures import cache_folder
from tests.acceptance.person import Person
from tests.programs.ending import unmounted_in_order

pytestmark = [pytest.mark.mount, pytest.mark.root]

SOURCE = "lua5.4"
BUILD = """
    cd "$1/source/src"
    flags="-O0 -g -ffile-prefix-map=$1=."
    compiled() { make -j2 linux MYCFLAGS="$flags" | grep -o '^gcc.* [^ ]*\\.c$' | grep -o '[^ ]*$' | LC_ALL=C sort; }
    compiled
    find . -name '*.[oa]' -o -name lua -o -name luac | LC_ALL=C sort | xargs sha256sum
    ./luac -o all.out - <<<'local t = {} for i = 1, 99 do t[i] = i * i end print(#t, t[99])'
    ./lua all.out; sha256sum all.out
    echo up to date; compiled || echo nothing was compiled
    touch lgc.c; echo lgc; compiled
    touch lopcodes.h; echo lopcodes; compiled
    rm lvm.o; echo lvm; compiled || true
    sha256sum lua luac
    make -s -C .. install INSTALL_TOP="$1/installed"
    cd "$1/installed"; find . -printf '%p %y %m\\n' | LC_ALL=C sort
    make -s -C "$1/source" clean; cd "$1/source"; find . -type f | LC_ALL=C sort | sha256sum
"""


@pytest.fixture(scope="session")
def source(rootfs: Path) -> Path:
    """The source of a Debian package as its authors made it, fetched once and kept."""
    folder = cache_folder() / f"source-{SOURCE}"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "source").exists():
            (folder / "lists/partial").mkdir(parents=True, exist_ok=True)
            # The machine's own list need not have source packages.
            sources = (rootfs / "etc/apt/sources.list").read_text()
            (folder / "here.list").write_text(re.sub("(?m)^deb ", "deb-src ", sources))
            places = (
                f"Dir::Etc::SourceList={folder}/here.list",
                "Dir::Etc::SourceParts=-",
                f"Dir::State::Lists={folder}/lists",
                "APT::Sandbox::User=root",
            )
            apt = ["apt-get", "-q", *(f"-o{place}" for place in places)]
            run([*apt, "update"], folder)
            run([*apt, "source", "--download-only", SOURCE], folder)
            (archive,) = folder.glob("*.orig.tar.gz")
            partial = folder / "partial"
            partial.mkdir(exist_ok=True)
            run(["tar", "-xf", archive.name, "-C", partial.name, "--strip-components=1"], folder)
            partial.rename(folder / "source")
    return folder / "source"


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.network
def test_a_build_makes_the_same_and_is_then_up_to_date(
    root: Person, source: Path, tmp_path: Path
) -> None:
    root.mount()
    (root.images / "sources").mkdir()
    root.run("cp", "-a", source, root.images / "sources/source")
    inside, outside = root.instances / "sources/build", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    root.run("cp", "-a", source, outside / "source")
    said = {}
    for place in (outside, inside):
        command = ("bash", "-euo", "pipefail", "-c", BUILD, "-", place)
        said[place] = root.run(*command).stdout.splitlines()
    assert "nothing was compiled" in said[outside]
    assert said[inside] == said[outside]
    print(f"{sum(line.endswith('.o') for line in said[outside])} objects are the same")
    unmounted_in_order(root)
