"""A real HTTP proxy in front of an object server: counts what passes, and does harm when told.

Requests go on as they came, Host included, so that signatures hold. What harm is done is said
while it runs: each kind for every N-th of the requests that match, counted from when it was
said, until `clear`.

    with FaultyProxy(server.endpoint) as proxy:
        url = server.url("prefix", endpoint=proxy.endpoint)
        proxy.harm(Status(503), every=3)
        proxy.harm(Flip(), match=lambda request: "/packs/" in request.key)
        ...
        assert proxy.sent(method="PUT", part="/packs/") < 1000
"""

from __future__ import annotations

import http.client
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

UPSTREAM_SECONDS = 60.0
JOIN_SECONDS = 20.0
# What concerns one connection only, and is not handed on.
OF_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class Request:
    """A request as the client made it; `key` is the whole key in the bucket, decoded. A listing has
    method LIST and the prefix it asks for as key."""

    method: str
    key: str


@dataclass(frozen=True)
class Passed:
    """What came of a request: `status` is None when no answer was given. `sent` and `received` are
    bytes of bodies that passed here, seen from the client."""

    request: Request
    status: int | None
    sent: int
    received: int


@dataclass(frozen=True)
class Status:
    """Answers with an error; the server behind hears nothing."""

    status: int = 503
    code: str = "SlowDown"


@dataclass(frozen=True)
class Delay:
    """Waits before the request goes on."""

    seconds: float


@dataclass(frozen=True)
class Hang:
    """Takes the request and never answers; after `clear` the connection is closed."""


@dataclass(frozen=True)
class Cut:
    """Answers with the first half of the body and closes the connection."""


@dataclass(frozen=True)
class Flip:
    """Answers with one bit of the body the wrong way, in the middle of it."""


@dataclass(frozen=True)
class Lose:
    """The server behind does what was asked, but the answer is lost with the connection."""


Harm = Status | Delay | Hang | Cut | Flip | Lose
Match = Callable[[Request], bool]


class _Plan:
    """A harm and when it is done."""

    def __init__(self, harm: Harm, every: int, match: Match) -> None:
        self.harm = harm
        self.every = every
        self.match = match
        self.seen = 0

    def due(self, request: Request) -> bool:
        if not self.match(request):
            return False
        self.seen += 1
        return self.seen % self.every == 0


