"""Machines that share regions: each a home with a store of its own, and the command."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from imagefs.format.region import decode_pack_index
from imagefs.region.layout import PACKS, parse_pack
from tests import object_server
from tests.acceptance.fixtures import ROOT, at_home, expected_log, stays_whole
from tests.acceptance.mounts import new_folder
from tests.acceptance.person import Person, wait_until
from tests.faulty_proxy import FaultyProxy
from tests.object_server import BUCKET, ObjectServer

Machines = Callable[[], Person]


@pytest.fixture
def machines(request: pytest.FixtureRequest, proxy: FaultyProxy) -> Iterator[Machines]:
    """Makes machines of root's, which have the credentials of the object servers.

    They end before the proxy does, whose harm is undone first.
    """
    with ExitStack() as opened:

        def make() -> Person:
            person = Person("root", new_folder(), ROOT, environment=object_server.environment())
            lent = at_home(person, expected_log(request), whole=stays_whole(request))
            return opened.enter_context(contextmanager(lambda: lent)())

        yield make
        proxy.clear()


@pytest.fixture
def here(machines: Machines) -> Person:
    return machines()


@pytest.fixture
def there(machines: Machines) -> Person:
    return machines()


@pytest.fixture
def url(server: ObjectServer, proxy: FaultyProxy, prefix: str) -> str:
    """The URL of a region that is not there yet, behind the proxy."""
    return server.url(prefix, endpoint=proxy.endpoint)


def begin(person: Person, *arguments: str | Path) -> subprocess.Popen[str]:
    """Starts the command and does not wait; killing it kills all of it."""
    return subprocess.Popen(
        [*person.prefix, str(person.checkout / "tools/imagefs"), *map(str, arguments)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=person.home, env=dict(person.environment),
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The exit code of a command and what it said, once it has come to its end."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def packed_bytes(person: Person) -> int:
    """What the packs of the person's store take."""
    return sum(pack.stat().st_size for pack in (person.store / "packs").glob("*.pack"))


def quiet(proxy: FaultyProxy) -> None:
    """Waits until nothing is under way at the proxy: what a killed client sent has arrived or not."""
    wait_until(lambda: not proxy.connections, "requests of the dead to end")


def objects_sent(server: ObjectServer, prefix: str) -> tuple[list[bytes], int]:
    """The ids of the objects of all packs in a region, as often as they are there; and the bytes of
    these packs. Read with another client."""
    client = server.client()
    found: list[bytes] = []
    size = 0
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, Prefix=f"{prefix}/{PACKS}"
    )
    for listed in (listed for page in pages for listed in page.get("Contents", ())):
        pack = parse_pack(listed["Key"].removeprefix(f"{prefix}/"))
        assert pack is not None, listed["Key"]
        data = client.get_object(Bucket=BUCKET, Key=listed["Key"])["Body"].read()
        begin = len(data) - pack.index_length
        found += [
            oid for record in decode_pack_index(data[begin:], begin) for oid in record.objects
        ]
        size += len(data)
    return found, size


def settled(proxy: FaultyProxy) -> None:
    """Waits until machines ask for no content any more: they also read ahead of what was asked."""
    seen = -1
    while seen != (seen := proxy.requests("GET", "/packs/")):
        time.sleep(1.5)
