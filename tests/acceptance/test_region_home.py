"""Two machines whose images/ show one region: what one publishes, the other works with at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.acceptance.machines import Machines, settled
from tests.acceptance.manifest import assert_equal
from tests.acceptance.person import Person, wait_until
from tests.faulty_proxy import FaultyProxy

pytestmark = [pytest.mark.mount, pytest.mark.root]

PROGRAM = "cat /etc/debian_version; perl -e 'print 6 * 7, qq(\\n)'; dpkg --print-architecture"


def at_home_in(url: str, *people: Person) -> None:
    for person in people:
        person.imagefs("region", "add", "eu", url)
        person.mount("--region", "eu")


@pytest.mark.parametrize("server", ["moto"], indirect=True)
def test_a_system_published_here_runs_there_at_once(
    here: Person, there: Person, machines: Machines, proxy: FaultyProxy, url: str, rootfs: Path
) -> None:
    at_home_in(url, here, there)
    digest = here.imagefs("import", rootfs, "base").stdout.strip()
    image = proxy.sent("PUT", "/packs/")
    expected = here.run("chroot", rootfs, "bash", "-euc", PROGRAM).stdout

    proxy.forget()
    first = there.instances / "base/one"
    first.mkdir()
    cloned = proxy.received()
    assert there.run("chroot", first, "bash", "-euc", PROGRAM).stdout == expected
    settled(proxy)
    fetched = proxy.received("GET", "/packs/")
    print(
        f"\nImage {image} bytes; to clone it {cloned} were fetched, to run programs in the clone"
        f" {fetched}: {fetched / image:.3f}"
    )
    assert 0 < fetched < image / 4
    (pack,) = (there.store / "packs").glob("*.pack")
    assert pack.stat().st_size < 1000, "more than the manifest is kept"

    proxy.forget()
    second = there.instances / "base/two"
    second.mkdir()
    assert there.run("chroot", second, "bash", "-euc", PROGRAM).stdout == expected
    assert proxy.requests("GET", "/packs/") == 0

    # What the program leaves behind is published from there, and seen and used here.
    there.shell(f"chroot {second} bash -euc 'dpkg-query -W >/srv/packages; rm -r /usr/share/doc'")
    second.rename(there.images / "next")
    assert there.digest("base") == here.digest("base") == digest
    wait_until(lambda: "next" in os.listdir(here.images), "the other machine to see the image")
    assert here.digest("next") == there.digest("next")
    (here.instances / "next/one").mkdir()
    assert (here.instances / "next/one/srv/packages").read_text() == (
        there.images / "next/srv/packages"
    ).read_text()
    assert_equal(here.manifest(here.images / "next"), there.manifest(there.images / "next"))
    third = machines()
    third.imagefs("region", "add", "eu", url)
    assert third.imagefs("copy", "regions/eu/next", "local").stdout.strip() == here.digest("next")
