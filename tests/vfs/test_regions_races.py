"""Regions that answer late, and what happens meanwhile: listings, other accounts, a stop, a crash."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

from imagefs.errors import Busy, Cancelled, Exists, NotEmpty, NotFound, NotReady, ReadOnly
from imagefs.model import SECOND, AttributeChange
from imagefs.vfs.regions import LATELY
from tests.vfs.conftest import ANN
from tests.vfs.test_regions import Machine, fill, machine, published

P = ParamSpec("P")
T = TypeVar("T")


class SlowMachine(Machine):
    """A machine on which time passes while a region works, and things happen."""

    takes = 0
    """How long (ns) each piece of work takes."""

    meanwhile: Callable[[], object] | None = None
    """What happens between the end of each piece of work and the time when that is known."""

    def run(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            try:
                return step(*args, **kwargs)
            except NotReady as needed:
                if needed.work is None:
                    raise
                result = needed.work()
                self.now += self.takes
                meanwhile, self.meanwhile = self.meanwhile, None
                if meanwhile is not None:
                    meanwhile()
                    self.meanwhile = meanwhile
                if needed.finish is not None:
                    needed.finish(result)


@pytest.fixture
def url(tmp_path: Path) -> str:
    (tmp_path / "eu").mkdir()
    return f"file://{tmp_path / 'eu'}"


@pytest.fixture
def here(tmp_path: Path, url: str) -> Iterator[Machine]:
    yield from machine(tmp_path / "here", url)


@pytest.fixture(params=["slow", "listing"])
def slow(request: pytest.FixtureRequest, tmp_path: Path, url: str) -> Iterator[SlowMachine]:
    """A machine at home in a region: each request takes longer than any answer lasts, or a listing
    tells of what was done before that is known otherwise."""
    opened = SlowMachine(tmp_path / "slow", url, "eu")
    if request.param == "slow":
        opened.takes = 2 * LATELY
    else:
        opened.meanwhile = lambda: list_aside(opened)
    yield opened
    assert [problem.message for problem in opened.problems()] == []
    opened.close()


def list_aside(view: Machine) -> None:
    """What somebody else's look at the region makes known."""
    for needed in listing_of(view):
        assert needed.work is not None
        assert needed.finish is not None
        needed.finish(needed.work())


def listing_of(view: Machine) -> list[NotReady]:
    """The work that lists the region, whenever it was listed last."""
    view.now += 2 * LATELY
    try:
        view.vfs.lifecycle.regions.refresh("eu", LATELY)
    except NotReady as needed:
        return [needed]
    return []


# -- what was done is found to be done --------------------------------------------------


def test_everything_is_published(slow: SlowMachine) -> None:
    published(slow)
    slow.mkdir("instances/web/one")
    slow.lifecycle("commit", "web/one", "committed")
    slow.rename("instances/web/one", "images/promoted")
    assert slow.lifecycle("copy", "committed", "local").reference == "regions/local/committed"
    slow.rmdir("images/committed")
    assert slow.lifecycle("copy", "regions/local/committed", "eu").reference == "committed"
    assert slow.ls("images") == ["committed", "promoted", "web"]
    assert slow.ls("instances/web") == []


def test_images_are_renamed(slow: SlowMachine) -> None:
    published(slow)
    slow.rename("images/web", "images/web2")
    assert slow.ls("images") == ["web2"]
    assert slow.read("images/web2/etc/motd") == b"hello\n"
    with pytest.raises(NotFound):
        slow.rename("images/web", "images/web3")


def test_images_are_deleted_and_brought_back(slow: SlowMachine) -> None:
    published(slow)
    for delete in (lambda: slow.rmdir("images/web"), lambda: slow.lifecycle("remove", "web")):
        delete()
        assert slow.ls("images") == []
        with pytest.raises(NotFound):
            delete()
        assert slow.lifecycle("undelete", "web").state == "sealed"
        with pytest.raises(Exists):
            slow.lifecycle("undelete", "web")
        assert slow.ls("images") == ["web"]


