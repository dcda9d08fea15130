"""Small Debian packages in two versions, and a repository that apt installs them from.

`ledger` has many files, two configuration files and maintainer scripts; its second version changes,
adds, removes and retypes files. `diverter` takes a file of it out of the way with a diversion.
`plugin` depends on both in the same version, and fires a trigger of `ledger`.
"""

import os
import shutil
import subprocess
from pathlib import Path

FILES = 100
SHARE = "usr/share/ledger"
POSTINST = """#!/bin/sh
set -e
case $1 in
    configure) echo "configured after $2" >>/var/lib/ledger/history; ls /usr/share/ledger >/var/lib/ledger/list ;;
    triggered) find /usr/lib -path "*plugins/*" | sort >/var/lib/ledger/plugins ;;
esac
"""
POSTRM = """#!/bin/sh
set -e
test "$1" != purge || rm -rf /var/lib/ledger
"""
DIVERT = """#!/bin/sh
set -e
dpkg-divert --package diverter --{action} --rename --divert /usr/share/ledger/5.real /usr/share/ledger/5
"""


class Repository:
    """A folder with packages that apt can use by `file:`; made outside of the systems."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def publish(self, version: int) -> None:
        """Builds that version of all packages, and lists what is there."""
        for build in (ledger, diverter, plugin):
            tree = self.folder / "tree"
            tree.mkdir(mode=0o755)
            build(tree, version)
            control = tree / "DEBIAN/control"
            name = control.read_text().split()[1]
            target = self.folder / f"{name}_{version}.deb"
            make = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(target)]
            subprocess.run(make, check=True, capture_output=True)
            shutil.rmtree(tree)
        self.list()

    def list(self) -> None:
        scan = ["dpkg-scanpackages", "--multiversion", "."]
        listed = subprocess.run(scan, cwd=self.folder, check=True, capture_output=True)
        (self.folder / "Packages").write_bytes(listed.stdout)

    def put_into(self, system: Path) -> None:
        """A copy inside of a system, which has no other source of packages then."""
        shutil.copytree(self.folder, system / "srv/repository", dirs_exist_ok=True)
        source = "deb [trusted=yes] file:/srv/repository ./\n"
        (system / "etc/apt/sources.list").write_text(source)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def control(tree: Path, name: str, version: int, more: str = "") -> None:
    fields = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: A <a@b>\n"
    write(tree / "DEBIAN/control", f"{fields}{more}Description: {name} for tests\n")


def ledger(tree: Path, version: int) -> None:
    control(tree, "ledger", version)
    share = tree / SHARE
    for number in range(FILES):
        # Some files are in one of the versions only, some are the same in both.
        if number % 10 == version:
            continue
        same = number % 3 == 0
        write(share / f"{number}", f"{number} of {0 if same else version}\n" * (number * 7 % 900))
    os.link(share / "3", share / "linked")
    (share / "latest").symlink_to(f"{version + 10}")
    write(share / "tool", "#!/bin/sh\n", 0o4755)
    if version == 1:
        write(share / "retyped", "a file, and later a directory\n")
    else:
        write(share / "retyped.d/file", "in a directory\n")
        (share / "retyped").symlink_to("retyped.d")
    write(tree / "etc/ledger.conf", f"version = {version}\n")
    write(tree / "etc/ledger.d/other.conf", f"other = {version}\n")
    (tree / "var/lib/ledger").mkdir(parents=True)
    write(tree / "DEBIAN/conffiles", "/etc/ledger.conf\n/etc/ledger.d/other.conf\n")
    write(tree / "DEBIAN/postinst", POSTINST, 0o755)
    write(tree / "DEBIAN/postrm", POSTRM, 0o755)
    write(tree / "DEBIAN/triggers", "interest-noawait /usr/lib/plugins\n")


def diverter(tree: Path, version: int) -> None:
    control(tree, "diverter", version)
    write(tree / SHARE / "5", f"the diverter's, {version}\n")
    write(tree / "DEBIAN/preinst", DIVERT.format(action="add"), 0o755)
    removal = DIVERT.format(action="remove").replace(
        "set -e\n", 'set -e\ntest "$1" = remove || exit 0\n'
    )
    write(tree / "DEBIAN/postrm", removal, 0o755)


def plugin(tree: Path, version: int) -> None:
    depends = f"Depends: ledger (= {version}), diverter (= {version})\n"
    control(tree, "plugin", version, depends)
    for number in range(version, version + 5):
        write(tree / f"usr/lib/plugins/{number}", "a plugin\n")
