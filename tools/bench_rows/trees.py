"""Trees made for the benchmarks; kept for the length of a run."""

import random
from pathlib import Path

from bench_rows.bench import Bench
from bench_rows.machine import run

PER_FOLDER = 100
SPREAD = 40
MORE_PACKAGES = (
    *("curl", "git", "nginx", "nginx-common"),
    *("openssh-client", "rsync", "vim-common", "vim-tiny"),
)


def many_entries(bench: Bench) -> Path:
    """A tree of `bench.entries` small files, a few hundred to a directory."""
    top = bench.scratch / "many-entries"
    if top.exists():
        return top
    partial = bench.folder("many-entries")
    for number in range(folders(bench)):
        folder = partial / folder_path(number)
        folder.mkdir(parents=True)
        for name in range(PER_FOLDER - 1):
            (folder / f"file-{name:03}").write_bytes(b"%d in %d\n" % (name, number))
    return partial.rename(top)


def folders(bench: Bench) -> int:
    """How many directories hold the files."""
    return bench.entries // PER_FOLDER


def folder_path(number: int) -> str:
    return f"{number % SPREAD:02}/{number:05}"


def some_of_many(bench: Bench, seed: int, count: int) -> list[str]:
    """Paths of files in that tree, found without walking it."""
    rng = random.Random(seed)
    chosen = rng.sample(range(folders(bench)), count)
    return [f"{folder_path(number)}/file-{rng.randrange(PER_FOLDER - 1):03}" for number in chosen]


def system_with_more(bench: Bench) -> Path:
    """A second state of the system: packages are unpacked in it and known to its dpkg."""
    top = bench.scratch / "system-with-more"
    if top.exists():
        return top
    partial = bench.folder("system-with-more")
    run(["cp", "-a", f"{bench.rootfs}/.", partial])
    with open(partial / "var/lib/dpkg/status", "a", encoding="utf-8") as status:
        for package in downloaded(bench):
            unpack(package, partial)
            fields = run(["dpkg-deb", "--field", package])
            status.write(f"{fields.rstrip()}\nStatus: install ok unpacked\n\n")
    return partial.rename(top)


def unpack(package: Path, tree: Path) -> None:
    """Unpacks a package as dpkg does: where the tree has a symlink to a directory, it stays."""
    script = 'dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -C "$2"'
    run(["sh", "-c", script, "sh", package, tree])


def downloaded(bench: Bench) -> list[Path]:
    """The files of MORE_PACKAGES, as this machine's apt-get finds them."""
    folder = bench.folder("packages")
    run(["sh", "-c", 'cd "$1" && shift && apt-get download "$@"', "sh", folder, *MORE_PACKAGES])
    return sorted(folder.glob("*.deb"))


def some_of_system(bench: Bench, seed: int, count: int) -> list[str]:
    """Paths of plain files of a system, from all over it."""
    plain = [path for path in sorted(bench.rootfs.glob("*/*/*")) if is_plain(path)]
    return [
        str(path.relative_to(bench.rootfs)) for path in random.Random(seed).sample(plain, count)
    ]


def is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
