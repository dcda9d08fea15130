"""`imagefs diff` and `imagefs dump`: looking into trees without a mount."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from imagefs.cli import log
from imagefs.cli.place import Place, at_place
from imagefs.cli.progress import Waiting
from imagefs.cli.references import EITHER, meant
from imagefs.cli.session import open_session
from imagefs.control.messages import Manifest

if TYPE_CHECKING:
    from imagefs.tree import Tree
    from imagefs.tree.diff import Change

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


@click.command("diff")
@click.argument("old", type=EITHER)
@click.argument("new", type=EITHER)
@at_place
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def diff_command(place: Place, old: str, new: str, as_json: bool) -> None:
    """List what differs between two images or instances.

    Each line has + for what only NEW has, - for what only OLD has, ~ for what changed and
    how. Names are written as in `imagefs dump`.
    """
    from imagefs.tree.diff import diff

    with _trees(place, old, new) as (before, after):
        changes = diff(before, after)
        if as_json:
            _print_json_list(_plain(change) for change in changes)
        else:
            for change in changes:
                click.echo(_line(change))


@click.command("dump")
@click.argument("reference", type=EITHER)
@at_place
def dump_command(place: Place, reference: str) -> None:
    """Print an image or instance as text, one line for each entry.

    The lines have every attribute, and digests of contents.
    """
    from imagefs.tree.dump import dump

    with _trees(place, reference) as (tree,):
        for line in dump(tree):
            click.echo(line)


@contextlib.contextmanager
def _trees(place: Place, *references: str) -> Iterator[list[Tree]]:
    """The stored trees of the present states of images or instances."""
    from imagefs.daemon import assembly
    from imagefs.model import ObjectId
    from imagefs.tree import Tree

    with open_session(place) as session, Waiting("Storing the present state"):
        references = tuple(meant(session, reference) for reference in references)
        for reference in references:
            session.collect(reference)
        manifests = [ObjectId(session.call(Manifest(reference))) for reference in references]
    log.hold()
    with assembly.objects(place.store, place.account) as store:
        yield [Tree(store.get, manifest) for manifest in manifests]


def _plain(change: Change) -> dict[str, Any]:
    """A change for programs. Bytes that are no UTF-8 become lone surrogates, as in Python."""
    return {
        "path": f"/{os.fsdecode(change.path)}",
        "kind": str(change.kind),
        "details": list(change.details),
    }


def _line(change: Change) -> str:
    from imagefs.tree.dump import escape

    line = f"{_SIGNS[change.kind]} /{escape(change.path)}"
    return f"{line}  ({', '.join(change.details)})" if change.details else line


def _print_json_list(values: Iterator[dict[str, Any]]) -> None:
    """A JSON array, one element a line, without holding all of it."""
    import json

    click.echo("[", nl=False)
    separator = "\n  "
    for value in values:
        click.echo(separator + json.dumps(value), nl=False)
        separator = ",\n  "
    click.echo("\n]" if separator[0] == "," else "]")
