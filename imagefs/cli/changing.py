"""The commands that change what images and instances there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from imagefs.cli import log
from imagefs.cli.place import Place, at_place
from imagefs.cli.progress import Waiting
from imagefs.cli.references import DELETED, EITHER, IMAGE, INSTANCE, meant
from imagefs.cli.session import open_session
from imagefs.control.messages import Clone, Commit, Remove, Request, Reset, Seal, Undelete
from imagefs.errors import ImagefsError, InvalidArgument


@click.command("clone")
@click.argument("image", type=IMAGE)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@at_place
def clone_command(place: Place, image: str, names: tuple[str, ...]) -> None:
    """Make instances of IMAGE, all of them or none.

    Where one can't be made, none is.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidArgument(f"Name {twice} is given twice: every instance needs its own")
    with open_session(place) as session, Waiting(f"Cloning {image}"):
        session.call(Clone(meant(session, image), list(names)))


@click.command("commit")
@click.argument("instance", type=INSTANCE)
@click.argument("name")
@at_place
def commit_command(place: Place, instance: str, name: str) -> None:
    """Store the present state of INSTANCE as the new image NAME.

    Prints its digest. The instance stays as it is.
    """
    with open_session(place) as session, Waiting(f"Committing {instance}"):
        reference = meant(session, instance)
        session.collect(reference)
        committed = session.call(Commit(reference, name))
    click.echo(committed["digest"])


@click.command("reset")
@click.argument("instance", type=INSTANCE)
@at_place
def reset_command(place: Place, instance: str) -> None:
    """Put INSTANCE back to the state of the image it came from.

    The state that it leaves counts as deleted: rename the instance, and `imagefs undelete`
    brings that state back.
    """
    with open_session(place) as session:
        session.call(Reset(meant(session, instance)))


@click.command("seal")
@click.argument("image", type=IMAGE)
@at_place
def seal_command(place: Place, image: str) -> None:
    """Turn the draft IMAGE into an image that never changes.

    Prints its digest.
    """
    with open_session(place) as session, Waiting(f"Sealing {image}"):
        sealed = session.call(Seal(meant(session, image)))
    click.echo(sealed["digest"])


@click.command("rm")
@click.argument("references", nargs=-1, required=True, type=EITHER, metavar="REF...")
@at_place
def rm_command(place: Place, references: tuple[str, ...]) -> None:
    """Delete images and instances, whatever they hold.

    `imagefs undelete` brings them back. Of several it deletes what it can, and says which it
    could not delete.
    """
    _each(place, references, Remove)


@click.command("undelete")
@click.argument("references", nargs=-1, required=True, type=DELETED, metavar="REF...")
@at_place
def undelete_command(place: Place, references: tuple[str, ...]) -> None:
    """Bring back what was deleted.

    Of several that bear the name, that is the one deleted last. `imagefs ls --deleted` lists all.
    """
    _each(place, references, Undelete)


def _each(place: Place, references: Sequence[str], request: Callable[[str], Request]) -> None:
    """Carry out one request per reference; one that fails does not keep the rest from it."""
    code = 0
    with open_session(place) as session:
        for reference in references:
            try:
                session.call(request(meant(session, reference, deleted=request is Undelete)))
            except ImagefsError as error:
                log.fail(str(error), debug=bool(click.get_current_context().obj))
                code = code or error.exit_code
    if code:
        raise click.exceptions.Exit(code)
