"""docs/containers.md: its commands as printed, as root and as an ordinary user."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.containers import (
    BLOCK,
    COMMAND,
    NAMESPACE_SHELL,
    PAGE,
    Facts,
    on_ordinary_machine,
    type_in,
)
from tests.acceptance.manifest import assert_equal
from tests.acceptance.person import Person
from tests.acceptance.test_programs import let_reach_registries

pytestmark = [pytest.mark.mount, pytest.mark.root]


@pytest.fixture(scope="session")
def web(rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Debian for containers: without documents, with a package to install."""
    folder = tmp_path_factory.mktemp("containers")
    tree, package = folder / "web", folder / "note"
    excluded = ("doc", "i18n", "info", "locale", "man", "zoneinfo")
    options = [f"--exclude=/usr/share/{name}" for name in excluded]
    command: list[str] = ["rsync", "-aHAX", *options, f"{rootfs}/", f"{tree}/"]
    subprocess.run(command, check=True)
    let_reach_registries(tree)
    (package / "DEBIAN").mkdir(parents=True)
    control = (
        "Package: note\nVersion: 1\nArchitecture: all\nMaintainer: Nobody\nDescription: note\n"
    )
    (package / "DEBIAN/control").write_text(control)
    (package / "usr/bin").mkdir(parents=True)
    (package / "usr/bin/note").write_text("#!/bin/sh\necho noted\n")
    (package / "usr/bin/note").chmod(0o755)
    build = ["dpkg-deb", "--root-owner-group", "--build", str(package), f"{tree}/srv/note.deb"]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return tree


