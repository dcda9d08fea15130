"""`imagefs import`: a directory becomes an image, without going through a mount."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagefs.cli import log
from imagefs.cli.place import Place, at_place
from imagefs.cli.session import Session, open_session
from imagefs.control.messages import Publish, Show
from imagefs.errors import Exists, InvalidArgument, NotFound

if TYPE_CHECKING:
    from imagefs.transfer.import_directory import Progress


@click.command("import")
@click.argument("source", type=click.Path(readable=False))
@click.argument("name")
@at_place
def import_command(place: Place, source: str, name: str) -> None:
    """Make the image NAME from the directory SOURCE.

    Prints its digest. Modes, owners, times, extended attributes, ACLs, hard links, devices and
    holes are kept. SOURCE itself becomes the root of the image; symlinks are never followed.
    """
    if not Path(source).exists():
        raise NotFound(f"There is no {source}")
    if not Path(source).is_dir():
        raise InvalidArgument(f"{source} is not a directory: only directories can be imported")
    _check_name(name)
    with open_session(place, create=True) as session:
        _refuse_taken(session, name)
        manifest, stored = _store(place, _without_slashes(source))
        published = session.call(Publish(name, manifest, stored))
    click.echo(published["digest"])


def _check_name(name: str) -> None:
    """Say early that a name is not allowed, before a store is made for nothing."""
    from imagefs.catalog.reference import check_image_name

    check_image_name(name)


def _without_slashes(source: str) -> str:
    """The same directory, so written that the paths of what is in it have no `//`."""
    short = re.sub("/+", "/", source)
    if not short.endswith("/"):
        return short
    short = short[:-1]
    # A link is followed only where something comes after it.
    return f"{short}/." if not short or Path(short).is_symlink() else short


def _refuse_taken(session: Session, name: str) -> None:
    """Say early that a name is taken, before work is done for nothing."""
    with contextlib.suppress(NotFound):
        session.call(Show(name))
        raise Exists(f"Image {name} exists already: choose another name, or `imagefs rm {name}`")


def _store(place: Place, source: str) -> tuple[bytes, int]:
    """Store a directory's tree; returns the id of its manifest and the bytes it took."""
    from imagefs.store import Store
    from imagefs.transfer.import_directory import import_directory

    log.hold()
    store = Store.open(place.store)
    with contextlib.closing(store), store.writer() as writer, _progress(source) as progress:
        manifest = import_directory(
            source, writer, store.get, progress, leave_out=_own_places(place.store)
        )
        return manifest, writer.stored_bytes


def _own_places(store: Path) -> list[tuple[int, int]]:
    """The store and whatever imagefs has mounted: an import of / must not go into them."""
    from imagefs.daemon.mountpoint import mounts

    found = []
    for path in (store, *mounts()):
        with contextlib.suppress(OSError):
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode):
                found.append((status.st_dev, status.st_ino))
    return found


@contextlib.contextmanager
def _progress(source: str) -> Iterator[Progress | None]:
    """A display of what was read, on a terminal and after a second."""
    from imagefs.cli.progress import Counter

    with Counter(f"Importing {source}") as counter:
        yield counter.show if counter.visible else None
