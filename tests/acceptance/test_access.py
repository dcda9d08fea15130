"""Mounts that everybody may enter: the kernel decides who may do what, as it does on ext4."""

import dataclasses
import json
from pathlib import Path

import pytest

from tests.acceptance.access import Answers
from tests.acceptance.containers import on_ordinary_machine
from tests.acceptance.person import Person

pytestmark = [pytest.mark.mount, pytest.mark.root]


def ask(person: Person, tree: Path) -> Answers:
    """The matrix, by a root who may enter."""
    asked = person.run("python3", "-B", "-m", "tests.acceptance.access", tree, cwd=person.checkout)
    answers: Answers = json.loads(asked.stdout)
    return answers


@pytest.fixture
def on_ext4(root: Person, user_checkout: Path) -> Answers:
    tree = root.home / "ext4"
    tree.mkdir()
    answers = ask(dataclasses.replace(root, checkout=user_checkout), tree)
    said = set(answers.values())
    assert {"EACCES", "EPERM", "None"} <= said
    assert len(answers) > 400
    return answers


def differing(here: Answers, there: Answers) -> dict[str, tuple[str, str]]:
    assert here.keys() == there.keys()
    return {what: (here[what], there[what]) for what in here if here[what] != there[what]}


def test_a_mount_of_root_for_everybody(root: Person, user_checkout: Path, on_ext4: Answers) -> None:
    root.mount("--allow-other")
    tree = root.images / "draft"
    tree.mkdir()
    answers = ask(dataclasses.replace(root, checkout=user_checkout), tree)
    assert differing(answers, on_ext4) == {}


def test_a_mount_of_an_ordinary_user_for_everybody(user: Person, on_ext4: Answers) -> None:
    """Where /etc/fuse.conf allows it, as it does here for this command alone."""
    own = " ".join([*user.prefix, f"{user.checkout}/tools/imagefs"])
    root = dataclasses.replace(user, name="root", prefix=())
    with on_ordinary_machine(root) as there:
        said = there.shell(
            f"""
            {own} mount ~/cloud --allow-other >&2
            mkdir ~/cloud/images/draft
            cd {user.checkout}
            python3 -B -m tests.acceptance.access ~/cloud/images/draft
            {own} umount ~/cloud
            """
        ).stdout
    assert differing(json.loads(said), on_ext4) == {}
