"""Regions as one account sees them through its mount: two stores stand for two machines."""

from __future__ import annotations

import errno
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imagefs.errors import (
    Busy,
    Exists,
    InvalidArgument,
    NotFound,
    NotPermitted,
    PlaceGone,
    ReadOnly,
)
from imagefs.model import SECOND
from imagefs.vfs import MountOptions
from imagefs.vfs.regions import RETRY_AFTER
from tests.vfs.conftest import View

OPTIONS = MountOptions(uid=0, gid=0, enforced=True)


class Machine(View):
    """A view whose home may be a region."""

    def __init__(self, directory: Path, url: str | None, home: str = "", **named: Any) -> None:
        self.url = url
        self.home = home
        super().__init__(directory, OPTIONS, **named)

    def open(self) -> None:
        super().open()
        if self.url is not None and self.catalog.region("eu") is None:
            self.lifecycle("regions.add", "eu", self.url)
        if self.catalog.home(self.account) != self.home:
            self.catalog.set_home(self.account, self.home)
            self.remount()

    def later(self) -> None:
        """So long that what other machines did is seen."""
        self.now += 60 * SECOND

    def objects(self) -> int:
        return self.store.statistics().objects


@pytest.fixture
def url(tmp_path: Path) -> str:
    (tmp_path / "eu").mkdir()
    return f"file://{tmp_path / 'eu'}"


@pytest.fixture
def here(tmp_path: Path, url: str) -> Iterator[Machine]:
    yield from machine(tmp_path / "here", url)


@pytest.fixture
def there(tmp_path: Path, url: str) -> Iterator[Machine]:
    """Another machine, which shows the region's images in images/."""
    yield from machine(tmp_path / "there", url, "eu")


def machine(directory: Path, url: str | None, home: str = "", **named: Any) -> Iterator[Machine]:
    opened = Machine(directory, url, home, **named)
    yield opened
    assert [problem.message for problem in opened.problems()] == []
    opened.close()


def fill(view: View, image: str, content: bytes = b"hello\n") -> None:
    view.mkdir(image)
    view.mkdir(f"{image}/etc")
    view.write(f"{image}/etc/motd", content)
    view.write(f"{image}/big", b"0123456789abcdef" * 40_000)


def published(view: View, name: str = "web", content: bytes = b"hello\n") -> None:
    fill(view, f"images/{name}", content)
    view.lifecycle("seal", name)


# -- copies -----------------------------------------------------------------------------


def test_a_copy_is_there_for_other_machines(here: Machine, there: Machine) -> None:
    published(here)
    copied = here.lifecycle("copy", "web", "eu")
    assert copied.reference == "regions/eu/web"
    assert copied.region == "eu"
    assert there.ls("images") == ["web"]
    assert there.read("images/web/etc/motd") == b"hello\n"
    assert there.attribute("images/web", "digest") == here.attribute("images/web", "digest")
    assert here.attribute("regions/eu/web", "digest") == here.attribute("images/web", "digest")


def test_the_regions_and_the_home_region_among_them(here: Machine, there: Machine) -> None:
    published(here)
    assert here.ls("regions") == there.ls("regions") == ["eu", "local"]
    assert here.run(here.vfs.readlink, here.node("regions/local")) == b"../images"
    assert there.run(there.vfs.readlink, there.node("regions/eu")) == b"../images"
    assert here.ls("regions/eu") == []
    assert there.ls("regions/local") == []


def test_a_draft_in_a_region_is_published_when_it_is_sealed(here: Machine, there: Machine) -> None:
    fill(here, "regions/eu/web")
    assert here.ls("regions/eu") == ["web"]
    assert here.ls("images") == []
    assert there.ls("images") == []
    here.chmod("regions/eu/web", 0o555)
    there.later()
    assert there.read("images/web/etc/motd") == b"hello\n"
    with pytest.raises(ReadOnly):
        here.write("regions/eu/web/etc/motd", b"changed")
    with pytest.raises(ReadOnly):
        here.chmod("regions/eu/web", 0o755)


def test_time_seals_and_publishes_too(here: Machine, there: Machine) -> None:
    fill(here, "regions/eu/web")
    here.settle()
    here.settle()
    assert here.attribute("regions/eu/web", "state") == "sealed"
    assert there.ls("images") == ["web"]


def test_a_copy_back_needs_the_region_no_more(
    tmp_path: Path, here: Machine, there: Machine
) -> None:
    published(there)
    copied = here.lifecycle("copy", "regions/eu/web", "local")
    assert copied.reference == "web"
    for path in (tmp_path / "eu" / "packs").iterdir():
        path.unlink()
    here.remount()
    here.mkdir("instances/web/one")
    assert here.read("instances/web/one/etc/motd") == b"hello\n"
    assert here.read("instances/web/one/big", 32) == b"0123456789abcdef" * 2


def test_what_is_there_already_does_not_travel(here: Machine) -> None:
    published(here)
    before = here.lifecycle("plan_copy", "web", "eu")
    assert before.objects > 3
    here.lifecycle("copy", "web", "eu")
    here.mkdir("instances/web/one")
    here.write("instances/web/one/etc/motd", b"changed")
    here.lifecycle("commit", "web/one", "web-v2")
    after = here.lifecycle("plan_copy", "web-v2", "eu")
    assert 0 < after.objects <= 5
    assert after.bytes < before.bytes


