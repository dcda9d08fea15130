"""Which store and account a command is about: options, environment, defaults."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from imagefs.errors import AccessDenied, InvalidName

F = TypeVar("F", bound=Callable[..., Any])

_UID_MAP = Path("/proc/self/uid_map")


class Place(NamedTuple):
    """An account of a store."""

    store: Path
    account: str


def default_store() -> Path:
    """$IMAGEFS_STORE, else imagefs below $XDG_DATA_HOME or ~/.local/share."""
    named = os.environ.get("IMAGEFS_STORE")
    if named:
        return Path(named)
    data = os.environ.get("XDG_DATA_HOME")
    # The XDG rules: what is not absolute does not count.
    base = Path(data) if data and data.startswith("/") else Path.home() / ".local" / "share"
    return base / "imagefs"


def login_name() -> str:
    """The name of the user who runs this.

    Inside a user namespace that is the user outside, for whom it was made: `podman unshare`
    and `unshare --map-root-user` make somebody root without making him somebody else.
    """
    uid = os.getuid()
    for known in (_outside(uid, _UID_MAP.read_text()), uid):
        with contextlib.suppress(KeyError):
            return pwd.getpwuid(known).pw_name
    return str(uid)


def _outside(uid: int, uid_map: str) -> int:
    """What a user of this namespace is in the one around it (user_namespaces(7))."""
    for line in uid_map.splitlines():
        inside, outside, count = map(int, line.split())
        if inside <= uid < inside + count:
            return outside + uid - inside
    return uid


def resolve(store: str | None, account: str | None) -> Place:
    """The place that options, possibly absent, mean; raises InvalidName."""
    account = account or login_name()
    require_utf8(account, "Account name")
    path = Path(store).expanduser() if store else default_store()
    return Place(Path(os.path.realpath(path)), account)


def require_utf8(name: str, what: str) -> None:
    """Raise InvalidName for what Python made of bytes that are no text."""
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise InvalidName(f"{what} {name!r} is not UTF-8")


def _check_enterable(store: Path) -> None:
    """Raise AccessDenied for a store that belongs to somebody who keeps it to himself."""
    try:
        os.stat(store / "format")
    except PermissionError as error:
        raise AccessDenied(
            f"Store {store} can't be entered ({error.strerror}): it belongs to somebody else;"
            " --store or IMAGEFS_STORE names another"
        ) from error
    except OSError:
        pass  # what else is wrong with it, and whether that matters, is seen later


def at_place(function: F) -> Callable[..., Any]:
    """Give a command the options --store and --account; it gets a Place first."""

    def wrapped(*, store: str | None, account: str | None, **arguments: Any) -> Any:
        place = resolve(store, account)
        _check_enterable(place.store)
        return function(place, **arguments)

    update_wrapper(wrapped, function)
    # `update_wrapper` takes over click's parameters: those of the options below go first.
    wrapped = click.option("--account", metavar="NAME", help="Default: your login name.")(wrapped)
    return click.option(
        "--store",
        metavar="DIR",
        type=click.Path(readable=False),
        help="Default: $IMAGEFS_STORE, else ~/.local/share/imagefs.",
    )(wrapped)