@pytest.fixture(scope="session")
def archive(web: Path) -> Path:
    """The same as root packs it, without what the kernel keeps from everybody else."""
    archive = web.parent / "web.tar"
    options = ("--exclude=./dev/*", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner")
    subprocess.run(["tar", "-C", web, *options, "-cf", archive, "."], check=True)
    return archive


@pytest.fixture
def resident(user: Person, archive: Path) -> Iterator[Person]:
    """An ordinary user with the image web, which he unpacked as the page says."""
    script = """
        imagefs mount ~/cloud
        mkdir ~/cloud/images/web
        tar -C ~/cloud/images/web --xattrs --xattrs-include='*' --acls --numeric-owner -xpf -
        imagefs umount ~/cloud
    """
    kept = archive.with_suffix(".store")
    with on_ordinary_machine(user) as there:
        if not kept.exists():
            with open(archive) as tar:
                there.run(*NAMESPACE_SHELL.split(), "-euc", script, stdin=tar)
            shutil.copytree(user.store, kept)
        else:
            user.run("mkdir", "-p", user.store.parent)
            shutil.copytree(kept, user.store)
            owner = f"{user.home.stat().st_uid}:{user.home.stat().st_gid}"
            subprocess.run(["chown", "-R", owner, user.store], check=True)
        yield there


ALL: Facts = {
    "user": "0:0",
    "shadow": "root:shadow",
    "read": "ok",
    "null": "1:3",
    "proc": "ok",
    "write": "ok",
    "script": "script ran",
    "dpkg": "noted",
    "chown": "33:33",
    "become": "ok",
    "setuid": "33",
}
BWRAP = {**ALL, "setuid": "34"}
"""It never lets programs gain rights."""

NOT_PERMITTED = "failed: Operation not permitted"
OCI = {**ALL, **dict.fromkeys(("chown", "become", "setuid"), NOT_PERMITTED)}
"""The few capabilities that `runc spec` gives root."""

READ_ONLY = {"read": "ok", "become": "ok"}
READ_ONLY |= dict.fromkeys(("write", "dpkg", "data", "image"), "failed: Read-only file system")
DATA = {"data": "1", "image": "failed: Read-only file system"}
"""An instance at /mnt, an image at /media."""

UNMAPPED = "failed: Invalid argument"
ONE_USER = {**ALL, **dict.fromkeys(("chown", "become", "setuid"), UNMAPPED)}
REFUSED_TO_TOUCH = "touch ~/mnt/no 2>&1 | grep 'Read-only file system'"


def check(said: dict[str, Facts], expected: dict[str, Facts]) -> None:
    """Every command that opened a shell is expected to, with what worked in there."""
    probed = {line: facts for line, facts in said.items() if "user" in facts}
    shown = {
        line: {name: facts[name] for name in expected.get(line, facts)}
        for line, facts in probed.items()
    }
    assert shown == expected


def written(person: Person, instances: str) -> None:
    """What the containers wrote is in their instances, and in them alone."""
    person.shell(
        f"""
        cd {person.instances}/web
        for instance in {instances}; do test "$(cat $instance/srv/made/file)" = text; done
        test ! -e {person.images}/web/srv/made
        """
    )


def test_the_page_shows_no_command_that_no_test_runs() -> None:
    text = PAGE.read_text()
    assert [found[1] for found in BLOCK.finditer(text)] == [
        "root",
        "podman",
        "namespace",
        "outside",
    ]
    assert COMMAND.findall(BLOCK.sub("", text)) == []


@pytest.mark.network
def test_containers_of_root(root: Person, web: Path) -> None:
    root.imagefs("import", web, "web")
    root.mount()
    original = root.manifest(root.images / "web")
    root.unmount()
    mapped = "podman run --rm --uidmap 0:100000:9 --rootfs ~/cloud/instances/web/podman id"
    then = {
        "podman run --rm -i --rootfs ~/cloud/instances/web/podman bash": f"! {mapped} >~/said 2>&1\n"
        "grep 'Permission denied' ~/said",
        "mount --bind ~/cloud/instances/web/data ~/mnt": "echo bound >~/mnt/bound",
        "mount -o bind,ro ~/cloud/instances/web/data ~/mnt": f"cat ~/mnt/bound; {REFUSED_TO_TOUCH}",
        "mount --bind ~/cloud/images/web ~/mnt": f"cat ~/mnt/etc/passwd; {REFUSED_TO_TOUCH}",
    }
    with on_ordinary_machine(root) as there:
        said = type_in(there, "root", then)
    expected = {
        "chroot ~/cloud/instances/web/chroot bash": {**ALL, "proc": "none"},
        "unshare --mount --pid --fork --mount-proc --root ~/cloud/instances/web/unshare bash": ALL,
        "bwrap --bind ~/cloud/instances/web/bwrap / --dev /dev --proc /proc --unshare-pid bash": BWRAP,
        "podman run --rm -i --rootfs ~/cloud/instances/web/podman bash": ALL,
        "runc run web-1": OCI,
        "crun run web-2": OCI,
        "bwrap --ro-bind ~/cloud/images/web / --dev /dev --proc /proc --tmpfs /tmp bash": READ_ONLY,
        "podman run --rm -i --rootfs ~/cloud/images/web:O bash": ALL,
        "bwrap --bind ~/cloud/instances/web/bwrap / --bind ~/cloud/instances/web/data /mnt --ro-bind ~/cloud/images/web /media --dev /dev --proc /proc bash": {
            **BWRAP,
            **DATA,
        },
        "podman run --rm -i -v ~/cloud/instances/web/data:/mnt -v ~/cloud/images/web:/media:ro --rootfs ~/cloud/instances/web/podman bash": {
            **ALL,
            **DATA,
        },
    }
    check(said, expected)
    root.mount()
    written(root, "chroot unshare bwrap oci podman")
    data = root.instances / "web/data"
    assert (data / "bound").read_text() == "bound\n"
    assert (data / "file").read_text() == "from inside\n"
    assert (root.instances / "web/podman/usr/bin/hello").is_file()
    assert (root.instances / "web/chroot/srv/made/other").stat().st_uid == 33
    assert_equal(original, root.manifest(root.images / "web"))


@pytest.mark.network
def test_containers_of_an_ordinary_user(user: Person, resident: Person) -> None:
    said = type_in(resident, "podman", {})
    check(
        said,
        {
            "podman run --rm -i --rootfs ~/cloud/instances/web/podman bash": ALL,
            "podman run --rm -i --user www-data --rootfs ~/cloud/instances/web/podman bash": {
                "user": "33:33",
                "shadow": "root:shadow",
                "read": "failed: Permission denied",
                "write": "failed: Permission denied",
                "become": NOT_PERMITTED,
            },
            "podman run --rm -i --rootfs ~/cloud/images/web:O bash": ALL,
            "podman run --rm -i -v ~/cloud/instances/web/data:/mnt -v ~/cloud/images/web:/media:ro --rootfs ~/cloud/instances/web/podman bash": {
                **ALL,
                **DATA,
            },
        },
    )
    # From outside, the tree has its numbers: what belongs to a container's users does not show.
    user.mount()
    written(user, "podman")
    shown = user.run("stat", "-c", "%u:%g", user.instances / "web/podman/srv/made/other")
    assert shown.stdout == "33:33\n"
    user.run("test", "-x", user.instances / "web/podman/usr/bin/hello")
    assert user.run("cat", user.instances / "web/data/file").stdout == "from inside\n"


def test_containers_in_a_namespace_of_ones_own(user: Person, resident: Person) -> None:
    then = {
        "mount --bind ~/cloud/instances/web/data ~/mnt": "echo bound >~/mnt/bound",
        "mount -o bind,ro ~/cloud/images/web ~/mnt": f"cat ~/mnt/etc/passwd; {REFUSED_TO_TOUCH}",
    }
    # Device files are what even a user's own namespace does not have; runc maps one group.
    bare = {**ALL, "null": "0:0"}
    oci = {**ONE_USER, "shadow": "root:nogroup"}
    check(
        type_in(resident, "namespace", then),
        {
            "chroot ~/cloud/instances/web/chroot bash": {**bare, "proc": "none"},
            "unshare --mount --pid --fork --mount-proc --root ~/cloud/instances/web/unshare bash": bare,
            "bwrap --bind ~/cloud/instances/web/bwrap / --dev /dev --proc /proc --unshare-pid bash": BWRAP,
            "runc --root ~/.runc run web-1": oci,
            "crun --root ~/.crun run web-2": oci,
            "bwrap --ro-bind ~/cloud/images/web / --dev /dev --proc /proc --tmpfs /tmp bash": READ_ONLY,
        },
    )
    user.mount()
    written(user, "chroot unshare bwrap oci")
    assert user.run("cat", user.instances / "web/data/bound").stdout == "bound\n"


@pytest.mark.network
def test_containers_in_a_mount_outside_of_their_namespace(user: Person, resident: Person) -> None:
    """With what fails there, as the page says it."""
    podman = "podman run --rm -i --rootfs ~/cloud/instances/web/podman bash"
    run = "podman run --rm --rootfs ~/cloud/instances/web/podman"
    says = {
        f"{run.replace('--rm', '--rm --user www-data')} id": "Permission denied",
        f"{run.replace('--rm', '--rm --userns=keep-id')} id": "Permission denied",
        f"{run} su www-data -s /bin/sh": "Permission denied",
        "podman run --rm --rootfs ~/cloud/images/web:O id": "permission denied",
    }
    fails = (f"! {line} >~/said 2>&1 && grep '{why}' ~/said" for line, why in says.items())
    warns = f"{run} apt-get update 2>&1 | grep 'Download is performed unsandboxed as root'"
    tries = "\n".join([*fails, "podman system migrate", warns])
    said = type_in(resident, "outside", {podman: tries})
    one_user = {**ONE_USER, "shadow": "nobody:nogroup"}
    bare = {"proc": "none", "null": "0:0"}
    others = dict.fromkeys(("become", "setuid"), "failed: Permission denied")
    yourself = {"read": "ok", "write": "ok", "script": "script ran", "become": UNMAPPED}
    check(
        said,
        {
            "unshare --map-root-user chroot ~/cloud/instances/web/chroot bash": {
                **one_user,
                **bare,
            },
            "unshare --map-root-user --map-auto chroot ~/cloud/instances/web/chroot bash": {
                **one_user,
                **bare,
                "chown": "33:33",
                **others,
            },
            "bwrap --bind ~/cloud/instances/web/bwrap / --dev /dev --proc /proc bash": yourself,
            "bwrap --bind ~/cloud/instances/web/bwrap / --dev /dev --proc /proc --unshare-user --uid 0 --gid 0 bash": one_user,
            "bwrap --ro-bind ~/cloud/images/web / --dev /dev --proc /proc --tmpfs /tmp bash": {
                "read": "ok",
                "write": "failed: Read-only file system",
            },
            podman: {**one_user, "chown": "33:33", **others},
            "runc --root ~/.runc run web-1": one_user,
        },
    )
    user.mount()
    written(user, "chroot bwrap podman oci")


def test_an_account_is_the_same_in_a_namespace(user: Person) -> None:
    """Its images are there, and commands outside speak with the daemon inside."""
    user.shell("mkdir tree; echo one >tree/file")
    user.imagefs("import", "tree", "tree")
    inside = """
        imagefs mount ~/cloud
        mkdir ~/cloud/instances/tree/node
        exec 3>~/cloud/instances/tree/node/file
        echo two >&3
        echo >ready
        read line <go
        exec 3>&-
        imagefs umount ~/cloud
    """
    user.shell(
        f"""
        PATH=$PATH:{user.checkout}/tools
        mkfifo ready go
        {NAMESPACE_SHELL} -euc '{inside}' &
        read line <ready
        test "$(ls ~/cloud)" = ""
        imagefs show tree/node
        imagefs clone tree other
        ! imagefs commit tree/node new 2>refused
        pid=$(imagefs status --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])')
        grep "nsenter --preserve-credentials --user --mount --target $pid" refused
        nsenter --preserve-credentials --user --mount --target $pid imagefs commit tree/node new
        imagefs diff tree tree/other
        echo >go
        wait $!
        """
    )
    user.mount()
    assert user.run("cat", user.images / "new/file").stdout == "two\n"
    assert user.run("cat", user.instances / "tree/other/file").stdout == "one\n"
    assert user.run("stat", "-c", "%U", user.images / "new/file").stdout == f"{user.name}\n"


def test_allow_other_is_no_remedy(resident: Person) -> None:
    """Users of the container get in, and its root is nobody there."""
    inside = "unshare --map-root-user --map-auto"
    resident.shell(
        f"""
        imagefs mount ~/cloud --allow-other
        mkdir ~/cloud/instances/web/node
        cd ~/cloud/instances/web/node
        {inside} setpriv --reuid=33 --regid=33 --clear-groups cat etc/passwd
        test "$({inside} stat -c %U etc/passwd)" = nobody
        ! {inside} touch srv/no 2>~/said
        grep "Permission denied" ~/said
        cd
        ! podman run --rm --rootfs ~/cloud/instances/web/node id 2>said
        grep "creating /etc/mtab symlink: permission denied" said
        podman system migrate
        imagefs umount ~/cloud
        """
    )
