"""`imagefs mount` and `imagefs umount`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from imagefs.cli.amount import Amount
from imagefs.cli.place import Place, at_place, require_utf8
from imagefs.errors import Busy, MountError, NotFound

_DEFAULT_MOUNTPOINT = "~/cloud"
_MOST_SECONDS = 1e9


@click.command("mount")
@click.argument("mountpoint", required=False, type=click.Path(readable=False))
@at_place
@click.option(
    "--region",
    default="local",
    metavar="NAME",
    help="Show this region's images in images/ (default: local, the store's own).",
)
@click.option("--seal-after", type=Amount(_MOST_SECONDS), default=60.0, metavar="SECONDS",
              help="Seal a draft nobody writes to (default: 60; 0: never).")  # fmt: skip
@click.option("--allow-other", is_flag=True, help="Let everybody in, as far as modes allow.")
@click.option("--owner", metavar="USER", help="The user whose view this is (for root).")
@click.option("--foreground", is_flag=True, help="Do not go into the background.")
@click.pass_obj
def mount_command(
    debug: bool,
    place: Place,
    mountpoint: str | None,
    region: str,
    seal_after: float,
    allow_other: bool,
    owner: str | None,
    foreground: bool,
) -> None:
    """Mount images and instances at MOUNTPOINT (default: ~/cloud).

    Comes back when everything is there. A missing MOUNTPOINT is made, and so is a missing store.
    """
    from imagefs.daemon.settings import MountSettings

    require_utf8(region, "Region name")
    settings = MountSettings(
        store=str(place.store),
        mountpoint=_mountpoint(mountpoint or _DEFAULT_MOUNTPOINT),
        account=place.account,
        region=region,
        seal_after=seal_after,
        allow_other=allow_other,
        owner=owner,
        debug=debug,
    )
    with _explained(place):
        if foreground:
            _serve_here(settings, debug)
        else:
            from imagefs.daemon.launch import launch

            launch(settings, os.environ)


@contextlib.contextmanager
def _explained(place: Place) -> Iterator[None]:
    """Say it when the account is held by a daemon whose mount is to be seen only elsewhere."""
    try:
        yield
    except Busy as error:
        from imagefs.daemon.lock import AccountLock
        from imagefs.daemon.mountpoint import mounted_type

        holder = AccountLock(place.store, place.account).holder()
        if holder is None or holder.mountpoint is None or mounted_type(Path(holder.mountpoint)):
            raise
        raise Busy(
            f"Account {place.account} is not mounted at {holder.mountpoint} any more, but its"
            f" daemon (PID {holder.pid}) still serves another mount namespace or bind mount;"
            f" end those or `kill {holder.pid}`"
        ) from error


def _mountpoint(path: str) -> str:
    """The absolute path without symlinks; a dead mount there does not matter."""
    return os.path.realpath(Path(path).expanduser())


def _serve_here(settings: Any, debug: bool) -> None:
    from imagefs.daemon import log
    from imagefs.daemon.serve import serve

    def ready() -> None:
        click.echo(f"Mounted at {settings.mountpoint}; Ctrl-C ends it", err=True)

    serve(settings, ready, lambda: log.to_stderr(debug=debug))


@click.command("umount")
@click.argument(
    "mountpoint", required=False, type=click.Path(readable=False), default=_DEFAULT_MOUNTPOINT
)
def umount_command(mountpoint: str) -> None:
    """End the mount at MOUNTPOINT (default: ~/cloud).

    Comes back when its daemon has put everything away. A mount that is visible at other places,
    too (`mount --bind`), is left as it is.
    """
    from imagefs.daemon import mountpoint as mountpoints

    path = Path(_mountpoint(mountpoint))
    kind = mountpoints.mounted_type(path)
    if kind is None:
        raise NotFound(f"Nothing is mounted at {path}; `findmnt -t fuse.imagefs` lists mounts")
    if kind != mountpoints.OUR_TYPE:
        raise MountError(f"What is mounted at {path} is not imagefs but {kind}: use `umount`")
    mountpoints.unmount(path)
