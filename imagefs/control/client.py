"""The asking side: blocking, and quick to import."""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from imagefs.control import messages
from imagefs.control.address import connect, socket_path
from imagefs.control.messages import Failed, Request
from imagefs.errors import ImagefsError, InvalidName, StoreError


class Client:
    """A connection to a daemon. Use as a context manager."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    @classmethod
    def connect(cls, store: Path, account: str) -> Self | None:
        """The connection to an account's daemon, or None if there is no daemon."""
        try:
            return cls(connect(socket_path(store, account)))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise StoreError(f"Store {store} belongs to somebody else: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def call(self, request: Request) -> Any:
        """The result of a request as plain values; raises what the daemon raised."""
        try:
            self._connection.sendall(encoded(request))
            size = messages.body_size(self._receive(messages.HEADER_SIZE))
            answer = messages.decode_answer(self._receive(size))
        except OSError as error:
            raise _lost() from error
        if isinstance(answer, Failed):
            raise messages.raised(answer)
        return answer.result

    def _receive(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self._connection.recv(size - len(parts))
            if not part:
                raise _lost()
            parts += part
        return bytes(parts)


def encoded(request: Request) -> bytes:
    """A request as it travels; raises InvalidName where it holds what is no text."""
    try:
        return messages.encode(request)
    except UnicodeEncodeError as error:
        raise InvalidName(f"{error.object!r} is not UTF-8") from None


def _lost() -> ImagefsError:
    return ImagefsError(
        "The daemon ended before it answered; its log in the store's log/ directory says why"
    )
