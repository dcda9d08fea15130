"""rsync, cp and cpio between an instance and the host's file system, in both directions."""

import os
import re
from pathlib import Path

import pytest

from tests.acceptance import samples
from tests.acceptance.manifest import Manifest, assert_equal
from tests.acceptance.person import Person
from tests.programs.ending import unmounted_in_order

pytestmark = [pytest.mark.mount, pytest.mark.root]

# A window of -1: without it rsync leaves times alone that differ by less than a second.
RSYNC = ("rsync", "-aHAX", "--numeric-ids", "--itemize-changes", "--modify-window=-1")
LARGE = 1_500_000


def test_rsync_follows_changes_both_ways(root: Person, tmp_path: Path) -> None:
    """A copy is kept up to date by every way that rsync has to write a file: a new one in its place,
    in place, and behind its end; and is equal each time."""
    instance = new_instance(root)
    for source, copy in ((tmp_path / "out", instance / "in"), (instance / "from", tmp_path / "to")):
        samples.build(source, privileged=True)
        (source / "large").write_bytes(os.urandom(LARGE))
        (source / "log").write_bytes(os.urandom(LARGE))
        root.run(*RSYNC, "--sparse", f"{source}/", copy)
        assert_equal(root.manifest(source), root.manifest(copy))

        rearrange(root, source)
        root.run(*RSYNC, "--delete", "--checksum", "--no-whole-file", f"{source}/", copy)
        assert_equal(root.manifest(source), root.manifest(copy))

        change_in_place(source)
        in_place = ("--inplace", "--no-whole-file", "--checksum")
        root.run(*RSYNC, "--delete", *in_place, f"{source}/", copy)
        assert_equal(root.manifest(source), root.manifest(copy))

        for option in ("--append", "--append-verify"):
            with open(source / "log", "ab") as log:
                log.write(os.urandom(LARGE // 3))
            root.run(*RSYNC, option, f"{source}/log", copy / "log")
            assert_equal(root.manifest(source), root.manifest(copy))
        shown = root.run(*RSYNC, "--delete", "--checksum", f"{source}/", copy).stdout
        assert shown == "", "rsync found differences"
    unmounted_in_order(root)


def new_instance(root: Person) -> Path:
    root.mount()
    (root.images / "empty").mkdir()
    instance = root.instances / "empty/node"
    instance.mkdir()
    return instance


def rearrange(root: Person, source: Path) -> None:
    """Names go, come and change; contents change in length."""
    root.shell(
        f"""
        cd {source}
        rm -r names/empty special; mv links moved; ln large again; mkdir new; mv times new/
        head -c 700000 /dev/urandom >>large; truncate -s 100000 contents/size-655437
        ln -sfn elsewhere moved/relative; chmod 640 large; setfattr -n user.more -v yes large
        setfacl -m u:77:r new; chown 5:6 log; mkdir special; mkfifo special/fifo
        """
    )


def change_in_place(source: Path) -> None:
    with open(source / "large", "r+b") as large:
        for place in (0, 131_071, 600_001, LARGE):
            large.seek(place)
            large.write(b"changed here")
        large.truncate(LARGE + 77)


@pytest.mark.parametrize("sparse", ["auto", "always"])
def test_cp_keeps_everything(root: Person, tmp_path: Path, sparse: str) -> None:
    """In, within the instance and out again; what cannot be cloned by reflink is copied."""
    instance = new_instance(root)
    source = tmp_path / "source"
    samples.build(source, privileged=True)
    copy = ("cp", "-a", "--reflink=auto", f"--sparse={sparse}")
    root.run(*copy, source, instance / "in")
    root.run(*copy, instance / "in", instance / "within")
    root.run(*copy, instance / "within", tmp_path / "back")
    expected = root.manifest(source)
    if sparse == "auto":
        # The kernel does not say where the holes of a file in a mount are.
        expected = expected._replace(sparse=frozenset())
    for place in (instance / "in", instance / "within", tmp_path / "back"):
        assert_equal(expected, root.manifest(place))
    unmounted_in_order(root)


def test_cpio_keeps_what_it_keeps_elsewhere(root: Person, tmp_path: Path) -> None:
    """An archive made inside is the one made outside, and unpacks to the same; so does copying."""
    instance = new_instance(root)
    outside, inside = tmp_path / "outside", instance / "inside"
    samples.build(outside, privileged=True)
    root.run("cp", "-a", "--sparse=always", outside, inside)
    listing = "find . -print0 | LC_ALL=C sort -z | cpio --null --quiet"
    for place, name in ((outside, "a"), (inside, "b")):
        form = "--create --format=newc --reproducible --renumber-inodes"
        root.shell(f"cd {place}; {listing} {form} >{tmp_path}/{name}.cpio")
    root.run("cmp", tmp_path / "a.cpio", tmp_path / "b.cpio")
    for place in (tmp_path, instance):
        root.shell(
            f"""
            mkdir {place}/unpacked {place}/passed
            cd {place}/unpacked; cpio -idm --quiet --preserve-modification-time <{tmp_path}/a.cpio
            cd {outside}; {listing} --pass-through -dm --sparse {place}/passed
            """
        )
    for name in ("unpacked", "passed"):
        assert_equal(by_cpio(root, tmp_path / name), by_cpio(root, instance / name))
    unmounted_in_order(root)


def by_cpio(root: Person, tree: Path) -> Manifest:
    """Without the times that cpio does not set: those of directories and symlinks."""
    whole = root.manifest(tree)
    lines = {
        path: line if " file " in line else re.sub(" mtime=[0-9]+", "", line)
        for path, line in whole.lines.items()
    }
    return Manifest(lines, whole.sparse)
