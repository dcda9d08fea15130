"""Looking for contradictions in the catalog. Reads every row; changes nothing.

What is checked: SQLite finds the file whole, every row has values that can be, names are free
of each other, and what must be known of a tree in its state is known.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Final

from imagefs.catalog.reference import check_image_name, check_name, parse_image
from imagefs.catalog.rows import Kind, State
from imagefs.errors import InvalidName
from imagefs.model import OBJECT_ID_SIZE

_MAX_NUMBER: Final = 2**31 - 1
_INTEGRITY: Final = "PRAGMA integrity_check(10)"
_TREES: Final = """
    SELECT number, kind, account, place, name, state, manifest, created, used, entries, bytes,
    deleted FROM tree ORDER BY number"""
_LAST_NUMBER: Final = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'tree'"
_ALIASES: Final = "SELECT account, name, target FROM alias"
_TWICE: Final = """
    SELECT account, kind, place, name FROM tree WHERE deleted IS NULL
    GROUP BY account, kind, place, name HAVING count(*) > 1"""
_ALIAS_AND_IMAGE: Final = """
    SELECT a.account, a.name FROM alias a JOIN tree t ON t.account = a.account
    AND t.name = a.name AND t.kind = 'image' AND t.place = '' AND t.deleted IS NULL"""
_SHARES: Final = """
    SELECT s.image, s.grantee, t.account, g.name FROM share s
    LEFT JOIN tree t ON t.number = s.image AND t.kind = 'image' AND t.state = 'sealed'
    AND t.deleted IS NULL
    LEFT JOIN grantee g ON g.account = t.account AND g.name = s.grantee"""
_STATES: Final = {
    Kind.IMAGE: {State.DRAFT, State.SEALED},
    Kind.INSTANCE: {State.LIVE},
}


def check(connection: sqlite3.Connection) -> Iterator[str]:
    """What is wrong, one sentence each; may raise sqlite3.Error where it cannot be read."""
    for (line,) in connection.execute(_INTEGRITY):
        if line != "ok":
            yield f"Database: {line}"
    (last,) = connection.execute(_LAST_NUMBER).fetchone()
    for row in connection.execute(_TREES):
        for wrong in _check_tree(*row):
            yield f"Tree {row[0]} ({row[1]} {row[3]}/{row[4]} of {row[2]}): {wrong}"
        if row[0] > last:
            yield f"Tree {row[0]}: numbers up to {last} were given out"
    for account, kind, place, name in connection.execute(_TWICE):
        yield f"Account {account} has the {kind} {place}/{name} twice"
    yield from _check_aliases(connection)
    yield from _check_shares(connection)


def _check_tree(
    number: Any, kind: Any, account: Any, place: Any, name: Any, state: Any, manifest: Any,
    created: Any, used: Any, entries: Any, size: Any, deleted: Any,
) -> Iterator[str]:  # fmt: skip
    if not 0 < number <= _MAX_NUMBER:
        yield "no tree can have this number"
    if kind not in set(Kind) or state not in _STATES[Kind(kind)]:
        yield f"no {kind} can be {state}"
        return
    is_image = kind == Kind.IMAGE
    yield from _check_name(check_image_name if is_image else check_name, name)
    yield from _check_name(check_name, account)
    if not is_image:
        yield from _check_name(parse_image, place)
    elif place:
        yield from _check_name(check_name, place)
    if manifest is None and state != State.DRAFT:
        yield "it has no tree"
    elif manifest is not None and not _is_id(manifest):
        yield "its manifest is no object id"
    known = isinstance(entries, int) and isinstance(size, int) and entries >= 0 and size >= 0
    if state == State.SEALED and not known:
        yield f"a sealed image with {entries} entries and {size} bytes"
    if not isinstance(created, int) or not isinstance(deleted, int | None):
        yield f"created at {created}, deleted at {deleted}"
    if used not in (0, 1):
        yield f"used is {used}"


def _check_aliases(connection: sqlite3.Connection) -> Iterator[str]:
    for account, name, target in connection.execute(_ALIASES):
        for text in (name, target):
            for wrong in _check_name(check_image_name, text):
                yield f"Alias {name} of {account}: {wrong}"
    for account, name in connection.execute(_ALIAS_AND_IMAGE):
        yield f"Account {account} has the image {name} and an alias of that name"


def _check_shares(connection: sqlite3.Connection) -> Iterator[str]:
    for image, grantee, owner, name in connection.execute(_SHARES):
        what = f"Tree {image} is shared with {grantee}"
        if owner is None:
            yield f"{what} and no sealed image"
        elif name is None:
            yield f"{what} of whom {owner} does not know"


def _check_name(check: Callable[[str], object], text: Any) -> Iterator[str]:
    try:
        check(text if isinstance(text, str) else repr(text))
    except InvalidName as error:
        yield str(error)


def _is_id(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) == OBJECT_ID_SIZE
