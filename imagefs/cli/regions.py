"""`imagefs region`: which regions there are, and keeping them clean."""

from __future__ import annotations

from typing import Any

import click

from imagefs.cli import text
from imagefs.cli.amount import Amount
from imagefs.cli.place import Place, at_place
from imagefs.cli.progress import Waiting
from imagefs.cli.session import open_session
from imagefs.control.messages import AddRegion, CleanRegion, Regions, RemoveRegion
from imagefs.errors import EXIT_USAGE

_DAY_NS = 86_400_000_000_000
_RETAINED_DAYS = 7.0
_MOST_DAYS = 100_000


@click.group("region", invoke_without_command=True)
@click.pass_context
def region_command(ctx: click.Context) -> None:
    """Regions: places on an object store that hold images."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(EXIT_USAGE)


@region_command.command("add")
@click.argument("name")
@click.argument("url")
@at_place
def add_command(place: Place, name: str, url: str) -> None:
    """Get to know the region NAME at URL; an empty place becomes one.

    URL is s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///DIRECTORY.
    For S3, `?endpoint=http://HOST:PORT`, `region=NAME` and `profile=NAME` may follow.
    Credentials are those of the environment and the usual files, and are never stored.
    """
    with open_session(place, create=True) as session, Waiting(f"Asking {name}"):
        session.call(AddRegion(name, url))


@region_command.command("ls")
@at_place
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def ls_command(place: Place, as_json: bool) -> None:
    """List the regions that the store knows."""
    with open_session(place) as session:
        regions = session.call(Regions())
    if as_json:
        import json

        click.echo(json.dumps(regions, indent=2))
        return
    cells = [
        (row["name"], "home" if row["home"] else "", row["url"], _state(row)) for row in regions
    ]
    if cells:
        click.echo("\n".join(text.columns(("REGION", "", "URL", "LISTED"), cells)))


@region_command.command("rm")
@click.argument("name")
@at_place
def rm_command(place: Place, name: str) -> None:
    """Forget the region NAME. Everything in it stays there.

    Refused while instances of its images are here.
    """
    with open_session(place) as session:
        session.call(RemoveRegion(name))


@region_command.command("gc")
@click.argument("name")
@at_place
@click.option("--retain", type=Amount(_MOST_DAYS), default=_RETAINED_DAYS, metavar="DAYS",
              help="Keep what was deleted in the last DAYS (default: 7).")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
def gc_command(place: Place, name: str, retain: float, dry_run: bool) -> None:
    """Remove from the region NAME what nothing needs any more.

    What was deleted there can be brought back until then. Safe while other machines copy to it.
    """
    with open_session(place) as session, Waiting(f"Cleaning {name}"):
        report = session.call(CleanRegion(name, round(retain * _DAY_NS), dry_run))
    verb = "Would remove" if dry_run else "Removed"
    click.echo(
        f"{verb} {text.counted(report['images'], 'deleted image')} and"
        f" {text.counted(report['packs'], 'pack')} with {text.size(report['bytes'])}"
    )
    if report["waiting"]:
        click.echo(
            f"{text.counted(report['waiting'], 'pack')} not needed now may be counted on by copies"
            " under way: a later gc takes them"
        )


def _state(row: dict[str, Any]) -> str:
    listed = text.moment(row["refreshed"])
    return listed if row["failure"] is None else f"{listed}, then: {row['failure']}"
