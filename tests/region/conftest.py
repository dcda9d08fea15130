"""Buckets on what the fixtures of all tests start."""

from collections.abc import Callable, Iterator

import pytest

from imagefs.region.bucket import Bucket, Patience
from imagefs.region.url import RegionUrl

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