def test_copies_that_cannot_be(here: Machine, there: Machine) -> None:
    published(here)
    fill(here, "images/draft")
    for reference, region, error in (
        ("web", "us", NotFound),
        ("web", "local", InvalidArgument),
        ("none", "eu", NotFound),
        ("web@bob", "eu", NotFound),
        ("regions/us/web", "local", NotFound),
    ):
        with pytest.raises(error):
            here.lifecycle("copy", reference, region)
    with pytest.raises(Busy, match="draft"):
        here.lifecycle("plan_copy", "draft", "eu")
    published(there)
    with pytest.raises(Exists):
        here.lifecycle("copy", "web", "eu")
    with pytest.raises(Exists):
        here.lifecycle("copy", "regions/eu/web", "local")


def test_moves_that_would_copy_are_refused(here: Machine) -> None:
    published(here)
    here.lifecycle("copy", "web", "eu")
    here.mkdir("instances/web/one")
    for old, new in (
        ("images/web", "regions/eu/other"),
        ("regions/eu/web", "images/other"),
        ("instances/web/one", "regions/eu/other"),
    ):
        with pytest.raises(NotPermitted):
            here.rename(old, new)


# -- a region as home -------------------------------------------------------------------


def test_instances_are_made_at_once_and_fetch_what_they_read(here: Machine, there: Machine) -> None:
    published(here)
    here.lifecycle("copy", "web", "eu")
    there.later()
    there.mkdir("instances/web/one")
    before = there.objects()
    assert there.read("instances/web/one/etc/motd") == b"hello\n"
    there.write("instances/web/one/etc/motd", b"changed", 2)
    assert there.read("instances/web/one/etc/motd") == b"hechanged"
    assert there.objects() == before
    there.remount()
    assert there.read("instances/web/one/etc/motd") == b"hechanged"


def test_instances_are_listed_while_nothing_of_their_image_can_be_had(
    tmp_path: Path, there: Machine
) -> None:
    published(there)
    there.mkdir("instances/web/one")
    (tmp_path / "eu").rename(tmp_path / "away")
    shutil.rmtree(there.directory / "regions")
    there.remount()
    (told,) = there.lifecycle("descriptions.instances")
    assert (told.reference, told.entries) == ("web/one", 3)
    assert there.ls("instances/web") == ["one"]
    (tmp_path / "away").rename(tmp_path / "eu")
    there.remount()
    assert there.read("instances/web/one/etc/motd") == b"hello\n"


def test_an_instance_becomes_an_image_of_the_region(here: Machine, there: Machine) -> None:
    published(there)
    there.mkdir("instances/web/one")
    there.write("instances/web/one/etc/motd", b"changed")
    there.rename("instances/web/one", "images/web-v2")
    assert here.ls("regions/eu") == ["web", "web-v2"]
    assert here.read("regions/eu/web-v2/etc/motd") == b"changed"
    assert here.read("regions/eu/web-v2/big", 16) == b"0123456789abcdef"
    there.mkdir("instances/web-v2/one")
    committed = there.lifecycle("commit", "web-v2/one", "web-v3")
    here.later()
    assert here.attribute("regions/eu/web-v3", "digest") == committed.digest


def test_an_instance_of_a_region_becomes_an_image_of_the_store(
    tmp_path: Path, there: Machine
) -> None:
    published(there)
    there.mkdir("instances/web/one")
    there.write("instances/web/one/etc/motd", b"changed")
    there.home = ""
    there.remount()
    committed = there.lifecycle("commit", "web/one", "mine")
    assert committed.region is None
    for path in (tmp_path / "eu" / "packs").iterdir():
        path.unlink()
    there.remount()
    assert there.read("images/mine/big", 16) == b"0123456789abcdef"


def test_only_images_of_the_home_region_are_cloned(here: Machine) -> None:
    published(here)
    here.lifecycle("copy", "web", "eu")
    with pytest.raises(NotPermitted, match="--region eu"):
        here.lifecycle("clone", "regions/eu/web", ["one"])


def test_what_instances_stand_on_outlives_its_image(here: Machine, there: Machine) -> None:
    published(there)
    there.mkdir("instances/web/one")
    there.rmdir("images/web")
    assert there.ls("images") == []
    here.later()
    here.lifecycle("regions.clean", "eu", 0, dry_run=False)
    there.remount()
    assert there.read("instances/web/one/big", 16) == b"0123456789abcdef"
    there.lifecycle("remove", "web/one")


def test_both_machines_publish_one_name(here: Machine, there: Machine) -> None:
    fill(here, "regions/eu/web")
    published(there, content=b"theirs")
    with pytest.raises(Exists):
        here.chmod("regions/eu/web", 0o555)
    assert here.read("regions/eu/web/etc/motd") == b"hello\n"
    here.rename("regions/eu/web", "regions/eu/web2")
    here.chmod("regions/eu/web2", 0o555)
    here.later()
    assert here.read("regions/eu/web/etc/motd") == b"theirs"
    there.later()
    assert there.ls("images") == ["web", "web2"]


