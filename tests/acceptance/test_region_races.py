"""Machines that work on one region at the same time: never a broken image, never two winners."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.acceptance.machines import Machines, begin, ended
from tests.acceptance.person import Person, wait_until
from tests.faulty_proxy import Delay, FaultyProxy

pytestmark = [pytest.mark.root]

REFUSED = 4
INTERRUPTED = 130
ROUNDS = 2
CLEANINGS = 20


def fill(folder: Path, files: int, size: int = 1_000_000) -> Path:
    folder.mkdir()
    for number in range(files):
        (folder / str(number)).write_bytes(os.urandom(size))
    return folder


def know(url: str, *people: Person) -> None:
    for person in people:
        person.imagefs("region", "add", "eu", url)


@pytest.mark.mount
def test_two_machines_copy_one_name(
    here: Person, there: Person, machines: Machines, url: str
) -> None:
    """With a daemon here and without one there."""
    know(url, here, there)
    here.mount()
    for number in range(ROUNDS):
        name = f"web-{number}"
        digests = [
            person.imagefs("import", fill(person.home / name, 3), name).stdout.strip()
            for person in (here, there)
        ]
        copies = [begin(person, "copy", name, "eu") for person in (here, there)]
        results = [ended(copy) for copy in copies]
        assert sorted(code for code, _, _ in results) == [0, REFUSED], results
        winner = 0 if results[0][0] == 0 else 1
        told = results[1 - winner][2]
        assert told.count("\n") == 1, told
        assert name in told
        print(
            f"\nRound {number}: {'there' if winner else 'here'} wins, the other hears: {told}",
            end="",
        )
        for person in (here, there):
            shown = person.imagefs_json("show", f"regions/eu/{name}")
            assert shown["digest"] == digests[winner]
    third = machines()
    know(url, third)
    for number in range(ROUNDS):
        third.imagefs("copy", f"regions/eu/web-{number}", "local")


@pytest.mark.parametrize("server", ["moto"], indirect=True)
def test_a_region_is_cleaned_again_and_again_while_others_copy(
    here: Person, there: Person, machines: Machines, proxy: FaultyProxy, url: str
) -> None:
    """One machine copies, deletes and copies again what it deleted; the other cleans all the time."""
    cleaner = machines()
    know(url, here, there, cleaner)
    proxy.harm(Delay(0.02))
    digests = {}
    for number in range(2):
        folder = fill(here.home / f"web-{number}", 12)
        digests[folder.name] = here.imagefs("import", folder, folder.name).stdout.strip()
    cleanings = copied = 0
    copy = begin(here, "copy", "web-0", "eu")
    while cleanings < CLEANINGS:
        told = cleaner.imagefs("region", "gc", "eu", "--retain", "0", check=False)
        assert told.returncode in (0, REFUSED), told
        cleanings += 1
        if copy.poll() is not None:
            code, _, said = ended(copy)
            assert code == 0, said
            name = f"web-{copied % 2}"
            copied += 1
            assert (
                there.imagefs("copy", f"regions/eu/{name}", "local").stdout.strip() == digests[name]
            )
            there.imagefs("rm", name)
            here.imagefs("rm", f"regions/eu/{name}")
            copy = begin(here, "copy", f"web-{copied % 2}", "eu")
    code, _, said = ended(copy)
    assert code == 0, said
    name = f"web-{copied % 2}"
    assert there.imagefs("copy", f"regions/eu/{name}", "local").stdout.strip() == digests[name]
    print(f"\n{cleanings} cleanings during {copied + 1} copies")


@pytest.mark.mount
@pytest.mark.parametrize("server", ["rclone"], indirect=True)
@pytest.mark.parametrize("mounted", [False, True], ids=["command", "daemon"])
def test_a_copy_ends_with_control_c_and_goes_on_later(
    here: Person, proxy: FaultyProxy, url: str, mounted: bool
) -> None:
    know(url, here)
    here.imagefs("import", fill(here.home / "web", 40), "web")
    if mounted:
        here.mount()
    proxy.harm(
        Delay(0.5), match=lambda request: request.method == "PUT" and "/packs/" in request.key
    )
    copy = begin(here, "copy", "web", "eu")
    wait_until(lambda: proxy.requests("PUT", "/packs/") > 0, "a pack to arrive")
    copy.send_signal(signal.SIGINT)
    code, out, said = ended(copy)
    assert (code, out) == (INTERRUPTED, ""), said
    assert "Traceback" not in said
    assert here.imagefs_json("ls", "regions") == []
    arrived = proxy.sent("PUT", "/packs/")
    here.imagefs("copy", "web", "eu")
    assert proxy.sent("PUT", "/packs/") < 41_000_000
    assert 0 < arrived < 41_000_000


@pytest.mark.mount
@pytest.mark.parametrize("server", ["rclone"], indirect=True)
def test_the_mount_ends_while_a_copy_runs(here: Person, proxy: FaultyProxy, url: str) -> None:
    know(url, here)
    here.imagefs("import", fill(here.home / "web", 40), "web")
    here.mount()
    proxy.harm(
        Delay(0.5), match=lambda request: request.method == "PUT" and "/packs/" in request.key
    )
    copy = begin(here, "copy", "web", "eu")
    wait_until(lambda: proxy.requests("PUT", "/packs/") > 0, "a pack to arrive")
    here.unmount()
    code, _, said = ended(copy)
    assert (code, said.count("\n")) == (1, 1), said
    assert not here.daemons()
    here.imagefs("copy", "web", "eu")
    assert proxy.sent("PUT", "/packs/") < 41_000_000