def test_images_are_shared_and_that_ends(slow: SlowMachine) -> None:
    published(slow)
    slow.mkdir("shared/to/bob")
    slow.symlink("../../../images/web", "shared/to/bob/web")
    with pytest.raises(Exists):
        slow.symlink("../../../images/web", "shared/to/bob/web")
    with pytest.raises(NotEmpty):
        slow.rmdir("shared/to/bob")
    assert slow.lifecycle("share", "web", ["carol", "bob"]).shared_with == ["bob", "carol"]
    slow.unlink("shared/to/bob/web")
    assert slow.lifecycle("unshare", "web", ["carol"]).shared_with == []
    with pytest.raises(NotFound):
        slow.lifecycle("unshare", "web", ["carol"])
    slow.rmdir("shared/to/bob")
    assert slow.ls("images") == ["web"]


def test_what_began_before_a_change_does_not_take_it_back(here: Machine) -> None:
    published(here)
    published(here, "db")
    here.lifecycle("copy", "web", "eu")
    (before,) = listing_of(here)
    assert before.work is not None
    assert before.finish is not None
    listed = before.work()
    here.lifecycle("copy", "db", "eu")
    here.lifecycle("remove", "regions/eu/web")
    number = here.node("regions/eu/db")
    before.finish(listed)
    assert here.ls("regions/eu") == ["db"]
    assert here.node("regions/eu/db") == number
    list_aside(here)
    assert here.ls("regions/eu") == ["db"]


def test_many_slow_regions_are_listed_in_the_end(tmp_path: Path, url: str) -> None:
    view = SlowMachine(tmp_path / "slow", url)
    for number in range(6):
        (tmp_path / f"r{number}").mkdir()
        view.lifecycle("regions.add", f"r{number}", f"file://{tmp_path}/r{number}")
    published(view)
    view.lifecycle("copy", "web", "r3")
    view.takes = SECOND
    (listed,) = view.lifecycle("descriptions.regional")
    assert listed.reference == "regions/r3/web"
    view.lifecycle("remove", "regions/r3/web")
    (deleted,) = view.lifecycle("descriptions.regional", True)
    assert deleted.reference == "regions/r3/web"
    view.close()


# -- drafts, crashes, stops -------------------------------------------------------------


def test_a_crash_right_after_publishing_leaves_a_draft_that_can_be_sealed(here: Machine) -> None:
    fill(here, "regions/eu/web")
    with pytest.raises(NotReady) as raised:
        here.vfs.lifecycle.require_sealed(here.vfs.lifecycle.row("regions/eu/web"))
    assert raised.value.work is not None
    sealed, _ = raised.value.work()
    here.remount()
    here.chmod("regions/eu/web", 0o555)
    assert here.attribute("regions/eu/web", "state") == "sealed"
    assert here.attribute("regions/eu/web", "digest") == f"blake3:{sealed.manifest.hex()}"


def test_a_copy_that_begins_while_all_end_ends_too(here: Machine) -> None:
    published(here)
    here.vfs.lifecycle.regions.cancel()
    with pytest.raises(Cancelled):
        here.lifecycle("copy", "web", "eu")
    assert here.vfs.lifecycle.regions.copies("eu") == []
    here.remount()
    here.lifecycle("copy", "web", "eu")


def test_a_draft_whose_publication_was_ended_stays_a_draft(here: Machine, url: str) -> None:
    fill(here, "regions/eu/web")
    with pytest.raises(NotReady) as raised:
        here.vfs.lifecycle.require_sealed(here.vfs.lifecycle.row("regions/eu/web"))
    assert here.lifecycle("show", "regions/eu/web").state.startswith("copying")
    here.vfs.lifecycle.regions.end("eu", "web")
    assert raised.value.work is not None
    assert raised.value.finish is not None
    with pytest.raises(Cancelled):
        raised.value.finish(raised.value.work())
    assert here.lifecycle("show", "regions/eu/web").state == "draft"
    here.write("regions/eu/web/etc/motd", b"changed")
    assert not list((Path(url.removeprefix("file://")) / "copies").glob("*/*/*"))
    here.chmod("regions/eu/web", 0o555)
    assert here.read("regions/eu/web/etc/motd") == b"changed"


