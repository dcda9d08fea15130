"""What the documents say is so: links lead somewhere, commands exist, pins are complete."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.test_layering import LAYERS, PACKAGE

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
PROMISED = ("design", "format", "durability", "concurrency", "using", "contributing")
LINK = re.compile(r"\[[^]]*\]\(([^)#\s]+)[^)]*\)")
# Folders that exist on somebody's machine only.
MACHINE_PATH = re.compile(r"(?<![\w.~/])/(work|root|home/\w+|tmp/\w+)/")
# What users type. Longer words first would not matter: commands are whole words.
COMMAND = re.compile(r"\bimagefs ([a-z][a-z-]*)\b")
# Words that follow the name of the project in a sentence or a path.
PROSE = {
    "is",
    "and",
    "in",
    "on",
    "beside",
    "command",
    "for",
    "may",
    "itself",
    "does",
    "has",
    "keeps",
}


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_the_promised_documents_are_there() -> None:
    missing = [name for name in PROMISED if not (ROOT / "docs" / f"{name}.md").is_file()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_links_lead_somewhere(document: Path) -> None:
    targets = LINK.findall(document.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert not [target for target in local if not (document.parent / target).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_paths_mentioned_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    mentioned = re.findall(r"`((?:tests|tools|docs|imagefs)/[\w./-]+?)/?`", text)
    assert not [path for path in mentioned if not (ROOT / path).exists()]


def test_nothing_names_a_folder_of_one_machine() -> None:
    texts = [*DOCUMENTS, *sorted(PACKAGE.rglob("*.py")), *sorted((ROOT / "tools").rglob("*.py"))]
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in texts
        for match in MACHINE_PATH.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found


def commands() -> set[str]:
    """The commands by `imagefs --help`."""
    run = [sys.executable, "-c", "from imagefs.cli import main; main()", "--help"]
    shown = subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    listed = shown.partition("Commands:")[2]
    return set(re.findall(r"^ {2}([a-z-]+)", listed, re.MULTILINE))


def test_commands_in_the_guide_exist_and_all_are_in_it() -> None:
    guide = (ROOT / "docs/using.md").read_text(encoding="utf-8")
    mentioned = set(COMMAND.findall(guide)) - PROSE
    assert mentioned == commands()


def test_commands_in_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(COMMAND.findall(text)) - PROSE <= commands()


@pytest.mark.parametrize("name", ["design.md", "contributing.md"])
def test_the_layers_are_told_as_they_are_tested(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    (told,) = re.findall(r"^ +(errors, model < .*)$", text, re.MULTILINE)
    rows = [tuple(row.strip("{} ").split(", ")) for row in told.split(" < ")]
    present = [
        tuple(layer for layer in row if (PACKAGE / layer).exists() or is_module(layer))
        for row in LAYERS
    ]
    assert rows == present


def test_how_long_tests_go_is_told_as_it_is() -> None:
    """Every variable that tests read has a row with its default."""
    text = (ROOT / "docs/contributing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(IMAGEFS_TEST_\w+)` \|.*\| *(\S*) *\|[^|]*\|$", text, re.MULTILINE)
    read = re.compile(r'environ\.get\(\s*"(IMAGEFS_TEST_\w+)"(?:, "(\w*)")?\)')
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]
    found = {found for source in sources for found in read.findall(source)}
    assert "`IMAGEFS_TEST_SEED`" in text
    assert sorted(rows) == sorted(row for row in found if row[0] != "IMAGEFS_TEST_SEED")


def is_module(layer: str) -> bool:
    return (PACKAGE / f"{layer}.py").is_file()


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {
        line.partition("==")[0].lower()
        for line in (ROOT / "tools/runtime.lock").read_text().splitlines()
        if "==" in line
    }
    needed = {re.split(r"[><=]", dependency)[0] for dependency in project["dependencies"]}
    assert needed <= pinned
