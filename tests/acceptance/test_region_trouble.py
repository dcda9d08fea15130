"""A region whose service is gone, slow, failing, lying or hanging, and a mount beside it."""

from __future__ import annotations

import errno
import os
import random
import re
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.machines import begin, ended
from tests.acceptance.manifest import assert_equal
from tests.acceptance.person import Person, wait_until
from tests.faulty_proxy import Delay, FaultyProxy, Flip, Hang, Request, Status
from tests.seed import SEED

pytestmark = [pytest.mark.mount, pytest.mark.root]

FILES = 30
SIZE = 400_000
ANSWERS_NOT = r"does not answer|is being closed|cannot be listed"
DAMAGE = r"damage|Damage|checksum|corrupt|fetched again"


def contents(packs: Request) -> bool:
    return packs.method == "GET" and "/packs/" in packs.key


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Files of random bytes, each in windows of its own."""
    rng = random.Random(SEED)
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number:02}").write_bytes(rng.randbytes(SIZE))
    return folder


@pytest.fixture
def published(there: Person, url: str, source: Path) -> Person:
    """Another machine, which has published the image `web`."""
    there.imagefs("region", "add", "eu", url)
    there.imagefs("import", source, "web")
    there.imagefs("copy", "web", "eu")
    return there


@pytest.fixture
def mounted(here: Person, published: Person, url: str) -> Person:
    """A machine with things of its own, and that region."""
    here.imagefs("region", "add", "eu", url)
    own = here.home / "own"
    own.mkdir()
    (own / "file").write_bytes(os.urandom(SIZE))
    here.imagefs("import", own, "local")
    here.mount()
    (here.instances / "local/one").mkdir()
    assert os.listdir(here.cloud / "regions/eu") == ["web"]
    return here


def web(person: Person, number: int) -> Path:
    return person.cloud / f"regions/eu/web/{number:02}"


def assert_local_work_goes_on(person: Person) -> None:
    instance = person.instances / "local/one"
    (instance / "new").write_text("new")
    assert (instance / "new").read_text() == "new"
    (instance / "new").unlink()
    assert (instance / "file").read_bytes() == (person.home / "own/file").read_bytes()
    name = f"clone-{random.randrange(10**9)}"
    (person.instances / "local" / name).mkdir()
    person.imagefs("rm", f"local/{name}")
    assert {"eu", "local"} <= set(os.listdir(person.cloud / "regions"))
    assert "local" in os.listdir(person.images)
    person.run("df", person.cloud)


def region(person: Person) -> dict[str, object]:
    (known,) = person.imagefs_json("status")["regions"]
    assert isinstance(known, dict)
    return known


def assert_unreadable(path: Path) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        path.read_bytes()


def log_of(person: Person) -> str:
    return "".join(log.read_text() for log in person.logs())


@pytest.mark.parametrize("server", ["rclone"], indirect=True)
@pytest.mark.expected_log(ANSWERS_NOT)
def test_a_service_that_is_gone(mounted: Person, proxy: FaultyProxy, source: Path) -> None:
    assert web(mounted, 1).read_bytes() == (source / "01").read_bytes()
    proxy.refuse()
    assert_local_work_goes_on(mounted)
    assert_unreadable(web(mounted, 20))
    assert "does not answer" in log_of(mounted)
    # What was fetched is there, and so is what is known.
    assert web(mounted, 1).read_bytes() == (source / "01").read_bytes()
    wait_until(
        lambda: os.listdir(mounted.cloud / "regions/eu") == ["web"] and region(mounted)["failure"],
        "status to tell",
    )
    assert "does not answer" in str(region(mounted)["failure"])
    assert "does not answer" in mounted.imagefs("status").stdout
    assert "regions/eu/web" in mounted.imagefs("ls", "regions").stdout
    assert "does not answer" in mounted.imagefs("region", "ls").stdout
    for refused in (("copy", "local", "eu"), ("rm", "regions/eu/web"), ("region", "gc", "eu")):
        told = mounted.imagefs(*refused, check=False)
        assert (told.returncode, told.stderr.count("\n")) == (1, 1), told
        assert "does not answer" in told.stderr
    assert_local_work_goes_on(mounted)

    proxy.accept()
    assert web(mounted, 20).read_bytes() == (source / "20").read_bytes()
    mounted.imagefs("copy", "local", "eu")
    wait_until(
        lambda: sorted(os.listdir(mounted.cloud / "regions/eu")) == ["local", "web"],
        "both to be listed",
        90.0,
    )
    wait_until(lambda: region(mounted)["failure"] is None, "status to be well again", 90.0)


def test_every_third_request_fails(
    here: Person, there: Person, proxy: FaultyProxy, url: str, source: Path
) -> None:
    proxy.harm(Status(503), every=3)
    for person in (here, there):
        person.imagefs("region", "add", "eu", url)
        person.mount("--region", "eu")
    digest = here.imagefs("import", source, "web").stdout.strip()
    (there.instances / "web/one").mkdir()
    assert_equal(here.manifest(source), there.manifest(there.instances / "web/one"))
    (there.instances / "web/one/more").write_text("more")
    (there.instances / "web/one").rename(there.images / "web2")
    assert here.imagefs("copy", "web", "local").stdout.strip() == digest
    wait_until(lambda: "web2" in os.listdir(here.images), "the other machine to see the image")
    assert here.digest("web2") == there.digest("web2")
    here.imagefs("rm", "web2")
    assert here.imagefs("region", "gc", "eu", "--retain", "0").returncode == 0
    assert len(proxy.select()) > 20


def test_a_slow_service_and_what_is_told_meanwhile(
    mounted: Person, proxy: FaultyProxy, source: Path
) -> None:
    proxy.harm(Delay(1.0), match=lambda request: "/packs/" in request.key)
    for number in range(3):
        extra = mounted.instances / f"local/one/extra-{number}"
        extra.write_bytes(os.urandom(9_000_000))
    mounted.imagefs("commit", "local/one", "big")
    copy = begin(mounted, "copy", "big", "eu")
    told: set[str] = set()

    def copying() -> bool:
        rows = mounted.imagefs_json("ls", "regions")
        states = [row["state"] for row in rows if row["name"] == "big"]
        told.update(states)
        return any("%" in state for state in states)

    wait_until(lambda: copying() or copy.poll() is not None, "the copy to be told")
    assert_local_work_goes_on(mounted)
    with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
        (mounted.images / "big").rmdir()
    code, _, said = ended(copy)
    assert code == 0, said
    assert any(state.startswith("copying") for state in told), told
    assert web(mounted, 3).read_bytes() == (source / "03").read_bytes()


@pytest.mark.expected_log(DAMAGE)
def test_flipped_bits_never_reach_a_reader(
    mounted: Person, proxy: FaultyProxy, source: Path
) -> None:
    proxy.harm(Flip(), every=2, match=contents)
    for number in range(10):
        assert web(mounted, number).read_bytes() == (source / f"{number:02}").read_bytes()
    proxy.clear()
    proxy.harm(Flip(), match=contents)
    assert_local_work_goes_on(mounted)
    failed = 0
    for number in range(10, FILES):
        read = mounted.run("cmp", web(mounted, number), source / f"{number:02}", check=False)
        failed += read.returncode == 2 and os.strerror(errno.EIO) in read.stderr
        assert read.returncode != 1, "wrong bytes were read"
    assert failed > FILES / 3
    assert re.search(DAMAGE, log_of(mounted))
    told = mounted.imagefs("copy", "regions/eu/web", "local", check=False)
    assert told.returncode == 5, told
    proxy.clear()
    for number in range(FILES):
        assert web(mounted, number).read_bytes() == (source / f"{number:02}").read_bytes()
    mounted.imagefs("copy", "regions/eu/web", "local")
    mounted.imagefs("clone", "web", "one")
    assert_equal(mounted.manifest(source), mounted.manifest(mounted.instances / "web/one"))


@pytest.mark.parametrize("server", ["moto"], indirect=True)
@pytest.mark.expected_log(ANSWERS_NOT)
def test_a_service_that_hangs(
    mounted: Person, proxy: FaultyProxy, source: Path, tmp_path: Path
) -> None:
    """However many wait for it, what needs it not goes on: local things, and another region."""
    (tmp_path / "us").mkdir()
    mounted.imagefs("region", "add", "us", f"file://{tmp_path}/us")
    mounted.imagefs("copy", "local", "us")
    proxy.harm(Hang())
    readers = [
        subprocess.Popen(
            ["cat", web(mounted, number)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for number in range(FILES)
    ]
    lister = begin(mounted, "ls", "regions")
    copier = begin(mounted, "copy", "local", "eu")
    try:
        wait_until(lambda: proxy.connections >= 8, "all to wait")
        assert_local_work_goes_on(mounted)
        assert (mounted.cloud / "regions/us/local/file").stat().st_size == SIZE
        (mounted.instances / "local/one/more").write_bytes(os.urandom(SIZE))
        digest = mounted.imagefs("commit", "local/one", "next").stdout
        assert mounted.imagefs("copy", "next", "us").stdout == digest
        assert "us" in mounted.imagefs("status").stdout
        assert all(reader.poll() is None for reader in readers), "somebody hangs no more"
        for reader in readers:
            _, said = reader.communicate(timeout=200)
            assert os.strerror(errno.EIO).encode() in said
    finally:
        proxy.clear()
        for reader in readers:
            reader.kill()
            reader.communicate()
    code, _, complaint = ended(copier)
    assert (code, complaint.count("\n")) in ((0, 0), (1, 1)), complaint
    assert ended(lister)[0] == 0
    for number in range(FILES):
        assert web(mounted, number).read_bytes() == (source / f"{number:02}").read_bytes()
