"""`imagefs verify`: whether everything that the catalog names is present and good."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from imagefs.cli import log, text
from imagefs.cli.place import Place, at_place
from imagefs.cli.progress import Counter
from imagefs.cli.session import Session, open_session
from imagefs.control.messages import CheckOverlay, InodePath, Request, StoredContents
from imagefs.errors import EXIT_DAMAGED, Corrupt

if TYPE_CHECKING:
    from imagefs.vfs.verify import Problem, Summary

_NAMED = 3
"""Images and instances that a line names; JSON has all."""


class _Overlays:
    """Asks the account's daemon, or takes its lock; from the first question on, because stored
    trees take the longest and need neither."""

    def __init__(self, place: Place, opened: ExitStack) -> None:
        self._place = place
        self._opened = opened
        self._session: Session | None = None

    def check(self, number: int) -> list[str]:
        problems: list[str] = self._call(CheckOverlay(number))
        return problems

    def contents(self, number: int, after: int) -> Sequence[Any]:
        contents: Sequence[Any] = self._call(StoredContents(number, after))
        return contents

    def path(self, number: int, ino: int) -> bytes:
        path: bytes = self._call(InodePath(number, ino))
        return path

    def _call(self, request: Request) -> Any:
        if self._session is None:
            self._session = self._opened.enter_context(open_session(self._place))
        return self._session.call(request)


@click.command("verify")
@at_place
@click.option("--json", "as_json", is_flag=True, help="The list of problems for programs.")
def verify_command(place: Place, as_json: bool) -> None:
    """Check that everything in the store is there and good.

    Exits with 5 if not. Every image of the store is read and compared with its checksums, and
    every instance and draft of the account is checked for contradictions, also what was deleted
    and can still be brought back. Each problem is one line. Nothing is repaired.
    """
    found: list[Problem] = []
    with Counter("Verifying") as counter:
        summary = _run(place, found.append, counter.show)
    if as_json:
        _print_json(found)
    else:
        for problem in found:
            click.echo(_line(problem))
        if summary is not None:
            click.echo(_told(summary, len(found)), err=True)
    if found:
        raise click.exceptions.Exit(EXIT_DAMAGED)


def _run(
    place: Place, add: Callable[[Problem], None], tell: Callable[[int, int], None]
) -> Summary | None:
    """Add all problems; returns None when the store could not even be opened."""
    from imagefs.daemon import assembly
    from imagefs.disk import Disk
    from imagefs.vfs.verify import Problem, Verification

    log.hold()
    try:
        disk = Disk()
        with assembly.opened(place.store, disk) as parts, ExitStack() as opened:
            overlays = _Overlays(place, opened)
            verification = Verification(*parts, disk, place.account, overlays, tell)
            for problem in verification.run():
                add(problem)
            return verification.summary
    except Corrupt as error:
        add(Problem(["store"], str(error)))
        return None


def _line(problem: Problem) -> str:
    named = ", ".join(problem.where[:_NAMED])
    if len(problem.where) > _NAMED:
        named += f" and {len(problem.where) - _NAMED} more"
    path = "" if problem.path is None else f"{problem.path}: "
    return text.safe(f"{named}: {path}{problem.message}")


def _told(summary: Summary, problems: int) -> str:
    return "\n".join(_sentences(summary, problems))


def _sentences(summary: Summary, problems: int) -> Iterator[str]:
    verdict = text.counted(problems, "problem") if problems else "No problems"
    yield (
        f"{verdict} in {text.counted(summary.images, 'image')} and"
        f" {text.counted(summary.instances, 'instance')}:"
        f" {text.counted(summary.entries, 'entry', 'entries')},"
        f" {text.counted(summary.objects, 'object')} with {text.size(summary.bytes)}"
    )
    if summary.unneeded_objects or summary.unneeded_overlays:
        yield (
            f"Not needed by any of them: {text.counted(summary.unneeded_objects, 'object')},"
            f" {text.counted(summary.unneeded_overlays, 'overlay')}"
        )
    for account in summary.elsewhere:
        yield f"Not looked at: instances and drafts of account {account} (--account {account})"


def _print_json(problems: list[Problem]) -> None:
    import json

    import msgspec

    click.echo(json.dumps(msgspec.to_builtins(problems), indent=2))
