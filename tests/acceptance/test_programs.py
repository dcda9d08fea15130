"""Real programs at work in clones: a package manager, git, SQLite, Python, rsync, tar."""

import glob
import shutil
from pathlib import Path

import pytest

from tests.acceptance import samples
from tests.acceptance.manifest import assert_equal
from tests.acceptance.person import Person

pytestmark = pytest.mark.mount

APT_SETTINGS = ("/etc/apt/apt.conf.d/*", "/etc/resolv.conf", "/etc/hosts")


def let_reach_registries(system: Path) -> None:
    """Gives a system below the host's way to the package registries, whatever it is."""
    for source in (path for pattern in APT_SETTINGS for path in glob.glob(pattern)):
        target = system / source.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copyfile(source, target)


@pytest.mark.root
@pytest.mark.network
def test_packages_are_installed_and_work(root: Person, rootfs: Path) -> None:
    root.mount()
    root.run("cp", "-a", rootfs, root.images / "base")
    clone = root.instances / "base/node"
    clone.mkdir()
    let_reach_registries(clone)
    install = "apt-get -q update && apt-get -q install -y --no-install-recommends git sqlite3"
    root.run("chroot", clone, "sh", "-euc", install, timeout=900)
    root.run(
        *("chroot", clone, "bash", "-euc"),
        """
        cd /srv; export HOME=/root
        git init -q one; cd one; git config user.email a@b; git config user.name a
        for i in $(seq 50); do seq $i >file-$i; done
        git add .; git commit -qm first; cd ..
        git clone -q one two; git -C two fsck --strict; test -z "$(git -C two status --porcelain)"
        sqlite3 data.db 'pragma journal_mode=wal' \
            'create table t(a, b)' \
            'with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
             insert into t select i, hex(randomblob(20)) from n'
        test "$(sqlite3 data.db 'pragma integrity_check; select count(*) from t')" = $'ok\\n20000'
        dpkg --verify git sqlite3 libc6
        """,
    )
    listed = root.run("chroot", clone, "dpkg-query", "-W", "-f=${Status}", "git").stdout
    assert listed == "install ok installed"


def test_git_works(anyone: Person) -> None:
    anyone.mount()
    anyone.run("mkdir", anyone.images / "empty")
    clone = anyone.instances / "empty/node"
    anyone.run("mkdir", clone)
    anyone.shell(
        f"""
        git init -q source; cd source; git config user.email a@b; git config user.name a
        for i in $(seq 200); do mkdir -p $((i % 7)); seq $i >$((i % 7))/$i; done
        git add .; git commit -qm first; git rm -rq 3; git commit -qm second
        cd {clone}
        git clone -q {anyone.home}/source local
        git clone -q --no-local {anyone.home}/source packed
        for copy in local packed; do
            git -C $copy fsck --strict
            git -C $copy checkout -q HEAD~1
            git -C $copy gc -q
            test -z "$(git -C $copy status --porcelain)"
        done
        """
    )


def test_a_virtual_environment_is_built_and_used(anyone: Person) -> None:
    anyone.mount()
    anyone.run("mkdir", anyone.images / "empty")
    clone = anyone.instances / "empty/node"
    anyone.run("mkdir", clone)
    anyone.run("/usr/bin/python3", "-m", "venv", clone / "venv")
    program = "import ssl, sqlite3, sys; print(sys.prefix)"
    assert anyone.run(clone / "venv/bin/python", "-c", program).stdout == f"{clone}/venv\n"
    assert "pip" in anyone.run(clone / "venv/bin/pip", "--version").stdout


@pytest.mark.root
def test_rsync_finds_no_difference(root: Person, rootfs: Path) -> None:
    root.mount()
    root.run("mkdir", root.images / "empty")
    clone = root.instances / "empty/node"
    clone.mkdir()
    source, back = root.home / "source", root.home / "back"
    samples.build(source, privileged=True)
    rsync = ("rsync", "-aHAX", "--checksum", "--numeric-ids", "--itemize-changes")
    for tree, inside in ((rootfs, clone / "rootfs"), (source, clone / "sample")):
        root.run(*rsync, f"{tree}/", f"{inside}/")
        assert root.run(*rsync, "--delete", f"{tree}/", f"{inside}/").stdout == ""
        shutil.rmtree(back, ignore_errors=True)
        root.run(*rsync, "--sparse", f"{inside}/", f"{back}/")
        assert root.run(*rsync, "--delete", f"{inside}/", f"{back}/").stdout == ""
        assert_equal(root.manifest(tree), root.manifest(back))


@pytest.mark.root
def test_tar_goes_out_and_in(root: Person, rootfs: Path) -> None:
    root.mount()
    root.imagefs("import", rootfs, "base")
    out, back = root.instances / "base/out", root.images / "back"
    out.mkdir()
    back.mkdir()
    options = "--xattrs --xattrs-include='*' --acls --numeric-owner --format=posix"
    root.shell(
        f"tar -C {out} {options} -cf {root.home}/it.tar .;"
        f"tar -C {back} {options} -xpf {root.home}/it.tar"
    )
    assert_equal(root.manifest(rootfs), root.manifest(back))
    root.imagefs("seal", "back")
    assert root.digest("back") == root.digest("base")
