"""The import rules of docs/design.md, and the sizes the project keeps to."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "imagefs"

# Each row may import from the rows above it; members of one row know nothing of each other.
LAYERS = (
    ("errors", "model"),
    ("disk",),
    ("format",),
    ("store",),
    ("tree",),
    ("overlay", "catalog", "region", "transfer"),
    ("vfs",),
    ("fuse", "control"),
    ("daemon",),
    ("cli",),
)
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}
# The package itself (version) and the entry point stand outside the layers.
TOP = {"__init__", "__main__"}

# What a format may not reach: it turns bytes into values and back, whatever the machine.
IMPURE = {"os", "io", "time", "trio", "logging", "pathlib", "shutil", "socket", "sqlite3"}
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60


class Edge(NamedTuple):
    """One imported module and where."""

    importer: Path
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.importer.relative_to(ROOT)}:{self.line} imports {self.target}"


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def edges(path: Path) -> Iterator[Edge]:
    """Every import of the file, wherever it stands in it, as the full names it asks for."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Edge(path, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                yield Edge(path, node.lineno, f"{node.module}.{alias.name}")


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported_layer(target: str) -> str | None:
    """The layer of an imported name, None for anything that is not ours."""
    parts = target.split(".")
    if parts[0] != "imagefs" or len(parts) == 1:
        return None
    return parts[1] if parts[1] in RANK or parts[1] in TOP else None


def allowed(own: str, other: str) -> bool:
    """Whether layer `own` may import from layer `other`."""
    if own == other:
        return True
    if own == "model" and other == "errors":
        return True
    return RANK[other] < RANK[own]


def test_every_module_belongs_to_a_layer() -> None:
    strays = {layer_of(path) for path in modules()} - set(RANK) - TOP
    assert not strays, f"Give these a place in LAYERS: {sorted(strays)}"


def test_imports_lead_downwards_only() -> None:
    upward = []
    for path in modules():
        own = layer_of(path)
        if own in TOP:
            continue
        for edge in edges(path):
            other = imported_layer(edge.target)
            if other is not None and other not in TOP and not allowed(own, other):
                upward.append(str(edge))
    assert not upward, "\n".join(upward)


def test_formats_are_pure() -> None:
    impure = [
        str(edge)
        for path in modules()
        if layer_of(path) == "format"
        for edge in edges(path)
        if edge.target.split(".")[0] in IMPURE
    ]
    assert not impure, "\n".join(impure)


def test_pyfuse3_is_known_to_the_adapter_alone() -> None:
    outside = [
        str(edge)
        for path in modules()
        if layer_of(path) not in {"fuse", "daemon"}
        for edge in edges(path)
        if edge.target.split(".")[0] == "pyfuse3"
    ]
    assert not outside, "\n".join(outside)


def test_store_and_trees_know_no_async() -> None:
    """State changes are plain functions; only the rim runs an event loop."""
    asynchronous = [
        str(edge)
        for path in modules()
        if RANK.get(layer_of(path), len(LAYERS)) <= RANK["vfs"]
        for edge in edges(path)
        if edge.target.split(".")[0] == "trio"
    ]
    assert not asynchronous, "\n".join(asynchronous)


