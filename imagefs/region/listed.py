"""One object of a region as it is listed."""

from __future__ import annotations

import msgspec


class Listed(msgspec.Struct, frozen=True, gc=False):
    """`size` in bytes; `modified` in ns since 1970 by the clock of the service, which may know
    whole seconds only, and another fraction in a listing than when asked for the one object."""

    key: str
    size: int
    modified: int
