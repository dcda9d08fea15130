"""`imagefs ls`, `imagefs show` and `imagefs status`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from imagefs.cli import text
from imagefs.cli.place import Place, at_place
from imagefs.cli.references import EITHER, meant
from imagefs.cli.session import open_session
from imagefs.control.client import Client
from imagefs.control.messages import Images, Instances, Regional, Shared, Show, Status

_INNER_STATE = {"volumes", "lookups", "orphans", "work", "polling", "vfs"}
"""What a daemon tells about itself for those who develop it."""

_KINDS = {"images": Images, "instances": Instances, "regions": Regional}
_USUAL = ("images", "instances")
_SHARED = "shared"


def _json_option(function: Any) -> Any:
    return click.option("--json", "as_json", is_flag=True, help="For programs.")(function)


@click.command("ls")
@click.argument("what", required=False, type=click.Choice([*_KINDS, _SHARED]))
@at_place
@click.option("--deleted", is_flag=True, help="What was deleted and can be brought back.")
@_json_option
def ls_command(place: Place, what: str | None, deleted: bool, as_json: bool) -> None:
    """List images and instances, what is shared, or other regions."""
    if what == _SHARED:
        if deleted:
            raise click.UsageError("What is shared cannot be --deleted: choose images or instances")
        _list_shared(place, as_json)
        return
    wanted = [what] if what else list(_USUAL)
    with open_session(place) as session:
        found = {kind: session.call(_KINDS[kind](deleted)) for kind in wanted}
    if as_json:
        _print_json(found[what] if what else found)
        return
    blocks = [_TABLES[kind](rows, deleted) for kind, rows in found.items() if rows or what]
    click.echo("\n\n".join("\n".join(lines) for lines in blocks), nl=bool(blocks))


def _list_shared(place: Place, as_json: bool) -> None:
    """Images of others that the account may use, then those that it shares."""
    with open_session(place) as session:
        shared = session.call(Shared())
    if as_json:
        _print_json(shared)
        return
    blocks = []
    if shared["images"]:
        blocks.append(_images_table(shared["images"], deleted=False))
    if shared["shares"]:
        cells = [(row["image"], row["grantee"]) for row in shared["shares"]]
        blocks.append(text.columns(("IMAGE", "SHARED WITH"), cells))
    click.echo("\n\n".join("\n".join(lines) for lines in blocks), nl=bool(blocks))


@click.command("show")
@click.argument("reference", type=EITHER)
@at_place
@_json_option
def show_command(place: Place, reference: str, as_json: bool) -> None:
    """Tell what is known about an image or instance."""
    with open_session(place) as session:
        known = session.call(Show(meant(session, reference)))
    if as_json:
        _print_json(known)
        return
    shown = {name: _value(name, value) for name, value in known.items() if value not in (None, [])}
    _print_pairs(shown)


@click.command("status")
@at_place
@_json_option
@click.pass_obj
def status_command(debug: bool, place: Place, as_json: bool) -> None:
    """Tell whether the account is mounted, and how its daemon is.

    `imagefs --debug status` tells of the daemon's inner state, too.
    """
    client = Client.connect(place.store, place.account)
    if client is None:
        known = _unmounted(place)
    else:
        with client:
            known = {"mounted": True, **client.call(Status())}
    if not debug:
        known = {name: value for name, value in known.items() if name not in _INNER_STATE}
    if as_json:
        _print_json(known)
    else:
        _print_pairs({name: _value(name, value) for name, value in known.items()})
        if "dead_mountpoint" in known:
            click.echo(
                f"The daemon of the mount at {text.safe(known['dead_mountpoint'])} is gone:"
                f" `imagefs mount {text.safe(known['dead_mountpoint'])}` clears it and mounts again"
            )


def _unmounted(place: Place) -> dict[str, Any]:
    """The status of an account without a daemon, with the mountpoint one left when it died."""
    from imagefs.daemon.lock import AccountLock
    from imagefs.daemon.mountpoint import is_dead

    known = {"account": place.account, "store": str(place.store), "mounted": False}
    holder = AccountLock(place.store, place.account).holder()
    if holder is not None and holder.mountpoint is not None and is_dead(Path(holder.mountpoint)):
        known["dead_mountpoint"] = holder.mountpoint
    return known


def _images_table(rows: list[dict[str, Any]], deleted: bool) -> list[str]:
    titles = ("IMAGE", "STATE", "ENTRIES", "SIZE", "STORED", "CREATED", *_DELETED * deleted, "FROM")
    cells = [
        (
            row["reference"], row["state"], text.count(row["entries"]), text.size(row["bytes"]),
            text.size(row["stored_bytes"]), text.moment(row["created"]),
            *_when_deleted(row, deleted), _origin(row),
        )
        for row in rows
    ]  # fmt: skip
    return text.columns(titles, cells, right="ENTRIES SIZE STORED")


_DELETED = ("DELETED",)


def _when_deleted(row: dict[str, Any], deleted: bool) -> tuple[str, ...]:
    """The cells of the column that only lists of what was deleted have."""
    return (text.moment(row["deleted"]),) * deleted


def _origin(row: dict[str, Any]) -> str:
    return f"-> {row['alias']}" if row["alias"] else row["parent"] or ""


def _instances_table(rows: list[dict[str, Any]], deleted: bool) -> list[str]:
    titles = ("INSTANCE", "ENTRIES", "SIZE", "CHANGED", "CREATED", *_DELETED * deleted)
    cells = [
        (
            row["reference"], text.count(row["entries"]), text.size(row["bytes"]),
            text.size(row["changed_bytes"]), text.moment(row["created"]),
            *_when_deleted(row, deleted),
        )
        for row in rows
    ]  # fmt: skip
    return text.columns(titles, cells, right="ENTRIES SIZE CHANGED")


_TABLES = {
    "images": _images_table,
    "instances": _instances_table,
    "regions": _images_table,
}


def _value(name: str, value: Any) -> str:
    """One value as people read it."""
    if name in {"created", "deleted", "started"}:
        return text.moment(value)
    if name == "bytes" or name.endswith("_bytes"):
        return f"{text.size(value)} ({text.count(value)} bytes)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "regions":
        return ", ".join(map(_region, value)) or "-"
    if isinstance(value, list):
        return ", ".join(value)
    return text.count(value) if name == "entries" else str(value)


def _region(row: dict[str, Any]) -> str:
    """One region in a line of `status`."""
    if row["failure"] is not None:
        return f"{row['name']} (does not answer, listed last {text.moment(row['refreshed'])})"
    return str(row["name"])


def _print_pairs(pairs: dict[str, str]) -> None:
    width = max(map(len, pairs)) + 2
    for name, value in pairs.items():
        click.echo(f"{name.replace('_', ' ') + ':':<{width}}{text.safe(value)}")


def _print_json(value: Any) -> None:
    import json

    click.echo(json.dumps(value, indent=2))
