"""Runs modules of CPython's own test suite, as Debian packages it, and reads what became of each test."""

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.acceptance.person import Person
from tests.suites.ground import HOURS, Ground

PYTHON = "/usr/bin/python3"
# Resources as the suite calls them; those that need a network, a display or long computing are left out.
RESOURCES = "all,-gui,-network,-urlfetch,-cpu"
WORKERS = 2
TIMEOUT = "1800"

Outcomes = dict[str, str]
"""By test: passed, skipped, failed, or several of them where a test has several outcomes."""


def available(modules: Iterable[str]) -> tuple[list[str], list[str]]:
    """Which of these modules the installed suite has, and which not."""
    library = next(Path("/usr/lib").glob(f"{Path(PYTHON).resolve().name}/test"))
    there = [module for module in modules if list(library.glob(f"{module}*"))]
    return there, [module for module in modules if module not in there]


def both(ground: Ground, modules: Sequence[str]) -> tuple[Outcomes, Outcomes]:
    """What became of each test on the host's disk and in the instance, in this order."""
    (ground.twin / "work").mkdir(mode=0o777)
    (ground.twin / "work").chmod(0o777)
    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = [
            (pool.submit(outcomes, ground.runner, module, folder), whose)
            for module in modules
            for whose, folder in enumerate((ground.twin / "work", ground.work))
        ]
        sides: tuple[Outcomes, Outcomes] = ({}, {})
        for job, whose in jobs:
            sides[whose].update(job.result())
    return sides


def outcomes(person: Person, module: str, folder: Path) -> Outcomes:
    """Runs one module with everything temporary in `folder`."""
    where = person.home / f"{module}-{folder.parent.name}.xml"
    command = [PYTHON, "-m", "test", "-u", RESOURCES, "--timeout", TIMEOUT]
    command += ["--tempdir", str(folder), "--junit-xml", str(where), module]
    ended = person.run("env", f"TMPDIR={folder}", *command, check=False, timeout=HOURS)
    if not where.exists():  # The module broke as a whole: at import, or it crashed or hung.
        return {f"{module} as a whole": f"ended with {ended.returncode}"}
    return read(module, where)


def read(module: str, report: Path) -> Outcomes:
    seen: dict[str, list[str]] = {}
    for case in ET.parse(report).iter("testcase"):
        tags = {child.tag for child in case}
        outcome = "failed" if tags & {"failure", "error"} else "passed"
        outcome = "skipped" if "skipped" in tags else outcome
        seen.setdefault(f"{module} {case.get('name')}", []).append(outcome)
    return {name: " ".join(sorted(outcome)) for name, outcome in seen.items()}


def differing(host: Outcomes, instance: Outcomes) -> dict[str, str]:
    """Tests with another outcome, each with both."""
    return {
        name: f"{host.get(name)} on the host, {instance.get(name)} in the instance"
        for name in sorted(host.keys() | instance.keys())
        if host.get(name) != instance.get(name)
    }


def summary(instance: Outcomes) -> str:
    counted = Counter(outcome for outcome in instance.values() if not outcome.startswith("ended"))
    return f"{counted.total()} tests: " + ", ".join(f"{n} {what}" for what, n in counted.items())
