"""`imagefs mount` and `imagefs umount`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from imagefs.cli.place import Place, at_place
from imagefs.errors import MountError, NotFound

_DEFAULT_MOUNTPOINT = "~/cloud"


@click.command("mount")
@click.argument("mountpoint", required=False, type=click.Path(readable=False))
@at_place
@click.option("--seal-after", type=click.FloatRange(min=0), default=60.0, metavar="SECONDS",
              help="Seal a draft nobody writes to; 0 for never.  [default: 60]")  # fmt: skip
@click.option("--allow-other", is_flag=True, help="Let everybody in, as far as modes allow.")
@click.option("--owner", metavar="USER", help="The user whose view this is (for root).")
@click.option("--foreground", is_flag=True, help="Do not go into the background.")
@click.pass_obj
def mount_command(
    debug: bool,
    place: Place,
    mountpoint: str | None,
    seal_after: float,
    allow_other: bool,
    owner: str | None,
    foreground: bool,
) -> None:
    """Mount an account's images and instances at MOUNTPOINT (default: ~/cloud)."""
    from imagefs.daemon.settings import MountSettings

    settings = MountSettings(
        store=str(place.store),
        mountpoint=_mountpoint(mountpoint or _DEFAULT_MOUNTPOINT),
        account=place.account,
        seal_after=seal_after,
        allow_other=allow_other,
        owner=owner,
        debug=debug,
    )
    if foreground:
        _serve_here(settings, debug)
    else:
        from imagefs.daemon.launch import launch

        launch(settings, os.environ)


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
    """End the mount at MOUNTPOINT; comes back when its daemon has put everything away."""
    from imagefs.daemon import mountpoint as mountpoints

    path = Path(_mountpoint(mountpoint))
    kind = mountpoints.mounted_type(path)
    if kind is None:
        raise NotFound(f"Nothing is mounted at {path}; `findmnt -t fuse.imagefs` lists mounts")
    if kind != mountpoints.OUR_TYPE:
        raise MountError(f"What is mounted at {path} is not imagefs but {kind}: use `umount`")
    mountpoints.unmount(path)
