"""`imagefs copy`: an image travels to another region, or from one into the store."""

from __future__ import annotations

import contextlib
import time
from contextlib import ExitStack

import click

from imagefs.cli import text
from imagefs.cli.place import Place, at_place
from imagefs.cli.progress import Waiting
from imagefs.cli.references import IMAGE, meant
from imagefs.cli.session import Session, open_session
from imagefs.control.messages import CancelCopy, Copy, CopyProgress, PlanCopy
from imagefs.errors import ImagefsError

_BAR = 24
_ENDING = 5.0
"""Seconds to wait for the end of a copy that is ended."""


@click.command("copy")
@click.argument("image", type=IMAGE)
@click.argument("region")
@at_place
@click.option("--dry-run", is_flag=True, help="Say how much would travel, and change nothing.")
def copy_command(place: Place, image: str, region: str, dry_run: bool) -> None:
    """Copy IMAGE to REGION; `local` is the store itself.

    Only what is missing there travels. Prints the digest once the image is complete; a copy that
    was interrupted goes on where it was when it is started again. `regions/REGION/NAME` names an
    image of another region. A draft is sealed first.
    """
    with open_session(place) as session:
        reference = meant(session, image)
        if dry_run:
            plan = session.call(PlanCopy(reference, region))
            click.echo(
                f"{text.size(plan['bytes'])} in {text.counted(plan['objects'], 'object')} would"
                f" travel to {region}"
            )
            return
        click.echo(_copy(session, reference, region)["digest"])


def _copy(session: Session, reference: str, region: str) -> dict[str, str]:
    name = reference.rpartition("/")[2]
    with ExitStack() as opened:
        beside = opened.enter_context(session.beside())
        opened.enter_context(_Travel(f"Copying {name} to {region}", beside, region, name))
        try:
            copied: dict[str, str] = session.call(Copy(reference, region))
        except KeyboardInterrupt:
            _end(session, region, name)
            raise
    return copied


def _end(session: Session, region: str, name: str) -> None:
    """End the copy that a daemon makes, and wait a little until it has come to its end: what is
    being sent just then still arrives, and who starts it again at once is not told that it runs."""
    # Of its own: progress may be asked beside right now.
    with session.beside() as beside:
        if beside is None or beside is session:
            return
        beside.call(CancelCopy(region, name))
        until = time.monotonic() + _ENDING
        while beside.call(CopyProgress(region, name)) is not None and time.monotonic() < until:
            time.sleep(0.05)


class _Travel(Waiting):
    """Shows how much of a copy has arrived; asks beside the request that makes it."""

    def __init__(self, what: str, beside: Session | None, region: str, name: str) -> None:
        super().__init__(what)
        self._beside = beside
        self._asked = CopyProgress(region, name)

    def told(self) -> str:
        progress = None
        if self._beside is not None:
            # Whoever waits for the copy hears what is wrong.
            with contextlib.suppress(ImagefsError):
                progress = self._beside.call(self._asked)
        if not progress or not progress[1]:
            return super().told()
        done, total = progress
        filled = "#" * (_BAR * done // total)
        return (
            f"{super().told()} [{filled:<{_BAR}}] {done * 100 // total}%,"
            f" {text.size(done)} of {text.size(total)}"
        )
