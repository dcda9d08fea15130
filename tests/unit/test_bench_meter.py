"""The benchmark's meter counts what goes to a server, and changes nothing of it."""

import random
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from bench_rows.bench import PATIENCE
from bench_rows.meter import Meter, metered

SAID = random.Random(1).randbytes(3_000_000)
ANSWER = random.Random(2).randbytes(1_000_000)


class Server(socketserver.ThreadingTCPServer):
    """Hears who talks to it to the end, then answers."""

    daemon_threads = True

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        self.server.heard.append(self.rfile.read())
        self.wfile.write(ANSWER)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def say(meter: Meter, data: bytes) -> bytes:
    """What is answered to that."""
    with socket.create_connection(("127.0.0.1", meter.port)) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as answer:
            return answer.read()


def test_a_meter_hands_on_both_directions_and_counts_one(server: Server) -> None:
    with metered(server.server_address[1]) as meter:
        assert say(meter, SAID) == ANSWER
        assert meter.sent == len(SAID)
        assert say(meter, SAID[:10]) == ANSWER
        assert meter.sent == len(SAID) + 10
    assert server.heard == [SAID, SAID[:10]]


def test_a_meter_that_is_closed_ends_its_connections(server: Server) -> None:
    with metered(server.server_address[1]) as meter:
        client = socket.create_connection(("127.0.0.1", meter.port))
        client.sendall(SAID[:10])
        deadline = time.monotonic() + PATIENCE
        while meter.sent < 10 and time.monotonic() < deadline:
            time.sleep(0.002)
    with client:
        assert client.recv(1) == b""
    with pytest.raises(ConnectionError):
        say(meter, b"")
