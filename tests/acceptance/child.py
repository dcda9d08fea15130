"""Child processes that do something and tell what came of it, as somebody else or not."""

import os
import pickle
import select
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 300.0
"""Seconds that a child may take."""


class ChildFailed(AssertionError):
    """A child broke down; the message is its traceback."""


def in_child(function: Callable[[], T], patience: float = PATIENCE) -> T:
    """The result of a function that a child process of its own runs."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer(function, writer)
    os.close(writer)
    try:
        ok, result = pickle.loads(_all_of(reader, pid, patience))
    except EOFError:
        ok, result = False, "The child ended without an answer"
    finally:
        os.close(reader)
        _, status = os.waitpid(pid, 0)
    if not ok:
        raise ChildFailed(f"{result} (status {status})")
    return result  # type: ignore[no-any-return]


def _answer(function: Callable[[], T], writer: int) -> None:
    """In the child: send the result, or the traceback of what broke it."""
    try:
        message = pickle.dumps((True, function()))
    except BaseException:  # noqa: BLE001 - the parent raises it
        message = pickle.dumps((False, traceback.format_exc()))
    view = memoryview(message)
    while view:
        view = view[os.write(writer, view) :]
    os._exit(0)


def _all_of(reader: int, pid: int, patience: float) -> bytes:
    parts: list[bytes] = []
    deadline = time.monotonic() + patience
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            os.kill(pid, signal.SIGKILL)
            raise ChildFailed(f"The child did not answer within {patience} s")
        part = os.read(reader, 65536)
        if not part:
            return b"".join(parts)
        parts.append(part)


def end_of(function: Callable[[], object]) -> str:
    """How a child that runs the function ends: by itself or by which signal."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException:  # noqa: BLE001 - its end tells
            os.write(2, traceback.format_exc().encode())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit {os.WEXITSTATUS(status)}"


def become(uid: int, gid: int, groups: Sequence[int] = ()) -> None:
    """Be somebody else, for the rest of the process."""
    os.setgroups(list(groups))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def as_other(uid: int, gid: int, function: Callable[[], T], groups: Sequence[int] = ()) -> T:
    """The result of a function that somebody else runs."""

    def run() -> T:
        become(uid, gid, groups)
        return function()

    return in_child(run)
