"""The control socket: requests, answers, errors, and what must not bring the daemon down."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
import trio

from imagefs.control import messages
from imagefs.control.address import connect, listen, socket_path
from imagefs.control.client import Client
from imagefs.control.messages import Clone, Commit, Images, Manifest, Reset, Show, Status
from imagefs.control.server import ControlServer
from imagefs.errors import Busy, ImagefsError, InvalidArgument, InvalidName, NotReady
from imagefs.fuse.steps import Steps
from imagefs.vfs import ImageInformation, Lifecycle

T = TypeVar("T")


class FakeLifecycle:
    """Remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.stored = False

    @property
    def descriptions(self) -> FakeLifecycle:
        return self

    def images(self, deleted: bool) -> list[ImageInformation]:
        self.asked.append(deleted)
        return [
            ImageInformation(
                reference="a", name="a", owner="me", kind="custom", state="draft", digest=None,
                created=2**62, parent=None, entries=1, bytes=2, stored_bytes=None, shared_with=[],
            )
        ]  # fmt: skip

    def clone(self, image: str, names: list[str]) -> None:
        self.asked.append((image, names))

    def show(self, reference: str) -> None:
        raise Busy(f"Image {reference} is busy")

    def reset(self, instance: str) -> None:
        raise ZeroDivisionError("a bug")

    def manifest(self, reference: str) -> bytes:
        return b"\0\xff" * 16

    def commit(self, instance: str, name: str) -> str:
        if not self.stored:
            raise NotReady("commit", lambda: True, lambda done: setattr(self, "stored", done))
        return "stored"


class Served:
    """A server and its pieces."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.lifecycle = FakeLifecycle()
        self.settled = 0
        self.server = ControlServer(
            cast(Lifecycle, self.lifecycle), Steps(), self._settle, lambda: {"pid": 7}
        )

    async def _settle(self) -> None:
        self.settled += 1

    async def ask(self, *requests: messages.Request) -> list[Any]:
        """The results of requests over one connection."""

        def work() -> list[Any]:
            client = Client.connect(self.store, "me")
            assert client is not None
            with client:
                return [client.call(request) for request in requests]

        return await in_thread(work)


async def in_thread(work: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(work)


@asynccontextmanager
async def serving(store: Path) -> AsyncIterator[Served]:
    served = Served(store)
    path = socket_path(store, "me")
    path.parent.mkdir(parents=True)
    with listen(path) as listening:
        async with trio.open_nursery() as nursery:
            await nursery.start(served.server.serve, listening)
            yield served
            nursery.cancel_scope.cancel()


async def test_requests_and_their_results(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        (images,) = await served.ask(Images(deleted=True))
        assert images[0]["created"] == 2**62
        assert await served.ask(Clone("a", ["x", "y"]), Status()) == [None, {"pid": 7}]
        assert await served.ask(Manifest("a")) == [b"\0\xff" * 16]
        assert served.lifecycle.asked == [True, ("a", ["x", "y"])]
        assert served.settled == 3, "an answer waits until the kernel knows; status needs not"


async def test_a_step_that_is_not_ready_is_waited_for(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        assert await served.ask(Commit("a/b", "c")) == ["stored"]


async def test_errors_travel_with_their_class(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        with pytest.raises(Busy, match="Image a is busy"):
            await served.ask(Show("a"))
        assert await served.ask(Status()) == [{"pid": 7}]


async def test_a_bug_is_logged_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as served:
        with pytest.raises(ImagefsError, match="ZeroDivisionError"):
            await served.ask(Reset("a/b"))
        assert served.server.failures == 1
        assert "Traceback" in caplog.text


async def test_requests_nobody_knows(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        unknown = messages.encode(Status()).replace(b"status", b"stavus")
        nonsense = (5).to_bytes(4, "big") + b"\xc1\xc1\xc1\xc1\xc1"

        def work(raw: bytes) -> messages.Answer:
            with connect(socket_path(tmp_path, "me")) as connection:
                connection.sendall(raw)
                header = connection.recv(4, socket.MSG_WAITALL)
                return messages.decode_answer(
                    connection.recv(messages.body_size(header), socket.MSG_WAITALL)
                )

        for raw in (unknown, nonsense):
            answer = await trio.to_thread.run_sync(work, raw)
            assert isinstance(answer, messages.Failed)
            assert answer.error == "InvalidArgument"
        assert served.server.failures == 0


@pytest.mark.parametrize("raw", [b"", b"\0\0", b"\0\0\0\x08\x81", b"\xff\xff\xff\xff"])
async def test_what_goes_away_or_lies_does_no_harm(tmp_path: Path, raw: bytes) -> None:
    async with serving(tmp_path) as served:

        def work() -> bytes:
            with connect(socket_path(tmp_path, "me")) as connection:
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
                return connection.recv(1)

        assert await in_thread(work) == b""
        assert await served.ask(Status()) == [{"pid": 7}]


async def test_a_command_that_does_not_wait_for_its_answer(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:

        def work() -> None:
            connection = connect(socket_path(tmp_path, "me"))
            connection.sendall(messages.encode(Clone("a", ["x"])))
            connection.close()

        await in_thread(work)
        with trio.fail_after(5):
            while not served.lifecycle.asked:
                await served.ask(Status())


def test_a_daemon_that_dies_before_it_answers(tmp_path: Path) -> None:
    path = socket_path(tmp_path, "me")
    path.parent.mkdir()
    with listen(path) as listening:
        client = Client.connect(tmp_path, "me")
        assert client is not None

        def accept() -> None:
            listening.accept()[0].close()

        accepting = threading.Thread(target=accept)
        accepting.start()
        with client, pytest.raises(ImagefsError, match="log"):
            client.call(Status())
        accepting.join()


def test_nobody_listens(tmp_path: Path) -> None:
    assert Client.connect(tmp_path, "me") is None
    path = socket_path(tmp_path, "me")
    path.parent.mkdir()
    listen(path).close()
    assert path.exists(), "a dead daemon leaves its socket"
    assert Client.connect(tmp_path, "me") is None
    listen(path).close()


def test_long_paths_and_long_names(tmp_path: Path) -> None:
    store = tmp_path / ("x" * 100) / ("y" * 100)
    for account in ("me", "long" * 60):
        path = socket_path(store, account)
        path.parent.mkdir(parents=True, exist_ok=True)
        with listen(path), connect(path):
            assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("account", ["", ".", "..", "a/b", "-a", "a@b", "a\nb"])
def test_account_names_do_not_lead_elsewhere(account: str) -> None:
    with pytest.raises(InvalidName):
        socket_path(Path("/store"), account)


def test_messages_survive_the_journey() -> None:
    for request in (Images(), Clone("ä", ["b"]), Commit("a/b", "c"), Status()):
        raw = messages.encode(request)
        assert messages.body_size(raw[:4]) == len(raw) - 4
        assert messages.decode_request(raw[4:]) == request
    with pytest.raises(InvalidArgument):
        messages.body_size(b"\xff\0\0\0")


def test_an_error_class_nobody_knows_is_an_error_still() -> None:
    for name in ("Exception", "NotReady", "errno", "Unheard"):
        error = messages.raised(messages.Failed(name, "why"))
        assert type(error) is ImagefsError
        assert str(error) == "why"
