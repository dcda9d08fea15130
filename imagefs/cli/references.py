"""Arguments that name images and instances: as people type them, and completed in a shell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from imagefs.cli.place import resolve
from imagefs.cli.session import Session, open_session
from imagefs.control.messages import Images, Instances
from imagefs.errors import ImagefsError, InvalidName

_IMAGES, _INSTANCES, _SHARED, _REGIONS = "images", "instances", "shared", "regions"
"""The directories of a mount that paths of images and instances begin with."""


class Reference(click.ParamType):  # type: ignore[type-arg] # generic in newer clicks only
    """An image, an instance or either. What it may be is said by the parts of its name."""

    def __init__(self, name: str, *, images: bool, instances: bool, deleted: bool = False) -> None:
        self.name = name
        self._requests = [Images(deleted)] * images + [Instances(deleted)] * instances

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The references that begin like `incomplete`."""
        try:
            place = resolve(ctx.params.get("store"), ctx.params.get("account"))
            with open_session(place) as session:
                known: list[Any] = [row for r in self._requests for row in session.call(r)]
        except (ImagefsError, OSError):
            return []
        names = sorted({row["reference"] for row in known})
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


IMAGE = Reference("image", images=True, instances=False)
INSTANCE = Reference("instance", images=False, instances=True)
EITHER = Reference("reference", images=True, instances=True)
DELETED = Reference("reference", images=True, instances=True, deleted=True)


def meant(session: Session, typed: str, *, deleted: bool = False) -> str:
    """The reference that the words mean; `deleted` where that may be a deleted one's.

    Slashes at the end do not count. `images/NAME`, `instances/IMAGE/INSTANCE`,
    `shared/from/OWNER/NAME`, `regions/REGION/NAME` and paths of such in the mount are NAME,
    IMAGE/INSTANCE, NAME@OWNER and `regions/REGION/NAME`; an image that is really called `images` and
    its instances go first. Raises InvalidName for what cannot be a reference.
    """
    parts = [part for part in typed.split("/") if part]
    if not typed:
        raise _no_reference(typed)
    if _is_path(typed):
        return _from_path(typed, _parts_in_mount(session, typed))
    if len(parts) > 2:
        beginnings = ([_INSTANCES], [_REGIONS]) if len(parts) == 3 else ([_SHARED, "from"],)
        in_mount = any(parts[: len(beginning)] == beginning for beginning in beginnings)
        return _from_path(typed, parts if in_mount else _parts_in_mount(session, typed))
    reference = "/".join(parts)
    if len(parts) == 1 or parts[0] != _IMAGES or _exists(session, reference, deleted):
        return reference
    return parts[1]


def _is_path(typed: str) -> bool:
    """Whether the words can only be a path; names do not begin like that."""
    return typed.startswith(("/", "./", "../", "~/")) or typed in (".", "..")


def _parts_in_mount(session: Session, typed: str) -> list[str]:
    """The names that lead from the account's mountpoint to a path; none for others.

    What lies inside the mount is not looked at: an alias is a symlink there.
    """
    mountpoint = session.mountpoint()
    path = Path(os.path.abspath(Path(typed).expanduser()))
    if mountpoint is not None:
        for above in path.parents:
            if os.path.realpath(above) == mountpoint:
                return list(path.relative_to(above).parts)
    return []


def _from_path(typed: str, parts: list[str]) -> str:
    """The reference of an image's or instance's directory in the mount."""
    match parts:
        case [first, image] if first == _IMAGES:
            return image
        case [first, image, instance] if first == _INSTANCES:
            return f"{image}/{instance}"
        case [first, region, image] if first == _REGIONS:
            return f"{_REGIONS}/{region}/{image}"
        case [first, "from", owner, image] if first == _SHARED:
            return f"{image}@{owner}"
    raise _no_reference(typed)


def _exists(session: Session, reference: str, deleted: bool) -> bool:
    """Whether this is an instance, or its image exists so that it could be one."""
    image = reference.partition("/")[0]
    requests = [Images(), Instances()] + [Images(True), Instances(True)] * deleted
    known = {row["reference"] for request in requests for row in session.call(request)}
    return bool({image, reference} & known)


def _no_reference(typed: str) -> InvalidName:
    return InvalidName(
        f"{typed!r} does not name an image or instance: references are NAME or IMAGE/INSTANCE"
    )