def reads_surroundings(node: ast.AST) -> bool:
    """True where the environment or the command line is read."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return (node.value.id, node.attr) in {
            ("os", "environ"),
            ("os", "environb"),
            ("os", "getenv"),
            ("sys", "argv"),
        }
    if isinstance(node, ast.ImportFrom) and node.module in {"os", "sys"}:
        return any(alias.name in {"environ", "environb", "getenv", "argv"} for alias in node.names)
    return False


def test_environment_and_arguments_are_read_at_the_rim() -> None:
    offenders = []
    for path in modules():
        inside = path.relative_to(PACKAGE)
        if inside.parts[0] in {"cli", "__main__.py"} or inside == Path("daemon/__main__.py"):
            continue
        offenders += [
            f"{path.relative_to(ROOT)}:{node.lineno}"
            for node in ast.walk(parse(path))
            if isinstance(node, ast.Attribute | ast.ImportFrom) and reads_surroundings(node)
        ]
    assert not offenders, "\n".join(offenders)


# What reaches files without `Disk`. Layers above the disk and below the mount may do none of it,
# so that tests can record and fail all they do; `transfer` reads other people's directories.
RECORDED = {"store", "tree", "overlay", "catalog", "vfs"}
DISK_MODULES = {"shutil", "tempfile", "fcntl", "mmap", "glob", "io"}
OS_CALLS = {
    "open", "close", "read", "write", "pread", "pwrite", "preadv", "pwritev", "readv", "writev",
    "truncate", "ftruncate", "fsync", "fdatasync", "sync", "stat", "lstat", "fstat", "statvfs",
    "listdir", "scandir", "walk", "mkdir", "makedirs", "rmdir", "removedirs", "unlink", "remove",
    "rename", "renames", "replace", "link", "symlink", "readlink", "access", "utime", "chmod",
    "posix_fallocate", "copy_file_range", "sendfile",
}  # fmt: skip
PATH_CALLS = {
    "exists", "is_dir", "is_file", "iterdir", "glob", "rglob", "read_bytes", "read_text",
    "write_bytes", "write_text", "samefile", "hardlink_to", "symlink_to",
}  # fmt: skip
OS_PATH_CALLS = {"exists", "lexists", "isdir", "isfile", "getsize", "getmtime", "realpath"}


def reaches_files(node: ast.AST) -> bool:
    """True for a call that goes to the disk by itself."""
    if not isinstance(node, ast.Call):
        return False
    call = node.func
    if isinstance(call, ast.Name):
        return call.id == "open"
    if not isinstance(call, ast.Attribute):
        return False
    if isinstance(call.value, ast.Name) and call.value.id == "os":
        return call.attr in OS_CALLS
    if ast.unparse(call.value) == "os.path":
        return call.attr in OS_PATH_CALLS
    return call.attr in PATH_CALLS


def test_recorded_layers_reach_files_through_the_disk_alone() -> None:
    offenders = []
    for path in modules():
        if layer_of(path) not in RECORDED:
            continue
        offenders += [
            f"{path.relative_to(ROOT)}:{node.lineno}"
            for node in ast.walk(parse(path))
            if isinstance(node, ast.Call) and reaches_files(node)
        ]
        offenders += [
            str(edge) for edge in edges(path) if edge.target.split(".")[0] in DISK_MODULES
        ]
    assert not offenders, "\n".join(offenders)


# Clients of object stores take 0.3 s to import, and regions in all another part of that, which most
# mounts and commands can do without.
LATE = {"region/bucket.py", "region/service.py", "vfs/regions.py"}
LATE_MODULES = {"imagefs.region.region", "obstore", "boto3", "urllib3"}


def test_no_import_inside_functions_outside_the_command() -> None:
    """A cycle is not to be hidden in a function. The command may import late, to start fast."""
    offenders = []
    for path in modules():
        if layer_of(path) in {"cli", "__main__"} or str(path.relative_to(PACKAGE)) in LATE:
            continue
        for function in ast.walk(parse(path)):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                offenders += [
                    f"{path.relative_to(ROOT)}:{node.lineno}"
                    for node in ast.walk(function)
                    if isinstance(node, ast.Import | ast.ImportFrom)
                ]
    assert not offenders, "\n".join(offenders)


def test_a_mount_without_regions_starts_without_their_modules() -> None:
    shown = "import sys, imagefs.daemon.__main__; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not LATE_MODULES.intersection(loaded.stdout.split())


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "common", "helpers", "misc"}
    assert not [path for path in modules() if path.stem in drawers]


@pytest.mark.parametrize("folder", ["imagefs", "tools", "tests"])
def test_files_and_functions_stay_readable(folder: str) -> None:
    large = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > MAX_FILE_LINES:
            large.append(f"{path.relative_to(ROOT)}: {lines} lines")
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    large.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length}")
    assert not large, "\n".join(large)