def test_what_is_not_known_while_a_region_is_away_is_in_doubt(
    tmp_path: Path, here: Machine
) -> None:
    (tmp_path / "eu").rename(tmp_path / "away")
    here.later()
    with pytest.raises(NotFound, match="as far as is known: region eu could not be listed"):
        here.lifecycle("show", "regions/eu/web")
    (tmp_path / "away").rename(tmp_path / "eu")


def test_nothing_else_gets_a_name_that_is_being_copied_to(here: Machine) -> None:
    published(here)
    here.ls("regions/eu")
    with pytest.raises(NotReady) as raised:
        here.vfs.lifecycle.copy("web", "eu")
    copy = raised.value
    for attempt in (
        lambda: here.mkdir("regions/eu/web"),
        lambda: here.lifecycle("copy", "web", "eu"),
        lambda: here.lifecycle("regions.remove", "eu"),
        lambda: here.rmdir("images/web"),
    ):
        with pytest.raises(Busy, match="cop"):
            attempt()
    assert copy.work is not None
    assert copy.finish is not None
    copy.finish(copy.work())
    assert here.ls("regions/eu") == ["web"]


def test_a_copied_image_stays_sealed_for_who_has_looked_it_up_before(here: Machine) -> None:
    published(here)
    node = here.node("images/web")
    here.lifecycle("copy", "web", "eu")
    with pytest.raises(ReadOnly):
        here.run(here.vfs.setattr, node, AttributeChange(mode=0o755), None, ANN)


# -- others -----------------------------------------------------------------------------


def test_the_home_of_another_account_is_not_forgotten(
    tmp_path: Path, url: str, here: Machine
) -> None:
    for bob in machine(tmp_path / "here", url, "eu", account="bob"):
        with pytest.raises(Busy, match="bob"):
            here.lifecycle("regions.remove", "eu")
        published(bob)
        assert bob.ls("images") == ["web"]


def test_an_alias_is_not_an_image_of_another_region(here: Machine) -> None:
    published(here)
    here.lifecycle("copy", "web", "eu")
    here.rename("images/web", "images/other")
    here.symlink("other", "images/web")
    here.lifecycle("remove", "regions/eu/web")
    assert here.ls("images") == ["other", "web"]
    assert here.ls("regions/eu") == []