# -- deleting ---------------------------------------------------------------------------


def test_deleted_there_and_brought_back(here: Machine, there: Machine) -> None:
    published(there)
    assert here.ls("regions/eu") == ["web"]
    here.rmdir("regions/eu/web")
    assert here.ls("regions/eu") == []
    there.later()
    assert there.ls("images") == []
    (deleted,) = there.lifecycle("descriptions.images", True)
    assert deleted.name == "web"
    assert deleted.deleted
    there.lifecycle("undelete", "web")
    here.later()
    assert here.read("regions/eu/web/etc/motd") == b"hello\n"


def test_published_images_are_renamed(here: Machine, there: Machine) -> None:
    published(there)
    published(there, "db")
    there.rename("images/web", "images/web2")
    with pytest.raises(Exists):
        there.rename("images/web2", "images/db")
    assert here.ls("regions/eu") == ["db", "web2"]


def test_a_region_with_instances_here_is_not_forgotten(there: Machine, here: Machine) -> None:
    published(there)
    there.mkdir("instances/web/one")
    there.home = ""
    there.remount()
    with pytest.raises(Busy, match="web/one"):
        there.lifecycle("regions.remove", "eu")
    there.lifecycle("remove", "web/one")
    assert here.ls("regions/eu") == ["web"]
    here.lifecycle("regions.remove", "eu")
    assert here.ls("regions") == ["local"]


# -- sharing ----------------------------------------------------------------------------


def test_shares_work_across_machines(tmp_path: Path, url: str, there: Machine) -> None:
    published(there)
    there.mkdir("shared/to/bob")
    there.symlink("../../../images/web", "shared/to/bob/web")
    with pytest.raises(Busy, match="bob"):
        there.rmdir("images/web")
    for bob in machine(tmp_path / "bob", url, "eu", account="bob"):
        assert bob.ls("images") == []
        assert bob.ls("shared/from/ann") == ["web"]
        bob.mkdir("instances/web@ann/one")
        assert bob.read("instances/web@ann/one/etc/motd") == b"hello\n"
        for verb, arguments in (("copy", ("web@ann", "local")), ("remove", ("web@ann",))):
            with pytest.raises(NotPermitted):
                bob.lifecycle(verb, *arguments)
        there.unlink("shared/to/bob/web")
        bob.later()
        assert not bob.exists("shared/from/ann/web")
        assert bob.read("instances/web@ann/one/etc/motd") == b"hello\n"
        assert bob.lifecycle("commit", "web@ann/one", "own").owner == "bob"
    there.rmdir("images/web")


# -- failures ---------------------------------------------------------------------------


def test_a_region_that_is_away_lists_what_is_known(
    tmp_path: Path, here: Machine, there: Machine
) -> None:
    published(there)
    published(here, "mine")
    assert here.ls("regions/eu") == ["web"]
    assert here.read("regions/eu/web/etc/motd") == b"hello\n"
    (tmp_path / "eu").rename(tmp_path / "away")
    here.later()
    assert here.ls("regions/eu") == ["web"]
    assert here.read("regions/eu/web/etc/motd") == b"hello\n"
    assert here.read("images/mine/etc/motd") == b"hello\n"
    (region,) = here.vfs.lifecycle.regions.all()
    assert region.failure
    with pytest.raises(NotFound, match="not there"):
        here.lifecycle("copy", "mine", "eu")
    (tmp_path / "away").rename(tmp_path / "eu")
    assert here.vfs.next_due() is not None
    here.now += RETRY_AFTER
    here.tick()
    here.lifecycle("copy", "mine", "eu")
    assert here.ls("regions/eu") == ["mine", "web"]
    (region,) = here.vfs.lifecycle.regions.all()
    assert region.failure is None


def test_what_lies_in_a_place_that_is_not_there_is_not_lost(
    tmp_path: Path, here: Machine, there: Machine
) -> None:
    content = random.Random(1).randbytes(1 << 20)
    published(there)
    published(there, "cold", content)
    assert here.ls("regions/eu") == ["cold", "web"]
    assert here.read("regions/eu/web/etc/motd") == b"hello\n"
    assert here.ls("regions/eu/cold/etc") == ["motd"]
    (tmp_path / "eu").rename(tmp_path / "away")
    with pytest.raises(PlaceGone, match="not there") as refused:
        here.read("regions/eu/cold/etc/motd")
    assert refused.value.errno == errno.EIO
    (tmp_path / "away").rename(tmp_path / "eu")
    assert here.read("regions/eu/cold/etc/motd") == content


def test_regions_that_cannot_be_added(tmp_path: Path, here: Machine, url: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").write_text("else")
    for name, where, error in (
        ("eu", url, Exists),
        ("local", url, InvalidArgument),
        ("us", "nonsense", InvalidArgument),
        ("us", f"file://{tmp_path}/full", InvalidArgument),
    ):
        with pytest.raises(error):
            here.lifecycle("regions.add", name, where)
    assert here.ls("regions") == ["eu", "local"]
