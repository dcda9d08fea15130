"""An ordinary user keeps a system that belongs to root, and does in it what root would do."""

import errno
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.acceptance import samples
from tests.acceptance.containers import NAMESPACE_SHELL
from tests.acceptance.manifest import Manifest, assert_equal
from tests.acceptance.person import Person

pytestmark = pytest.mark.mount

PACK = "tar --numeric-owner --sparse --format=posix --xattrs --xattrs-include='*'"
UNPACK = "tar --same-owner --numeric-owner --xattrs -xpf"
LEFT_OUT = " ".join(
    f"--exclude=./usr/share/{name}" for name in ("doc", "locale", "man", "zoneinfo")
)
"""Many files that are all alike."""

DEVICE = re.compile(r"\S+ (character|block)-device ")
RESERVED = re.compile(r" (security\.|trusted\.|system\.posix_acl_)\S+=[0-9a-f]*")
TRUSTED = re.compile(r" trusted\.\S+=[0-9a-f]*")
BEYOND = "owner=3000000000:4000000000"
"""An owner for whom no user's namespace has a number."""


def without(tree: Manifest, *patterns: re.Pattern[str]) -> Manifest:
    """The tree without devices and what the patterns match."""
    lines = {path: line for path, line in tree.lines.items() if not DEVICE.match(line)}
    for pattern in patterns:
        lines = {path: pattern.sub("", line) for path, line in lines.items()}
    return tree._replace(lines=lines)


@pytest.fixture
def unpacked(root: Person, rootfs: Path) -> Path:
    """A Debian and a tree with everything beside it, as root unpacks them from root's archive.

    But for a second name of a symlink: another test is about those.
    """
    samples.build(root.home / "sample", privileged=True)
    unpacked = root.home / "unpacked"
    unpacked.mkdir()
    root.shell(
        f"""
        {PACK} --acls -C {rootfs} -cf system.tar {LEFT_OUT} .
        {PACK} --acls -C {root.home} -cf sample.tar --exclude=linked-symlink ./sample
        for archive in *.tar; do
            tar --acls --xattrs --xattrs-include='*' --numeric-owner -C unpacked -xpf $archive
        done
        """
    )
    return unpacked


def hand_over(archives: Path, user: Person) -> None:
    """Lets the user have the archives."""
    for name in ("system.tar", "sample.tar"):
        (archives / name).rename(user.home / name)
        (user.home / name).chmod(0o644)


@pytest.mark.root
def test_a_system_of_root_goes_through_the_hands_of_a_user(
    root: Person, user: Person, unpacked: Path
) -> None:
    """From root's archive through a private mount to the user's archive: root sees the same.

    But for what the kernel keeps from users, which is exactly: devices, ACLs, capabilities and
    `trusted.` attributes.
    """
    hand_over(root.home, user)
    user.mount()
    tree = user.images / "tree"
    # tar ends with 2 where it could not make a device, and says for each what.
    said = user.shell(
        f"mkdir {tree}; cd {tree}; {UNPACK} ~/sample.tar || test $? = 2; {UNPACK} ~/system.tar || test $? = 2"
    ).stderr
    refused = [line for line in said.splitlines() if "Cannot" in line]
    devices = {path for path, line in root.manifest(unpacked).lines.items() if DEVICE.match(line)}
    assert sorted(refused) == sorted(
        f"tar: {os.fsdecode(path)}: Cannot mknod: Operation not permitted" for path in devices
    )
    assert_equal(without(root.manifest(unpacked), RESERVED), user.manifest(tree))

    user.shell(f"{PACK} -C {tree} -cf back.tar .")
    back = root.home / "back"
    root.shell(f"mkdir back; tar --xattrs --xattrs-include='*' -C back -xpf {user.home}/back.tar")
    assert_equal(without(root.manifest(unpacked), RESERVED), root.manifest(back))

    user.imagefs("seal", "tree")
    root.imagefs("import", back, "back")
    root.mount()
    assert user.digest("tree") == root.digest("back")
    user.run("mkdir", user.instances / "tree/clone")
    assert_equal(root.manifest(back), user.manifest(user.instances / "tree/clone"))


