"""A copy that ended too early, however it did, is taken up again; nothing is sent twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from imagefs.errors import Cancelled, IOFailure
from imagefs.format.region import PackName, decode_pack_index
from imagefs.model import CHUNK_SIZE, ObjectId
from imagefs.region.bucket import Bucket
from imagefs.region.layout import pack_key
from imagefs.region.url import RegionUrl
from imagefs.tree.objects import tree_objects
from tests.region.machine import REGION, Machine, numbered
from tests.seed import SEED

PACK_BYTES = 1024 * 1024
SENDER = f"""
import sys
from pathlib import Path
from imagefs.region import packing
packing.PACK_BYTES = {PACK_BYTES}
from imagefs.region.bucket import Bucket
from imagefs.region.url import RegionUrl
from tests.region.machine import Machine
path, url, manifest = Path(sys.argv[1]), sys.argv[2], bytes.fromhex(sys.argv[3])
bucket = Bucket(RegionUrl.parse(url))
with Machine(path, bucket) as machine:
    def tell(done, total):
        print(done, total, flush=True)
    machine.sender.send(manifest, machine.packs(), tell=tell)
"""


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many packs as a larger tree has."""
    monkeypatch.setattr("imagefs.region.packing.PACK_BYTES", PACK_BYTES)


@pytest.fixture
def here(tmp_path: Path, bucket: Bucket) -> Iterator[Machine]:
    """The machine that sends."""
    with Machine(tmp_path / "here", bucket) as machine:
        yield machine


def held(machine: Machine, packs: Iterable[PackName]) -> Counter[ObjectId]:
    """How often these packs hold each object, as they say themselves."""
    found: Counter[ObjectId] = Counter()
    sizes = machine.packs()
    for pack in packs:
        begin = sizes[pack] - pack.index_length
        index = machine.bucket.get_range(pack_key(pack), begin, pack.index_length)
        for record in decode_pack_index(index, begin):
            found.update(record.objects)
    return found


def require_whole(
    machine: Machine, manifest: ObjectId, packs: Iterable[PackName] | None = None
) -> None:
    """Every object of the tree is in the packs (by default: in all), and in one of them only."""
    objects = Counter([oid for oid, _ in tree_objects(machine.store.get, manifest)])
    assert held(machine, machine.packs() if packs is None else packs) == objects


def test_after_being_cancelled(here: Machine) -> None:
    rng = random.Random(SEED)
    manifest = here.keep(numbered(40, CHUNK_SIZE))
    for _ in range(4):
        left = rng.randrange(16)

        def enough() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        try:
            here.send(manifest, cancelled=enough)
        except Cancelled:
            continue
    here.send(manifest)
    require_whole(here, manifest)


def test_what_arrived_before_it_was_cancelled_is_known_at_once(
    here: Machine, bucket: Bucket
) -> None:
    manifest = here.keep(numbered(40, CHUNK_SIZE))
    told = 0

    def tell(done: int, total: int) -> None:
        nonlocal told
        told = done

    with pytest.raises(Cancelled):
        here.sender.send(manifest, {}, tell=tell, cancelled=lambda: told > 0)
    arrived = sum(held(here, here.packs()).values())
    assert arrived > 0
    assert here.upstream.index.objects() == arrived
    plan = here.sender.plan(manifest, here.packs())
    assert plan.objects == 42 - arrived  # 40 files, a page, the manifest


def test_after_a_sign_of_life_that_failed(here: Machine) -> None:
    manifest = here.keep(numbered(40, CHUNK_SIZE))
    left = 4

    def lease() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise IOFailure("The lease is lost")

    with pytest.raises(IOFailure, match="lease"):
        here.sender.send(manifest, here.packs(), alive=lease)
    here.send(manifest)
    require_whole(here, manifest)


def test_after_another_machine_began(here: Machine, tmp_path: Path, bucket: Bucket) -> None:
    root = numbered(40, CHUNK_SIZE)
    manifest = here.keep(root)
    told = 0

    def tell(done: int, total: int) -> None:
        nonlocal told
        told = done

    with pytest.raises(Cancelled):
        here.sender.send(manifest, {}, tell=tell, cancelled=lambda: told > 0)
    with Machine(tmp_path / "other", bucket) as other:
        other.keep(root)
        descriptor = other.send(manifest)
        require_whole(other, manifest)
        assert set(descriptor.packs) == set(other.packs())


@pytest.mark.parametrize("lines", [1, 2, 4])
def test_after_being_killed(here: Machine, region_url: str, lines: int) -> None:
    """`lines` of progress are waited for: nothing, one pack, some packs have arrived by then."""
    manifest = here.keep(numbered(40, CHUNK_SIZE))
    command = [sys.executable, "-c", SENDER, str(here.path), region_url, manifest.hex()]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        for _ in range(lines):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    needed = here.sender.send(manifest, here.packs())
    # Not all packs: what the server had been given whole may have arrived in the meantime.
    require_whole(here, manifest, needed)


def test_after_the_region_was_gone_for_a_while(tmp_path: Path) -> None:
    place = tmp_path / "region"
    place.mkdir()
    bucket = Bucket(RegionUrl.parse(f"file://{place}"), name=REGION)
    with Machine(tmp_path / "here", bucket) as here:
        manifest = here.keep(numbered(40, CHUNK_SIZE))

        def tell(done: int, total: int) -> None:
            if done and place.exists():
                place.rename(tmp_path / "elsewhere")

        with pytest.raises(Exception, match=REGION) as caught:
            here.sender.send(manifest, here.packs(), tell=tell)
        assert caught.type.__module__ == "imagefs.errors"
        (tmp_path / "elsewhere").rename(place)
        here.send(manifest)
        require_whole(here, manifest)
