"""Values as people read them: sizes, times, columns, names that are safe for a terminal."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Sequence

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_STEP = 1024
_SECOND_NS = 1_000_000_000


def size(value: int | None) -> str:
    """Bytes with three digits or so and a unit: `206 MiB`."""
    if value is None:
        return "-"
    number, unit = float(value), 0
    while number >= _STEP and unit < len(_UNITS) - 1:
        number, unit = number / _STEP, unit + 1
    digits = 1 if unit and number < 10 else 0
    return f"{number:.{digits}f} {_UNITS[unit]}"


def count(value: int | None) -> str:
    """A number with its thousands set apart: `6,768`."""
    return "-" if value is None else f"{value:,}"


def counted(value: int, one: str, more: str = "") -> str:
    """A number of things: `1 image`, `6,768 images`; `more` where that is not `one` with an s."""
    return f"{count(value)} {one if value == 1 else more or one + 's'}"


def moment(ns: int | None) -> str:
    """A time in the local zone, to the second."""
    if not ns:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ns // _SECOND_NS))


def safe(text: str) -> str:
    """The text with what would steer a terminal made visible."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def width(text: str) -> int:
    """The columns of a terminal that the text takes: two for 語, none for a combining accent."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def columns(titles: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> list[str]:
    """Aligned lines; the columns whose titles stand in `right` are aligned to the right."""
    table = [list(titles), *([safe(cell) for cell in row] for row in rows)]
    widths = [max(map(width, column)) for column in zip(*table, strict=True)]
    flush = [title in right.split() for title in titles]
    return ["  ".join(map(_filled, row, widths, flush)).rstrip() for row in table]


def _filled(cell: str, columns: int, to_right: bool) -> str:
    space = " " * (columns - width(cell))
    return space + cell if to_right else cell + space