@pytest.mark.root
def test_a_user_has_even_more_in_a_namespace_of_his_own(
    root: Person, user: Person, unpacked: Path
) -> None:
    """ACLs and capabilities, too; not devices, `trusted.` and owners beyond his numbers."""
    hand_over(root.home, user)
    inside = f"""
        PATH=$PATH:{user.checkout}/tools
        imagefs mount ~/cloud
        mkdir ~/cloud/images/sample
        cd ~/cloud/images/sample
        tar --numeric-owner --xattrs --xattrs-include='*' --acls -xpf ~/sample.tar || test $? = 2
        cd
        imagefs umount ~/cloud
    """
    said = user.run(*NAMESPACE_SHELL.split(), "-euc", inside).stderr
    user.mount()
    refused = {line.rpartition(": ")[0] for line in said.splitlines() if "Cannot" in line}
    assert refused == {
        "tar: ./sample/privileged/null: Cannot mknod",
        "tar: ./sample/privileged/disk: Cannot mknod",
        "tar: setxattrat: Cannot set 'trusted.note' extended attribute for file './sample/privileged/capable'",
        "tar: ./sample/privileged/big-ids: Cannot change ownership to uid 3000000000, gid 4000000000",
    }
    expected = without(root.manifest(unpacked / "sample"), TRUSTED)
    lines = {path: line.replace(BEYOND, "owner=0:0") for path, line in expected.lines.items()}
    tree = user.images / "sample/sample"
    # Seen from outside again, where users may read `security.` attributes.
    assert_equal(expected._replace(lines=lines), user.manifest(tree))


def test_imports_of_one_tree_have_one_digest_whoever_makes_them(anyone: Person) -> None:
    """And so has the same tree written into a mount by an ordinary user."""
    source = anyone.home / "source"
    build = ("-m", "tests.acceptance.samples", source)
    anyone.run("/usr/bin/python3", *build, cwd=anyone.checkout)
    anyone.imagefs("import", source, "imported")
    anyone.mount()
    anyone.run("cp", "-a", source, anyone.images / "copied")
    anyone.imagefs("seal", "copied")
    assert anyone.digest("imported") == anyone.digest("copied")


def test_a_user_does_what_root_does_in_a_tree_of_his_own(user: Person) -> None:
    user.mount()
    user.shell(
        f"""
        mkdir {user.images}/tree; cd {user.images}/tree
        shown() {{ stat -c "%u:%g %a" "$@"; }}
        is() {{ test "$1" = "$2" || {{ echo "$1 is not $2"; exit 1; }}; }}

        echo one >file; chown 0:42 file; chmod 6755 file; is "$(shown file)" "0:42 6755"
        chmod 000 file; is "$(cat file)" one; is "$(shown file)" "0:42 0"
        is "$(echo two >>file; wc -l <file)" 2
        ln -s file link; chown -h 3:4 link; is "$(shown link)" "3:4 777"
        mkfifo pipe; chown 0:0 pipe; is "$(shown pipe)" "0:0 644"

        mkdir -p closed/below; echo deep >closed/below/file; chown -R 0:0 closed
        chmod 000 closed/below closed; is "$(cat closed/below/file)" deep; ls closed
        mv closed/below/file closed/moved; rm -r closed; test ! -e closed
        mkdir -m 1777 sticky; touch sticky/theirs; chown 7:7 sticky sticky/theirs; rm sticky/theirs

        install -o root -g root -m 4755 /bin/true installed; is "$(shown installed)" "0:0 4755"
        setfattr -n user.note -v mine installed; touch -d 2001-02-03 installed
        is "$(stat -c %Y installed)" "$(date -d 2001-02-03 +%s)"

        touch mine; setfacl -m u:5:rw mine; getfacl -cp mine | grep user:games:rw-
        chown 1:1 mine; ! setfacl -m u:6:rw mine; chown $(id -u) mine; setfacl -m u:6:rw mine
        chown 1:1 mine; getfacl -cpn mine | grep user:6:rw-
        """
    )


