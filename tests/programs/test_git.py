"""git with a long history in an instance, step by step the same as on the host's file system."""

import random
from collections.abc import Iterator

import pytest

from tests.acceptance.person import Person
from tests.programs.ending import unmounted_in_order

pytestmark = [pytest.mark.mount, pytest.mark.root]

COMMITS = 3000
FOLDERS = 40
FILES = 800
CHANGES = 4
SCRIPT = """
    cd "$1"; history=$2
    export GIT_CONFIG_GLOBAL=$1/config GIT_CONFIG_NOSYSTEM=1
    git config --global user.name A; git config --global user.email a@b
    export GIT_AUTHOR_DATE=@1600000000 GIT_COMMITTER_DATE=@1600000000
    git config --global gc.auto 0; git config --global init.defaultBranch main
    git config --global protocol.file.allow always; git config --global advice.detachedHead false
    git init -q --bare origin
    git -C origin fast-import --quiet <"$history"
    git -C origin fsck --strict
    git -C origin count-objects -v | grep in-pack
    git -C origin cat-file --batch-all-objects --batch-check | sha256sum

    git clone -q origin linked
    git clone -q --no-hardlinks "file://$1/origin" copied
    # The newest part of the history as loose objects, one file each.
    git init -q loose
    git -C origin rev-list --objects main~150..main | cut -d' ' -f1 |
        git -C origin pack-objects --stdout -q | git -C loose unpack-objects -q
    git -C loose count-objects
    git -C loose cat-file --batch-all-objects --batch-check | sha256sum

    cd copied
    for back in 2900 1 1500 700 2999; do
        git checkout -q main~$back
        test -z "$(git status --porcelain --ignored)"
        git ls-files -s | sha256sum
        git write-tree
        find . -path ./.git -prune -o -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum
    done
    git checkout -q main
    git worktree add -q ../tree -b side main~1000
    (cd ../tree; git status --porcelain; echo more >>f1/1; git commit -qam side; git rev-parse HEAD^{tree})
    git merge -q side -m merge -X ours; git rev-parse HEAD^{tree}
    git diff --stat main~50 | tail -1
    git repack -adq; git gc -q --prune=now; git fsck --strict --full
    git worktree remove ../tree; git branch -qD side
    git reset -q --hard main~10; git clean -fdxq; git reflog expire --expire=now --all
    git gc -q --prune=now; git fsck --strict; test -z "$(git status --porcelain)"
    git push -q origin HEAD:refs/heads/pushed; cd ..
    git -C linked fetch -q; git -C linked checkout -q origin/pushed; git -C linked fsck --strict
    git -C linked status --porcelain
    git -C origin repack -adq; git -C origin prune-packed; git -C origin fsck --strict
    git -C origin bundle create -q ../all.bundle --all; git -C origin bundle verify -q ../all.bundle
    git -C origin for-each-ref
"""


def history() -> Iterator[bytes]:
    """A stream for git fast-import: every commit changes some files, and at times moves some."""
    rng = random.Random(5)
    yield b"reset refs/heads/main\n"
    for number in range(COMMITS):
        yield b"commit refs/heads/main\n"
        yield b"committer A <a@b> %d +0000\n" % (1_500_000_000 + 60 * number)
        message = b"Change %d\n" % number
        yield b"data %d\n%s" % (len(message), message)
        for file in range(FILES) if number == 0 else rng.sample(range(FILES), CHANGES):
            words = [b"%d" % rng.randrange(1000) for _ in range(rng.randrange(400))]
            data = b"\n".join([b"%d" % number, *words])
            mode = b"100755" if file % 9 == 0 else b"120000" if file % 31 == 0 else b"100644"
            if mode == b"120000":
                data = b"../f%d/%d" % (rng.randrange(FOLDERS), rng.randrange(FILES))
            yield b"M %s inline %s\ndata %d\n%s\n" % (mode, path_of(file), len(data), data)
        if number % 50 == 49:
            yield b"R extra/%d extra/%d\n" % (number - 50, number) if number > 50 else b""
            yield b"M 100644 inline extra/%d\ndata 2\nx\n\n" % number
        yield b"\n"


def path_of(file: int) -> bytes:
    return b"f%d/%d" % (file % FOLDERS, file)


def test_git_does_what_it_does_elsewhere(root: Person) -> None:
    root.mount()
    root.run("mkdir", root.images / "empty")
    inside = root.instances / "empty/node"
    outside = root.home / "outside"
    root.run("mkdir", inside, outside)
    stream = root.home / "stream"
    stream.write_bytes(b"".join(history()))
    said = {}
    for place in (outside, inside):
        shown = root.run("bash", "-euo", "pipefail", "-c", SCRIPT, "-", place, stream, timeout=900)
        said[place] = shown.stdout.replace(str(place), "PLACE").splitlines()
    print("\n".join(said[outside][:8]))
    assert said[inside] == said[outside]
    unmounted_in_order(root)
    root.mount()
    root.shell(
        f"cd {inside}; export GIT_CONFIG_GLOBAL=$PWD/config;"
        "for copy in copied linked; do"
        '  git -C $copy fsck --strict; test -z "$(git -C $copy status --porcelain)";'
        "done"
    )
