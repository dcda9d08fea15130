"""What the tests of docs/containers.md stand on: its commands, a bare machine made fit for podman,
and what a shell inside a container tries out."""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.person import Person

PAGE = Path(__file__).resolve().parent.parent.parent / "docs/containers.md"
BLOCK = re.compile(r"<!-- (\w+): begin -->\n(.*?)<!-- \1: end -->", re.DOTALL)
COMMAND = re.compile(r"^    (\S.*)$", re.MULTILINE)
MARK = "### "
NAMESPACE_SHELL = "unshare --map-root-user --map-auto --mount bash"

# Where podman and its like find what systemd gives an ordinary machine: cgroup2, a shared root,
# and a process 1 that ends everything with the test. A namespace keeps alive the mounts that it has
# a copy of: those of other tests are none of its business. Users may let others into their mounts.
MACHINE = """
home=$1 settings=$2
shift 2
findmnt --noheadings --list --types fuse.imagefs --output TARGET | while read -r mount; do
    [[ $mount == "$home"/* ]] || umount --lazy "$mount"
done
mount --make-rshared /
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind "$settings/fuse.conf" /etc/fuse.conf
# What runc, crun and podman keep there, even of containers that failed, is gone with the namespace.
for folder in /run/runc /run/crun /dev/shm; do
    mkdir -p $folder
    mount -t tmpfs -o mode=1777 tmpfs $folder
done
exec "$@"
"""

# Rights over cgroups and limits are missing where the tests run in a small virtual machine.
CONTAINERS_CONF = """
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
netns = "host"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
tmp_dir = "{home}/podman/tmp"
"""
STORAGE_CONF = """
[storage]
driver = "vfs"
graphroot = "{home}/podman/storage"
rootless_storage_path = "{home}/podman/storage"
runroot = "{home}/podman/run"
"""
CRUN = '#!/bin/sh\nexec /usr/bin/crun --cgroup-manager=disabled "$@"\n'
STATE_FOLDERS = (Path("/run/runc"), Path("/run/crun"))
"""Where runc and crun keep what runs."""

FOREIGN = [Path("/var/lib/containers"), Path("/run/containers"), Path("/run/libpod")]
"""Where podman keeps things unless told otherwise."""

PROBE = r"""
try() {
    name=$1; shift
    if said=$(: | sh -c "$*" 2>&1); then echo "$name: ${said:-ok}"
    else echo "$name: failed: ${said##*: }"; fi
}
try user 'echo $(id -u):$(id -g)'
try shadow 'stat -c %U:%G /etc/shadow'
try read 'test "$(cut -d: -f1 /etc/shadow | head -n 1)" = root && ls -R /etc | wc -l >/dev/null'
try null 'stat -c %t:%T /dev/null && echo gone >/dev/null'
try proc 'test -e /proc/self/exe || echo none'
try write 'mkdir -p /srv/made && cd /srv/made && rm -f * &&
    echo text >first && ln first second && mv -f second file'
try script 'cd /srv/made && printf "#!/bin/sh\necho script ran\n" >run && chmod 755 run && ./run'
try dpkg 'dpkg --install /srv/note.deb >/tmp/log 2>&1 || { tail -n 1 /tmp/log; exit 1; }; note'
try chown 'cd /srv/made && echo >other && chown 33:33 other && stat -c %u:%g other'
try become 'setpriv --reuid=33 --regid=33 --clear-groups cat /etc/debian_version >/dev/null'
try setuid 'cd /srv/made && cp -f /usr/bin/id id && chown 33 id && chmod 4755 id &&
    setpriv --reuid=34 --clear-groups ./id -u'
try data 'echo from inside >/mnt/file && grep -c ^root: /media/etc/passwd'
try image 'touch /media/new'
"""

Facts = dict[str, str]


def commands(name: str) -> list[str]:
    """The commands of one block of the page."""
    blocks = {found[1]: found[2] for found in BLOCK.finditer(PAGE.read_text())}
    return COMMAND.findall(blocks[name])


@contextmanager
def on_ordinary_machine(person: Person) -> Iterator[Person]:
    """The person on a machine with what containers take; its processes end with each command.

    Podman keeps everything in the person's home. Takes root.
    """
    uid, gid = person.home.stat().st_uid, person.home.stat().st_gid
    settings = person.home / "settings"
    folders = (settings, settings / "bin", person.home / "podman", person.home / "run")
    for folder in folders:
        folder.mkdir()
        os.chown(folder, uid, gid)
    (settings / "containers.conf").write_text(CONTAINERS_CONF.format(home=person.home))
    (settings / "storage.conf").write_text(STORAGE_CONF.format(home=person.home))
    (settings / "fuse.conf").write_text("user_allow_other\n")
    (settings / "bin/crun").write_text(CRUN)
    (settings / "bin/crun").chmod(0o755)
    environment = {
        **person.environment,
        "PATH": f"{settings}/bin:{person.checkout}/tools:{person.environment['PATH']}",
        "XDG_RUNTIME_DIR": f"{person.home}/run",
        "CONTAINERS_CONF": f"{settings}/containers.conf",
        "CONTAINERS_STORAGE_CONF": f"{settings}/storage.conf",
    }
    isolated = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    prefix: tuple[str, ...] = (*isolated, "bash", "-euc", MACHINE, "machine")
    prefix += (str(person.home), str(settings), *person.prefix)
    before = [folder for folder in (*STATE_FOLDERS, *FOREIGN) if folder.exists()]
    try:
        yield dataclasses.replace(person, prefix=prefix, environment=environment)
    finally:
        for folder in STATE_FOLDERS:
            if folder.exists() and folder not in before:
                folder.rmdir()
    assert [folder for folder in FOREIGN if folder.exists() and folder not in before] == []


def type_in(person: Person, name: str, then: Mapping[str, str]) -> dict[str, Facts]:
    """Types the commands of a block into one shell, and the probe into every shell that opens.

    `then` has what is typed after a command. Returns what each command said, line by line; a
    command that fails ends the test.
    """
    lines = commands(name)
    unknown = then.keys() - set(lines)
    assert not unknown, f"not in the page: {unknown}"
    probe = person.home / "probe"
    probe.write_text(PROBE)
    script = "set -e\n"
    for line in lines:
        marked = f"printf '%s%s\\n' '{MARK}' {quoted(line)}\n"
        if line == NAMESPACE_SHELL:
            # The rest is typed there.
            script += f"{marked}{line} <<'THE REST'\nset -e\n"
            continue
        script += f"{marked}{line} <{probe}\n{then.get(line, '')}\n"
    said = person.shell(script, timeout=900).stdout
    return {
        text.partition("\n")[0]: facts(text.partition("\n")[2]) for text in said.split(MARK) if text
    }


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def facts(said: str) -> Facts:
    pairs = (line.split(": ", 1) for line in said.splitlines() if ": " in line)
    return dict(pairs)
