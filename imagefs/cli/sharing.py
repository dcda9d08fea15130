"""`imagefs share` and `imagefs unshare`."""

from __future__ import annotations

import click

from imagefs.cli.place import Place, at_place
from imagefs.cli.progress import Waiting
from imagefs.cli.references import IMAGE, meant
from imagefs.cli.session import open_session
from imagefs.control.messages import Share, Unshare


@click.command("share")
@click.argument("image", type=IMAGE)
@click.argument("accounts", nargs=-1, required=True, metavar="ACCOUNT...")
@at_place
def share_command(place: Place, image: str, accounts: tuple[str, ...]) -> None:
    """Share IMAGE with accounts, or with everybody: `public`. A draft is sealed first."""
    with open_session(place) as session, Waiting(f"Sharing {image}"):
        session.call(Share(meant(session, image), list(accounts)))


@click.command("unshare")
@click.argument("image", type=IMAGE)
@click.argument("accounts", nargs=-1, required=True, metavar="ACCOUNT...")
@at_place
def unshare_command(place: Place, image: str, accounts: tuple[str, ...]) -> None:
    """End sharing IMAGE with accounts.

    Instances that they made of it stay.
    """
    with open_session(place) as session:
        session.call(Unshare(meant(session, image), list(accounts)))
