"""A meter in front of a server: hands on every byte as it is, and counts those on their way there."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator

_PIECE = 1 << 18


class Meter(socketserver.ThreadingTCPServer):
    """`sent` is all that clients sent through it so far: bodies, heads and signatures of requests."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int) -> None:
        """In front of who listens at this port of loopback."""
        self.sent = 0
        self.behind = ("127.0.0.1", port)
        self.clients: set[socket.socket] = set()
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Connection)
        self.port: int = self.server_address[1]

    def count(self, size: int) -> None:
        with self.lock:
            self.sent += size

    def end_connections(self) -> None:
        with self.lock:
            for client in self.clients:
                with contextlib.suppress(OSError):  # the client was first
                    client.shutdown(socket.SHUT_RDWR)


class _Connection(socketserver.BaseRequestHandler):
    """A client's connection and the one to the server behind; a thread for each direction."""

    server: Meter
    request: socket.socket

    def handle(self) -> None:
        client = self.request
        with self.server.lock:
            self.server.clients.add(client)
        try:
            with socket.create_connection(self.server.behind) as server:
                back = threading.Thread(target=hand_on, args=(server, client))
                back.start()
                hand_on(client, server, self.server.count)
                back.join()
        finally:
            with self.server.lock:
                self.server.clients.discard(client)


def hand_on(
    here: socket.socket, there: socket.socket, count: Callable[[int], object] | None = None
) -> None:
    """One direction, until either side ends it."""
    # Without this the last part of a message waits until what came before is acknowledged.
    there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = memoryview(bytearray(_PIECE))
    with contextlib.suppress(OSError):
        while size := here.recv_into(buffer):
            if count is not None:
                count(size)
            there.sendall(buffer[:size])
    with contextlib.suppress(OSError):
        there.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def metered(port: int) -> Iterator[Meter]:
    """A meter at work in front of that port."""
    with Meter(port) as meter:
        thread = threading.Thread(target=meter.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield meter
        finally:
            meter.shutdown()
            meter.end_connections()
            thread.join()
