"""Regions on two real servers and in a directory; each server runs once for all tests."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagefs.region.bucket import Bucket, Patience
from imagefs.region.url import RegionUrl
from tests import object_server
from tests.object_server import MotoServer, ObjectServer, RcloneServer

PREFIXES = itertools.count(1)

Open = Callable[..., Bucket]


def running(server: ObjectServer) -> Iterator[ObjectServer]:
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    yield from running(RcloneServer(tmp_path_factory.mktemp("rclone")))


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    yield from running(MotoServer(tmp_path_factory.mktemp("moto")))


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers' credentials are in the environment, and no others are anywhere."""
    for name, value in object_server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture
def prefix() -> str:
    """A place in a bucket that no other test uses."""
    return f"test/{next(PREFIXES)}"


@pytest.fixture(params=["rclone", "moto", "file"])
def region_url(
    request: pytest.FixtureRequest, tmp_path: Path, prefix: str, credentials: None
) -> str:
    """The URL of an empty region, of every kind in turn."""
    if request.param == "file":
        (tmp_path / "region").mkdir()
        return f"file://{tmp_path}/region"
    server: ObjectServer = request.getfixturevalue(f"{request.param}_server")
    return server.url(prefix)


@pytest.fixture
def knows_conditions(request: pytest.FixtureRequest) -> bool:
    """Whether `create` fails where the object is there: rclone's server lets the last one win."""
    kind: str = request.node.callspec.params["region_url"]
    return kind != "rclone"


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
