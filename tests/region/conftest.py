"""Buckets on what the fixtures of all tests start."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagefs.region.bucket import Bucket, Patience
from imagefs.region.url import RegionUrl
from tests.region.machines import Machine

Open = Callable[..., Bucket]


@pytest.fixture
def open_bucket() -> Iterator[Open]:
    """Opens buckets; they are closed at the end."""
    buckets = []

    def open_bucket(url: str, patience: Patience | None = None) -> Bucket:
        bucket = Bucket(RegionUrl.parse(url), name="eu", patience=patience)
        buckets.append(bucket)
        return bucket

    yield open_bucket
    for bucket in buckets:
        bucket.close()


@pytest.fixture
def bucket(region_url: str, open_bucket: Open) -> Bucket:
    return open_bucket(region_url)


@pytest.fixture
def machine(tmp_path: Path, region_url: str) -> Iterator[Machine]:
    """A machine that made the place a region."""
    with Machine(tmp_path / "first", region_url) as machine:
        machine.region.prepare()
        yield machine


@pytest.fixture
def other(tmp_path: Path, region_url: str, machine: Machine) -> Iterator[Machine]:
    """Another machine that knows the region."""
    with Machine(tmp_path / "second", region_url) as other:
        yield other
