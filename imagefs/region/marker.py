"""The marker: what says that a place on a server is a region, and of which version."""

from __future__ import annotations

import time
from typing import Final

from imagefs.errors import Exists, InvalidArgument, NotFound, PlaceGone, StoreError
from imagefs.format.region import MAX_MARKER, check_marker, encode_marker
from imagefs.region.bucket import Bucket
from imagefs.region.layout import MARKER

_PAUSES: Final = (0.05, 0.2, 0.5)
"""Seconds before half a marker is looked at again."""


def prepare(bucket: Bucket, region: str) -> None:
    """Makes an empty place a region; one that is a region already stays as it is.

    Raises `InvalidArgument` when something else lies there, `StoreError` for another version.
    """
    try:
        check(bucket, region)
    except NotFound:
        pass
    else:
        return
    bucket.prepare()
    strangers = bucket.list()
    if strangers and strangers[0].key != MARKER:
        raise InvalidArgument(
            f"The place of region {region} is not empty and no region (it holds"
            f" {strangers[0].key[:200]!r}): choose an empty prefix"
        )
    try:
        bucket.create(MARKER, encode_marker())
    except Exists:  # another machine is making it a region
        check(bucket, region)


def check(bucket: Bucket, region: str) -> None:
    """Raises `NotFound` unless there is a region, `StoreError` for one of another version."""
    expected = encode_marker()
    data = b""
    for pause in (*_PAUSES, None):
        try:
            data = bucket.get(MARKER, limit=MAX_MARKER)
        except PlaceGone:
            raise
        except NotFound as error:
            raise PlaceGone(
                f"There is no region at the place of region {region}: {error}"
            ) from error
        # Some services show an object before all of it is there.
        if pause is None or data == expected or not expected.startswith(data):
            break
        time.sleep(pause)
    try:
        check_marker(data)
    except StoreError as error:
        raise StoreError(f"Region {region} cannot be used: {error}") from error
