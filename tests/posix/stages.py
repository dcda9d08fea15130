"""Where cases run: directories of ext4, and of instances and drafts in three mounts."""

import os
import pwd
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.acceptance.child import become, in_child
from tests.acceptance.fixtures import ROOT, at_home, ordinary_user, somebody
from tests.acceptance.manifest import assert_equal
from tests.acceptance.mounts import new_folder, remove_folder
from tests.acceptance.person import Person
from tests.posix.case import By, Case
from tests.posix.observe import Seen
from tests.posix.people import EXTRA_GROUP
from tests.umask import umask

NO_ALARM = re.compile("(?!)")


@dataclass(frozen=True)
class Stage:
    """A directory in which every case gets one of its own; `came` says that those are there
    already, as part of the image, and `private` that nobody but the ordinary user gets in."""

    folder: Path
    came: bool = False
    private: bool = False

    def play(self, case: Case, by: By) -> Seen:
        """Run a case and return what it saw."""
        return in_child(partial(_play, self, case, by))


def _play(stage: Stage, case: Case, by: By) -> Seen:
    os.umask(0o022)
    if stage.private:
        _become_user()
    directory = stage.folder / directory_of(case, by)
    if not stage.came:
        set_up(case, by, directory)
    os.chdir(directory)
    if by is By.USER and not stage.private:
        _become_user()
    return case.act()


def _become_user() -> None:
    user = ordinary_user()
    become(user.pw_uid, user.pw_gid, (EXTRA_GROUP,))


def directory_of(case: Case, by: By) -> str:
    return f"{by.value}-{case.name}"


def set_up(case: Case, by: By, directory: Path) -> None:
    """Make the directory of a case with what it holds."""
    directory.mkdir()
    os.chdir(directory)
    case.prepare()
    if by is By.USER and os.geteuid() == 0:
        give_away(directory, ordinary_user())
    os.chdir("/")


def give_away(directory: Path, user: pwd.struct_passwd) -> None:
    """Let everything belong to the user; modes stay as they are."""
    for top, folders, names in os.walk(directory):
        for path in (top, *(os.path.join(top, name) for name in (*folders, *names))):
            mode = os.lstat(path).st_mode
            os.lchown(path, user.pw_uid, user.pw_gid)
            if not stat.S_ISLNK(mode):
                os.chmod(path, stat.S_IMODE(mode))


def set_up_all(cases: Sequence[tuple[Case, By]], folder: Path) -> None:
    for case, by in cases:
        with umask(0o022):
            set_up(case, by, folder / directory_of(case, by))


@contextmanager
def stages(cases: Sequence[tuple[Case, By]], checkout: Path) -> Iterator[dict[str, Stage]]:
    """All stages by name: ext4, and those of root's own mount, of one that lets everybody in,
    and of the ordinary user's private one."""
    folder = new_folder()
    try:
        plain, source = folder / "ext4", folder / "source"
        plain.mkdir()
        source.mkdir()
        in_child(partial(set_up_all, cases, source))
        with (
            _root(source) as own,
            _root(source, "--allow-other") as shared,
            _user(checkout) as private,
        ):
            yield {"ext4": Stage(plain), **own, **shared, **private}
    finally:
        remove_folder(folder)


@contextmanager
def _root(source: Path, *options: str) -> Iterator[dict[str, Stage]]:
    person = Person("root", new_folder(), ROOT)
    for root in at_home(person, NO_ALARM):
        root.mount("--seal-after", "0", *options)
        root.imagefs("import", source, "came")
        root.images.joinpath("draft").mkdir()
        root.images.joinpath("small").mkdir()
        root.imagefs("seal", "small")
        came, fresh = root.instances / "came/one", root.instances / "small/one"
        came.mkdir()
        fresh.mkdir()
        names = {"fresh": Stage(fresh), "came": Stage(came, came=True)}
        names["draft"] = Stage(root.images / "draft")
        suffix = "-shared" if options else ""
        yield {name + suffix: stage for name, stage in names.items()}
        if not options:
            _survives(root, came)


def _survives(person: Person, tree: Path) -> None:
    """All that the cases left of the image's files is the same after a remount."""
    before = person.manifest(tree)
    person.unmount()
    person.mount("--seal-after", "0")
    assert_equal(before, person.manifest(tree))


@contextmanager
def _user(checkout: Path) -> Iterator[dict[str, Stage]]:
    for user in at_home(somebody(checkout), NO_ALARM):
        user.mount("--seal-after", "0")
        user.run("mkdir", user.images / "small")
        user.imagefs("seal", "small")
        user.run("mkdir", user.instances / "small/one")
        yield {"private": Stage(user.instances / "small/one", private=True)}
