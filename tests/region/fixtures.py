"""Object servers for the tests of every folder; each runs once for all of them."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import object_server
from tests.faulty_proxy import FaultyProxy
from tests.object_server import MotoServer, ObjectServer, RcloneServer

PREFIXES = itertools.count(1)


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
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def prefix() -> str:
    """A place in a bucket that no other test uses."""
    return f"test/{next(PREFIXES)}"


@pytest.fixture(params=["rclone", "moto"])
def server(request: pytest.FixtureRequest, credentials: None) -> ObjectServer:
    """Both servers in turn, with the credentials for them."""
    found: ObjectServer = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture
def proxy(server: ObjectServer) -> Iterator[FaultyProxy]:
    """What stands in front of `server`; the URL is `server.url(prefix, endpoint=proxy.endpoint)`."""
    with FaultyProxy(server.endpoint) as proxy:
        yield proxy


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
