"""Requests that need not wait for each other do not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imagefs.errors import Exists, NotFound
from imagefs.region.jobs import beside, together
from tests.faulty_proxy import FaultyProxy, Hang
from tests.object_server import ObjectServer
from tests.region.machines import Machine

PATIENCE = 20.0


def refuse(error: Exception) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def test_results_come_in_the_order_of_the_work() -> None:
    second = threading.Event()

    def first() -> int:
        assert second.wait(PATIENCE)
        return 1

    def then() -> int:
        second.set()
        return 2

    assert together([first, then]) == [1, 2]
    assert together([then]) == [2]
    assert together([]) == []


def test_what_the_first_raises_is_raised_when_all_have_ended() -> None:
    ended = []
    works = [refuse(Exists("first")), refuse(NotFound("second")), lambda: ended.append(3)]
    with pytest.raises(Exists, match="first"):
        together(works)
    assert ended == [3]


def test_what_goes_on_beside_a_block_has_ended_behind_it() -> None:
    begun = threading.Event()
    with beside(begun.set):
        assert begun.wait(PATIENCE)
    with pytest.raises(Exists, match="beside"), beside(refuse(Exists("beside"))):
        pass
    with pytest.raises(Exists, match="beside"), beside(refuse(Exists("beside"))):
        raise NotFound("in the block")
    with pytest.raises(NotFound, match="in the block"), beside(begun.set):
        raise NotFound("in the block")


def test_a_listing_asks_for_shares_and_images_at_once(
    tmp_path: Path, server: ObjectServer, proxy: FaultyProxy, prefix: str
) -> None:
    with Machine(tmp_path / "store", server.url(prefix, endpoint=proxy.endpoint)) as machine:
        machine.region.prepare()
        machine.copy("ada", "web")
        proxy.harm(Hang(), match=lambda request: request.key.startswith(f"{prefix}/shares"))
        proxy.forget()
        with ThreadPoolExecutor(1) as pool:
            listing = pool.submit(machine.region.listing, "ada")
            deadline = time.monotonic() + PATIENCE
            while proxy.requests("LIST", "/images/") < 2 and time.monotonic() < deadline:
                time.sleep(0.005)
            meanwhile = proxy.requests("LIST", "/images/")
            proxy.clear()
            assert [image.name for image in listing.result().images] == ["web"]
        assert meanwhile == 2
        assert [one.status for one in proxy.select("LIST", "/shares/")] == [None, 200]
