"""Row 7: small files in a clone, made and removed."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from bench_rows.bench import Bench, imagefs
from bench_rows.measure import IMAGEFS, Figure, Target
from bench_rows.peers import fuse_overlayfs
from bench_rows.work import create_seconds, unlink_seconds

COUNT = 3000
CREATE = Figure(
    7, "create, write 4 KiB, close", "1/s", (Target(1.5, "fuse-overlayfs"),), more_is_better=True
)
UNLINK = Figure(7, "unlink", "1/s", (Target(0.7, "fuse-overlayfs"),), more_is_better=True)


def measure(bench: Bench) -> None:
    with ExitStack() as stack:
        side = stack.enter_context(imagefs(bench))
        side.command("import", bench.rootfs, "base")
        clone = side.instances / "base/clone"
        clone.mkdir()
        contenders = {
            IMAGEFS: lambda: small_files(clone),
            "fuse-overlayfs": lambda: in_overlay(bench),
            "directory on disk": lambda: small_files(bench.folder("small")),
        }
        bench.compare((CREATE, UNLINK), contenders, {"fuse-overlayfs": "fuse-overlayfs"})


def in_overlay(bench: Bench) -> Mapping[str, float]:
    with fuse_overlayfs(bench, bench.rootfs) as mountpoint:
        return small_files(mountpoint)


def small_files(tree: Path) -> dict[str, float]:
    folder = tree / "small-files"
    folder.mkdir()
    created = COUNT / create_seconds(folder, COUNT)
    removed = COUNT / unlink_seconds(folder, COUNT)
    folder.rmdir()
    return {CREATE.name: created, UNLINK.name: removed}