def test_names_that_cannot_be_names_are_left_out(
    tmp_path: Path, here: Machine, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    published(here)
    here.lifecycle("copy", "web", "eu")
    descriptor = tmp_path / "eu" / "images" / "ann" / "web"
    for name in ("a%0Ab", "-x", "web.tar", "x@y"):
        (descriptor.parent / name).write_bytes(descriptor.read_bytes())
    for grantee in ("a%0Ab", ".hidden", "-x", "x@y", "bob"):
        share = tmp_path / "eu" / "shares" / grantee / "ann" / "web"
        share.parent.mkdir(parents=True)
        share.touch()
    here.later()
    assert here.ls("regions/eu") == ["web"]
    assert here.lifecycle("show", "regions/eu/web").shared_with == ["bob"]
    assert here.ls("shared/to") == ["bob"]
    assert "Region eu: 'ann/-x' is left alone" in caplog.text
    told = len(caplog.records)
    changes = here.catalog.changes
    here.now += 2 * SECOND
    assert here.ls("regions/eu") == ["web"]
    assert (len(caplog.records), here.catalog.changes) == (told, changes)
    os.unlink(tmp_path / "eu" / "shares" / "bob" / "ann" / "web")
    here.later()
    assert here.lifecycle("show", "regions/eu/web").shared_with == []


# -- what instances stand on ------------------------------------------------------------


def uses(tmp_path: Path, region: str = "eu") -> list[str]:
    found = tmp_path / region / "uses"
    return sorted(f"blake3:{path.name}" for path in found.glob("*/*"))


def test_a_use_is_said_again_after_it_was_taken_back(tmp_path: Path, url: str) -> None:
    for there in machine(tmp_path / "there", url, "eu"):
        published(there)
        there.mkdir("instances/web/one")
        digest = there.attribute("images/web", "digest")
        assert uses(tmp_path) == [digest]
        there.rename("instances/web/one", "images/promoted")
        there.lifecycle("regions.clean", "eu", 0, dry_run=False)
        there.mkdir("instances/web/two")
        assert uses(tmp_path) == [digest]


def test_another_region_of_the_name_is_told_what_is_used(tmp_path: Path, url: str) -> None:
    (tmp_path / "us").mkdir()
    for there in machine(tmp_path / "there", url, "eu"):
        published(there)
        there.lifecycle("copy", "web", "local")
        there.mkdir("instances/web/one")
        there.write("instances/web/one/etc/motd", b"mine")
        there.lifecycle("remove", "web/one")
        there.home = ""
        there.remount()
        there.lifecycle("regions.remove", "eu")
        with pytest.raises(NotFound, match="region add"):
            there.lifecycle("undelete", "web/one")
        assert there.problems() == []
        there.lifecycle("regions.add", "eu", f"file://{tmp_path}/us")
        there.lifecycle("copy", "web", "eu")
        there.home = "eu"
        there.remount()
        there.mkdir("instances/web/two")
        assert uses(tmp_path, "us") == uses(tmp_path, "eu") != []
        there.lifecycle("regions.add", "former", url)
        there.lifecycle("undelete", "web/one")
        assert there.read("instances/web/one/etc/motd") == b"mineo\n"
        assert there.read("instances/web/one/big", 16) == b"0123456789abcdef"


def test_one_work_is_not_two(here: Machine) -> None:
    """Requests that are alike are told apart by what they are about."""
    published(here)
    published(here, "db")
    here.lifecycle("copy", "web", "eu")
    here.lifecycle("copy", "db", "eu")
    here.lifecycle("remove", "regions/eu/web")
    with pytest.raises(NotFound):
        here.lifecycle("remove", "regions/eu/web")
    here.lifecycle("undelete", "regions/eu/web")
    here.lifecycle("remove", "regions/eu/web")
    assert here.ls("regions/eu") == ["db"]


def test_what_an_instance_of_a_region_has_in_the_store_is_verified(
    tmp_path: Path, url: str
) -> None:
    for there in machine(tmp_path / "there", url, "eu"):
        published(there)
        there.lifecycle("clone", "web", ["one"])
        content = os.urandom(100_000)
        there.write("instances/web/one/own", content)
        there.write("instances/web/one/big", b"mine", 500_000)
        there.lifecycle("commit", "web/one", "web-v2")
        assert there.problems() == []
        (pack,) = (path for path in (tmp_path / "there" / "packs").iterdir() if has(path, content))
        good = pack.read_bytes()
        at = good.index(content[:64]) + 32
        pack.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        there.remount()
        (problem,) = there.problems()
        assert (problem.where, problem.path) == (["instance web/one"], "/own")
        pack.write_bytes(good)
        there.remount()


def has(pack: Path, content: bytes) -> bool:
    return content[:64] in pack.read_bytes()


def test_a_gc_that_waited_knows_who_came_meanwhile(tmp_path: Path, url: str) -> None:
    for there in machine(tmp_path / "there", url, "eu"):
        published(there)
        with pytest.raises(NotReady) as raised:
            there.vfs.lifecycle.regions.clean("eu", 0, dry_run=False)
        there.mkdir("instances/web/one")
        there.rmdir("images/web")
        assert raised.value.work is not None
        raised.value.work()
        assert len(uses(tmp_path)) == 1
        there.remount()
        assert there.read("instances/web/one/big", 16) == b"0123456789abcdef"
