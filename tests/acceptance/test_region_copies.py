"""A system and its next state travel to a region: how much, and killed at any point on the way.

The server counts bytes, and its packs tell whether anything was sent twice. Figures are printed.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.machines import begin, ended, objects_sent, packed_bytes, quiet
from tests.acceptance.manifest import assert_equal
from tests.acceptance.person import Person, wait_until
from tests.acceptance.test_programs import let_reach_registries
from tests.faulty_proxy import FaultyProxy
from tests.object_server import ObjectServer
from tests.seed import SEED

pytestmark = [pytest.mark.mount, pytest.mark.root]

KILLS = 10
EXISTS = 4
INSTALL = "apt-get -q update && apt-get -q install -y --no-install-recommends sqlite3"


@pytest.mark.network
@pytest.mark.parametrize("server", ["rclone"], indirect=True)
def test_the_next_state_of_a_system_sends_what_is_new(
    here: Person, there: Person, proxy: FaultyProxy, url: str, rootfs: Path
) -> None:
    here.imagefs("import", rootfs, "base")
    here.imagefs("region", "add", "eu", url)
    first = packed_bytes(here)
    digest = here.imagefs("copy", "base", "eu").stdout.strip()
    sent = proxy.sent("PUT", "/packs/")
    print(f"\nThe system: {first} bytes of packs in the store, {sent} sent: {sent / first:.3f}")
    assert sent <= 1.1 * first

    here.mount()
    clone = here.instances / "base/node"
    clone.mkdir()
    let_reach_registries(clone)
    here.run("chroot", clone, "sh", "-euc", INSTALL, timeout=900)
    before = packed_bytes(here)
    here.imagefs("commit", "base/node", "next")
    new = packed_bytes(here) - before
    assert here.imagefs_json("show", "next")["stored_bytes"] == pytest.approx(new, rel=0.05)
    planned = here.imagefs("copy", "next", "eu", "--dry-run").stdout
    proxy.forget()
    next_digest = here.imagefs("copy", "next", "eu").stdout.strip()
    sent = proxy.sent("PUT")
    print(f"Its next state: {new} new bytes in the store, {sent} sent: {sent / new:.3f}; {planned}")
    assert sent <= 1.1 * new

    there.imagefs("region", "add", "eu", url)
    for image, expected in (("base", digest), ("next", next_digest)):
        assert there.imagefs("copy", f"regions/eu/{image}", "local").stdout.strip() == expected
    there.mount()
    there.imagefs("clone", "base", "node")
    assert_equal(here.manifest(rootfs), there.manifest(there.instances / "base/node"))
    assert_equal(here.manifest(here.images / "next"), there.manifest(there.images / "next"))


@pytest.mark.parametrize("server", ["rclone"], indirect=True)
@pytest.mark.parametrize("mounted", [False, True], ids=["command", "daemon"])
def test_a_copy_is_killed_ten_times(
    here: Person, there: Person, proxy: FaultyProxy, server: ObjectServer, url: str, prefix: str,
    rootfs: Path, mounted: bool,
) -> None:  # fmt: skip
    """Whoever makes it: the command alone, or the daemon. What arrived is not sent again."""
    rng = random.Random(SEED)
    print(f"\nSeed {SEED}")
    here.imagefs("region", "add", "eu", url)
    digests: dict[str, str] = {}
    points: list[int] = []
    if mounted:
        here.mount()
    for image in images(here, rootfs):
        while len(points) < KILLS:
            before = proxy.requests()
            copy = begin(here, "copy", image, "eu")
            point = rng.choice((rng.randrange(12), rng.randrange(12, 20)))
            if not killed_at(here, copy, proxy, before + point):
                break
            points.append(point)
            quiet(proxy)
            if mounted:
                here.mount()
        # The last kill may have come when all was done but the answer.
        assert here.imagefs("copy", image, "eu", check=False).returncode in (0, EXISTS)
        digests[image] = here.imagefs_json("show", image)["digest"]
        if len(points) == KILLS:
            break
    print(f"Killed at requests {points}, during copies of {len(digests)} images")

    objects, size = objects_sent(server, prefix)
    arrived = [passed for passed in proxy.select("PUT", "/packs/") if passed.status == 200]
    print(
        f"{size} bytes in {len(arrived)} packs, {proxy.sent('PUT', '/packs/')} sent with broken ones"
    )
    assert len(objects) == len(set(objects))
    assert len(arrived) == len({passed.request.key for passed in arrived})
    assert sum(passed.sent for passed in arrived) == size
    there.imagefs("region", "add", "eu", url)
    for image, digest in digests.items():
        assert there.imagefs("copy", f"regions/eu/{image}", "local").stdout.strip() == digest


def images(here: Person, rootfs: Path) -> Iterator[str]:
    """Images in the store, as many as are needed: the system, then random bytes."""
    here.imagefs("import", rootfs, "base")
    yield "base"
    for number in itertools.count():
        folder = here.home / f"random-{number}"
        folder.mkdir()
        for name in range(5):
            (folder / str(name)).write_bytes(os.urandom(8_000_000))
        here.imagefs("import", folder, folder.name)
        yield folder.name


def killed_at(here: Person, copy: subprocess.Popen[str], proxy: FaultyProxy, request: int) -> bool:
    """Kills who makes the copy once the proxy has seen so many requests; whether it was in time."""
    wait_until(lambda: proxy.requests() >= request or copy.poll() is not None, "the copy to go on")
    if copy.poll() is None:
        if here.daemons():
            here.kill_daemon()
        else:
            copy.kill()
    code, _, told = ended(copy)
    assert code in (0, 1, EXISTS, -signal.SIGKILL), told
    return code not in (0, EXISTS)
