"""Where the daemon of an account listens, whatever the length of the path.

STORE/run/ACCOUNT.sock is the socket, STORE/run/ACCOUNT.lock is held by whoever may change
the account's images and instances. A socket's address holds 107 bytes; longer paths are
reached through a descriptor of their directory.
"""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

from imagefs.errors import InvalidName

_MAX_ADDRESS = 107
_MAX_STEM = 64


def run_directory(store: Path) -> Path:
    """Where sockets and locks lie."""
    return store / "run"


def socket_path(store: Path, account: str) -> Path:
    """The socket of an account's daemon."""
    return run_directory(store) / f"{_stem(account)}.sock"


def lock_path(store: Path, account: str) -> Path:
    """The lock of an account."""
    return run_directory(store) / f"{_stem(account)}.lock"


def log_path(store: Path, account: str) -> Path:
    """The log of an account's daemon."""
    return store / "log" / f"{_stem(account)}.log"


def _stem(account: str) -> str:
    if not account or account[0] in ".-" or set(account) & set("/\0\n@"):
        raise InvalidName(f"Account name {account!r} is not allowed")
    if len(account.encode()) <= _MAX_STEM:
        return account
    # uuid5 is a hash that costs this quick module no import: msgspec has uuid loaded already.
    return uuid.uuid5(uuid.NAMESPACE_URL, account).hex


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """A short address of a socket at `path`, valid inside the block."""
    if len(os.fsencode(path)) <= _MAX_ADDRESS:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def connect(path: Path) -> socket.socket:
    """A connection to the socket at `path`; raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def listen(path: Path) -> socket.socket:
    """A listening socket at `path`, in place of one left behind, for its owner only."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Nobody may connect before the mode is right: until then nothing listens.
    with _address(path) as address:
        listening.bind(address)
    path.chmod(0o600)
    listening.listen()
    return listening
