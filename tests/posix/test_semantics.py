"""Every case sees the same on imagefs as on ext4, or exactly what docs/differences.md says."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.acceptance.fixtures import ROOT
from tests.posix import (  # noqa: F401 - they put their cases on the list
    cases_attributes,
    cases_data,
    cases_imagefs,
    cases_interfaces,
    cases_listing,
    cases_locks,
    cases_names,
    cases_open,
    cases_paths,
    cases_renames,
    cases_rights,
    cases_xattrs,
)
from tests.posix.case import CASES, By, Case
from tests.posix.observe import Seen
from tests.posix.stages import Stage, stages

pytestmark = [pytest.mark.mount, pytest.mark.root]

WHERE = {
    By.ROOT: ("fresh", "came", "draft"),
    By.USER: ("fresh-shared", "came-shared", "private"),
    By.CAST: ("fresh-shared", "came-shared"),
}
PARTS = [(case, by) for case in CASES for by in case.by]
PLAYS = [
    pytest.param(case, by, where, id=f"{case.name}-{by.value}-{where}")
    for case, by in PARTS
    for where in WHERE[by]
    if case.private or where != "private"
]


@pytest.fixture(scope="module")
def places(user_checkout: Path) -> Iterator[dict[str, Stage]]:
    with stages(PARTS, user_checkout) as found:
        yield found


@cache
def on_ext4(stage: Stage, case: Case, by: By) -> Seen:
    return stage.play(case, by)


@pytest.mark.parametrize(("case", "by", "where"), PLAYS)
def test_like_ext4(case: Case, by: By, where: str, places: dict[str, Stage]) -> None:
    expected = on_ext4(places["ext4"], case, by)
    differs = {**case.differs, **(case.privately if where == "private" else {})}
    wanted = {**expected, **{name: other.value for name, other in differs.items()}}
    seen = places[where].play(case, by)
    unlike = [name for name in {**wanted, **seen} if seen.get(name) != wanted.get(name)]
    told = (f"{name}: {seen.get(name)!r} and not {wanted.get(name)!r}" for name in unlike)
    assert not unlike, "\n".join(told)
    same = [name for name, other in differs.items() if expected.get(name) == other.value]
    assert not same, f"No difference any more: {same}"


def test_every_difference_has_its_row() -> None:
    text = (ROOT / "docs/differences.md").read_text()
    rows = set(re.findall(r"^\| ([^|]+?) \|", text, re.MULTILINE))
    used = {
        other.row
        for case in CASES
        for table in (case.differs, case.privately)
        for other in table.values()
    }
    assert used <= rows
