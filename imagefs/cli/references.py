"""Arguments that name images and instances, and completing them in a shell."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from imagefs.cli.place import resolve
from imagefs.cli.session import open_session
from imagefs.control.messages import Images, Instances
from imagefs.errors import ImagefsError


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