def test_links_to_what_belongs_to_others_are_limited(user: Person) -> None:
    """By the kernel (fs.protected_hardlinks): none to symlinks, fifos and set-user-id programs."""
    assert Path("/proc/sys/fs/protected_hardlinks").read_text() == "1\n"
    user.mount()
    user.shell(
        f"""
        mkdir {user.images}/tree; cd {user.images}/tree
        touch file program; chmod 4755 program; ln -s file symlink; mkfifo fifo
        for name in *; do ln -P $name mine-$name; done
        chown -h 0:0 file program symlink fifo; chmod 4755 program
        ln -P file theirs-file
        for name in program symlink fifo; do ! ln -P $name theirs-$name 2>~/said; grep "not permitted" ~/said; done
        """
    )


@pytest.mark.parametrize(
    ("copy", "owner"),
    [
        # What a program does not ask for, nobody can give it: these think that it takes root.
        ("tar -C /etc -c passwd | tar -xp", "user"),
        ("rsync -a /etc/passwd .", "user"),
        ("dpkg-deb -x ~/theirs.deb .", "user"),
        ("tar -C /etc -c passwd | tar --same-owner -xp", "root"),
        ("rsync -a --super --numeric-ids /etc/passwd .", "root"),
        ("dpkg-deb --fsys-tarfile ~/theirs.deb | tar --same-owner -xp", "root"),
        ("install -o root -m 644 /etc/passwd .", "root"),
        ("mv ~/cloud/images/other/passwd .", "root"),
    ],
)
def test_programs_keep_owners_when_asked_to(user: Person, copy: str, owner: str) -> None:
    user.mount()
    user.shell(
        f"""
        mkdir -p theirs/DEBIAN; cp /etc/passwd theirs
        control='Package: theirs\\nVersion: 1\\nArchitecture: all\\nMaintainer: x\\nDescription: x\\n'
        printf "$control" >theirs/DEBIAN/control; dpkg-deb --root-owner-group -b theirs theirs.deb
        mkdir {user.images}/other {user.images}/tree
        cd {user.images}/tree
        cp /etc/passwd ../other; chown 0:0 ../other/passwd
        {copy}
        """
    )
    shown = user.run("stat", "-c", "%U", user.images / "tree/passwd").stdout.strip()
    assert shown == (owner if owner == "root" else user.name)
    assert user.run("cat", user.images / "tree/passwd").stdout == Path("/etc/passwd").read_text()


def test_cp_keeps_all_and_grumbles(user: Person) -> None:
    """It sets an ACL where there is none, which the kernel keeps for owners; then the mode, too."""
    user.mount()
    said = user.shell(
        f"""
        mkdir {user.images}/tree; cd {user.images}/tree
        echo x >first; chown 0:42 first; chmod 4755 first
        ! cp -a first second
        stat -c "%u:%g %a" second
        """
    )
    assert said.stdout == "0:42 4755\n"
    assert "preserving permissions" in said.stderr


@pytest.mark.root
def test_nobody_else_gets_into_a_private_mount(root: Person, user: Person) -> None:
    """Not another user, and not root either: the kernel says EACCES at every door."""
    user.home.chmod(0o755)
    user.mount()
    user.shell(f"mkdir -m 777 {user.images}/tree; echo x >{user.images}/tree/file")
    doors = f"ls {user.cloud}", f"cat {user.images}/tree/file", f"touch {user.images}/tree/new"
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    for door in doors:
        user.run(*door.split())
        for stranger in ((), nobody):
            seen = subprocess.run(
                [*stranger, *door.split()], capture_output=True, text=True, check=False
            )
            assert seen.returncode != 0
            assert os.strerror(errno.EACCES) in seen.stderr


@pytest.mark.root
def test_set_user_id_works_in_the_mount_of_root_alone(root: Person, user: Person) -> None:
    """A user could make himself anybody otherwise."""
    who = "cp /usr/bin/id id; chown 33 id; chmod 4755 id"
    for person in (root, user):
        person.mount()
        tree = person.images / "tree"
        person.shell(f"mkdir {tree}; cd {tree}; {who}; stat -c %a:%u id | grep 4755:33")
    as_nobody = "setpriv --reuid=65534 --clear-groups"
    # Root lets nobody in, but who is in may become somebody else: a service in a chroot does.
    shown = root.shell(f"cd {root.images}/tree; exec {as_nobody} ./id -u").stdout
    assert shown == "33\n"
    shown = user.shell(f"{user.images}/tree/id -u").stdout
    assert shown == user.run("id", "-u").stdout
