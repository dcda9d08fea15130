"""What must be there after a crash, by what the copier was told is done."""

import json
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path


@dataclass
class Journal:
    """The state that every finished operation led to.

    `unsure` are paths with an operation under way: of those either state is right, as is of those
    being rewritten in part, but these must be there. `moving` is the one rename under way, of which
    exactly one name must be there.
    """

    directories: set[str] = field(default_factory=set)
    files: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    rewriting: set[str] = field(default_factory=set)
    moving: tuple[str, str, str] | None = None
    ended: int | None = None

    @classmethod
    def read(cls, lines: Iterable[str]) -> "Journal":
        journal = cls()
        for line in lines:
            journal.add(json.loads(line))
        return journal

    def add(self, event: dict[str, str]) -> None:
        path, kind = event["path"], event["is"]
        if kind == "directory":
            self.directories.add(path)
        elif kind == "started":
            self.unsure.add(path)
        elif kind == "file":
            self.unsure.discard(path)
            self.rewriting.discard(path)
            self.files[path] = event["sha256"]
        elif kind == "rewriting":
            del self.files[path]
            self.rewriting.add(path)
        elif kind == "end":
            self.ended = int(event["errno"])
        else:
            self.add_change(path, kind, event)

    def add_change(self, path: str, kind: str, event: dict[str, str]) -> None:
        if kind == "going":
            del self.files[path]
            self.unsure.add(path)
        elif kind == "gone":
            self.unsure.discard(path)
            self.gone.add(path)
        elif kind == "moving":
            self.moving = (path, event["to"], self.files.pop(path))
        elif kind == "moved":
            self.files[event["to"]] = self.moving[2] if self.moving else ""
            self.gone.add(path)
            self.moving = None
        elif kind == "linked":
            self.files[event["to"]] = self.files[path]
            self.links[event["to"]] = path
        elif kind == "marked":
            self.marks[path] = event["mark"]

    @property
    def under_way(self) -> int:
        """Operations that had begun and not returned."""
        return len(self.unsure) + len(self.rewriting) + (self.moving is not None)

    def problems(self) -> list[str]:
        """What is not as it was reported; to be called with the file system mounted again."""
        found = [f"no directory: {path}" for path in self.directories if not os.path.isdir(path)]
        found += [
            f"not as written: {path}" for path, sha in self.files.items() if not holds(path, sha)
        ]
        found += [f"gone: {path}" for path in self.rewriting if not os.path.isfile(path)]
        found += [f"back again: {path}" for path in self.gone if os.path.lexists(path)]
        found += [
            f"no longer linked: {path}"
            for path, other in self.links.items()
            if not os.path.samefile(path, other)
        ]
        found += [
            f"mark lost: {path}" for path, mark in self.marks.items() if not marked(path, mark)
        ]
        if self.moving:
            old, new, sha = self.moving
            if [holds(old, sha), holds(new, sha)].count(True) != 1:
                found.append(f"renamed by half: {old} to {new}")
        return found + self.strangers()

    def strangers(self) -> list[str]:
        """Names that nobody made, in the folders the copier worked in."""
        known = {*self.files, *self.unsure, *self.rewriting, *self.links}
        if self.moving:
            known |= set(self.moving[:2])
        # One more link may have been made than was reported.
        return [
            f"never made: {path}"
            for folder in self.directories
            for path in map(str, Path(folder).iterdir())
            if path not in known and not path.endswith("/linked")
        ]


def holds(path: str, sha: str) -> bool:
    try:
        return sha256(Path(path).read_bytes()).hexdigest() == sha
    except FileNotFoundError:
        return False


def marked(path: str, mark: str) -> bool:
    return (
        os.getxattr(path, "user.mark") == mark.encode()
        and stat.S_IMODE(os.stat(path).st_mode) == 0o444
    )
