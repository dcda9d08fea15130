"""The answering side: carries requests out as steps of the lifecycle, on the loop's thread."""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from imagefs.control import messages
from imagefs.control.messages import AnyRequest, Done, Status
from imagefs.control.verbs import perform
from imagefs.errors import AccessDenied, ImagefsError
from imagefs.vfs import Lifecycle

log = logging.getLogger(__name__)

_CREDENTIALS = struct.Struct("3i")


class Runner(Protocol):
    """Runs steps that may not be ready."""

    async def run(self, step: Callable[..., Any], /, *args: Any) -> Any: ...


class ControlServer:
    """Answers the commands of one account.

    `settled` is awaited before an answer leaves: what the command did is visible then.
    `status` tells how the daemon is. `failures` counts errors that are bugs.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        steps: Runner,
        settled: Callable[[], Awaitable[None]],
        status: Callable[[], Any],
    ) -> None:
        self.failures = 0
        self.requests = 0
        self._lifecycle = lifecycle
        self._steps = steps
        self._settled = settled
        self._status = status

    async def serve(
        self,
        listening: socket.socket,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer on a listening socket until cancelled; requests under way are finished."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        task_status.started()
        await trio.serve_listeners(self._converse, [listener])

    async def _converse(self, stream: trio.SocketStream) -> None:
        async with stream:
            try:
                while (body := await _receive(stream)) is not None:
                    await stream.send_all(await self._answer(stream, body))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                log.debug("A command went away before its answer")
            except ImagefsError as error:
                log.info("A command was not understood: %s", error)

    async def _answer(self, stream: trio.SocketStream, body: bytes) -> bytes:
        self.requests += 1
        try:
            _check_peer(stream)
            request = messages.decode_request(body)
            return messages.encode(Done(await self._carry_out(request)))
        except ImagefsError as error:
            return messages.encode(messages.failed(error))
        except Exception as error:
            self.failures += 1
            log.exception("A command failed unexpectedly")
            told = f"The daemon failed unexpectedly ({type(error).__name__}: {error}): see its log"
            return messages.encode(messages.failed(ImagefsError(told)))

    async def _carry_out(self, request: AnyRequest) -> Any:
        if isinstance(request, Status):
            return self._status()
        result = None
        with trio.CancelScope(shield=True):
            result = await self._steps.run(perform, self._lifecycle, request)
            await self._settled()
        return result


async def _receive(stream: trio.SocketStream) -> bytes | None:
    """The body of the next message; None when the other side is done."""
    header = await _receive_exactly(stream, messages.HEADER_SIZE)
    if header is None:
        return None
    return await _receive_exactly(stream, messages.body_size(header))


async def _receive_exactly(stream: trio.SocketStream, size: int) -> bytes | None:
    received = bytearray()
    while len(received) < size:
        part = await stream.receive_some(size - len(received))
        if not part:
            return None
        received += part
    return bytes(received)


def _check_peer(stream: trio.SocketStream) -> None:
    """Raise AccessDenied unless the other side is this user or root."""
    raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, uid, _gid = _CREDENTIALS.unpack(raw)
    if uid not in (0, os.geteuid()):
        raise AccessDenied(f"This daemon belongs to user {os.geteuid()}, not to user {uid}")