class FaultyProxy:
    """Listens from `__enter__` to `__exit__`, always at the same port."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname is not None
        self.upstream = (parts.hostname, parts.port or 80)
        self.port = 0
        self.passed: list[Passed] = []
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.errors: list[BaseException] = []
        self._plans: list[_Plan] = []
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.accept()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        assert not self.errors

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """Connections of clients that are open, or whose last request is still under way."""
        return 0 if self._server is None else len(self._server.connections)

    # -- what is to happen --------------------------------------------------------------

    def harm(self, harm: Harm, *, every: int = 1, match: Match = lambda _: True) -> None:
        """Does this to every N-th request that matches."""
        with self.lock:
            self._plans.append(_Plan(harm, every, match))

    def clear(self) -> None:
        """No more harm; what hangs is let go."""
        with self.lock:
            self._plans.clear()
            self.released.set()
            self.released = threading.Event()

    def refuse(self) -> None:
        """Nobody listens any more, and connections are closed."""
        self.clear()
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server.close_connections()
        self._thread.join(JOIN_SECONDS)
        self._server = self._thread = None

    def accept(self) -> None:
        """Listens (again)."""
        assert self._server is None
        self._server = _Server(self)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def due(self, request: Request) -> list[Harm]:
        """What is to be done to this request, which counts from now on."""
        with self.lock:
            return [plan.harm for plan in self._plans if plan.due(request)]

    # -- what happened ------------------------------------------------------------------

    def note(self, passed: Passed) -> None:
        with self.lock:
            self.passed.append(passed)

    def forget(self) -> None:
        """Counts from nothing again."""
        with self.lock:
            self.passed.clear()

    def select(self, method: str | None = None, part: str = "") -> list[Passed]:
        """Requests with this method whose key has `part` in it."""
        with self.lock:
            return [
                passed
                for passed in self.passed
                if method in (None, passed.request.method) and part in passed.request.key
            ]

    def requests(self, method: str | None = None, part: str = "") -> int:
        return len(self.select(method, part))

    def sent(self, method: str | None = None, part: str = "") -> int:
        """Bytes of the bodies of requests."""
        return sum(passed.sent for passed in self.select(method, part))

    def received(self, method: str | None = None, part: str = "") -> int:
        """Bytes of the bodies of answers."""
        return sum(passed.received for passed in self.select(method, part))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, proxy: FaultyProxy) -> None:
        self.proxy = proxy
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", proxy.port), _Handler)

    def close_connections(self) -> None:
        for connection in list(self.connections):
            close(connection)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients and servers that are gone are what tests are about; all else is a bug here."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            self.proxy.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client, and one to the server behind."""

    protocol_version = "HTTP/1.1"
    # Without these every answer waits 40 ms for an acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = 65536
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)
        self.behind = http.client.HTTPConnection(
            *self.server.proxy.upstream, timeout=UPSTREAM_SECONDS
        )

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        self.behind.close()
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name it has
        pass

    def __getattr__(self, name: str) -> Callable[[], None]:
        """`do_GET`, `do_PUT` and so on are all the same."""
        if name.startswith("do_"):
            return self.pass_on
        raise AttributeError(name)

    def pass_on(self) -> None:
        proxy = self.server.proxy
        request = request_of(self.command, self.path)
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # the client died: the server must not see a shorter body as whole
            self.drop(request, len(body))
            return
        released = proxy.released
        harms = proxy.due(request)
        for harm in harms:
            if isinstance(harm, Delay):
                released.wait(harm.seconds)
            elif isinstance(harm, Hang):
                released.wait()
                self.drop(request, len(body))
                return
            elif isinstance(harm, Status):
                text = f"<Error><Code>{harm.code}</Code></Error>".encode()
                kind = [("Content-Type", "application/xml")]
                self.answer(request, len(body), harm.status, kind, text)
                return
        status, headers, data = self.ask(body)
        if any(isinstance(harm, Lose) for harm in harms):
            self.drop(request, len(body))
            return
        if any(isinstance(harm, Flip) for harm in harms) and data:
            data = flipped(data)
        cut = any(isinstance(harm, Cut) for harm in harms)
        self.answer(request, len(body), status, headers, data, cut=cut)

    def ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """What the server behind answers."""
        self.behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in OF_THE_CONNECTION:
                self.behind.putheader(name, value)
        if body or "Content-Length" in self.headers:
            self.behind.putheader("Content-Length", str(len(body)))
        self.behind.endheaders(body)
        response = self.behind.getresponse()
        data = response.read()
        headers = response.getheaders()
        if self.command == "HEAD":
            # Of a HEAD the length is what a GET would have.
            length = response.headers.get("Content-Length", "0")
            kept = [item for item in headers if item[0].lower() not in OF_THE_CONNECTION]
            return response.status, [*kept, ("Content-Length", length)], b""
        return response.status, headers, data

    def answer(
        self,
        request: Request,
        sent: int,
        status: int,
        headers: list[tuple[str, str]],
        data: bytes,
        *,
        cut: bool = False,
    ) -> None:
        of_head = self.command == "HEAD"
        if of_head:
            data = b""
        passes = data[: len(data) // 2] if cut else data
        self.server.proxy.note(Passed(request, status, sent, len(passes)))
        self.send_response_only(status)
        for name, value in headers:
            if of_head or name.lower() not in OF_THE_CONNECTION:
                self.send_header(name, value)
        if not of_head:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(passes)
        self.wfile.flush()
        if cut:
            self.hang_up()

    def drop(self, request: Request, sent: int) -> None:
        self.server.proxy.note(Passed(request, None, sent, 0))
        self.hang_up()

    def hang_up(self) -> None:
        self.close_connection = True
        close(self.connection)


def request_of(method: str, target: str) -> Request:
    """Who asks for what: paths are /BUCKET/KEY."""
    parts = urlsplit(target)
    key = unquote(parts.path).lstrip("/").partition("/")[2]
    if method == "GET" and "list-type=" in parts.query:
        found = [item for item in parts.query.split("&") if item.startswith("prefix=")]
        return Request("LIST", unquote(found[0].removeprefix("prefix=")) if found else "")
    return Request(method, key)


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


def close(connection: socket.socket) -> None:
    """Ends a connection under whoever reads from it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
