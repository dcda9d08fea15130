"""What must be there of the manager's deeds after a crash: before or after, never between."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagefs.control.client import Client
from imagefs.control.messages import Images, Instances
from tests.crash.journal import holds
from tests.crash.manager import IMAGE


@dataclass
class Deed:
    """One deed: `begun` and `done` say how far it got, `digest` what it answered with."""

    kind: str
    name: str
    files: dict[str, str]
    begun: bool = False
    done: bool = False
    digest: str | None = None


@dataclass
class Deeds:
    """The deeds of one round by name, and whether the manager met the crash."""

    all: dict[str, Deed] = field(default_factory=dict)
    ended: int | None = None

    @classmethod
    def read(cls, lines: Iterable[str]) -> "Deeds":
        deeds = cls()
        for line in lines:
            event = json.loads(line)
            if event["is"] == "end":
                deeds.ended = int(event["errno"])
            elif event["is"] == "ready":
                deeds.all[event["name"]] = Deed(event["kind"], event["name"], event["files"])
            else:
                deed = deeds.all[event["name"]]
                deed.begun = True
                deed.done = event["is"] == "done"
                deed.digest = event.get("digest")
        return deeds

    @property
    def under_way(self) -> list[Deed]:
        """Deeds that had begun and not returned."""
        return [deed for deed in self.all.values() if deed.begun and not deed.done]

    def problems(self, cloud: Path, store: Path) -> list[str]:
        """What is not as it was told; with the account mounted again."""
        state = State.of(cloud, store)
        return [
            f"{deed.kind} {deed.name}: {p}"
            for deed in self.all.values()
            for p in state.of_deed(deed)
        ]


@dataclass
class State:
    """The images (with their digests) and instances there are, living and deleted."""

    cloud: Path
    images: dict[str, str | None]
    instances: set[str]
    deleted: set[str]

    @classmethod
    def of(cls, cloud: Path, store: Path) -> "State":
        client = Client.connect(store, "root")
        assert client is not None
        with client:
            images: list[dict[str, Any]] = client.call(Images())
            instances: list[dict[str, Any]] = client.call(Instances())
            deleted: list[dict[str, Any]] = client.call(Instances(True))
        return cls(
            cloud,
            {row["name"]: row["digest"] for row in images},
            {row["name"] for row in instances},
            {row["name"] for row in deleted},
        )

    def of_deed(self, deed: Deed) -> Iterator[str]:
        yield from getattr(self, f"of_{deed.kind}")(deed)

    def of_commit(self, deed: Deed) -> Iterator[str]:
        yield from self.differing(deed, self.instance(deed))
        yield from self.of_import(deed)

    def of_import(self, deed: Deed) -> Iterator[str]:
        """The image is there and whole, or not there at all."""
        if deed.name in self.images:
            yield from self.differing(deed, self.image(deed))
            if deed.done and self.images[deed.name] != deed.digest:
                yield f"it has digest {self.images[deed.name]}, told was {deed.digest}"
        elif deed.done:
            yield "the image is gone"

    def of_seal(self, deed: Deed) -> Iterator[str]:
        yield from self.differing(deed, self.image(deed))
        if deed.done and self.images.get(deed.name) != deed.digest:
            yield f"it has digest {self.images.get(deed.name)}, told was {deed.digest}"

    def of_promote(self, deed: Deed) -> Iterator[str]:
        is_image, is_instance = deed.name in self.images, deed.name in self.instances
        if is_image == is_instance or (deed.done and not is_image):
            yield f"image: {is_image}, instance: {is_instance}"
        yield from self.differing(deed, self.image(deed) if is_image else self.instance(deed))

    def of_reset(self, deed: Deed) -> Iterator[str]:
        folder = self.instance(deed)
        if not folder.is_dir():
            yield "the instance is gone"
        there = [name for name in deed.files if (folder / name).exists()]
        if deed.done and there:
            yield f"it has {there} again"
        elif there:
            yield from self.differing(deed, folder)

    def of_rm(self, deed: Deed) -> Iterator[str]:
        living, deleted = deed.name in self.instances, deed.name in self.deleted
        if living == deleted or (deed.done and living):
            yield f"living: {living}, deleted: {deleted}"
        if living:
            yield from self.differing(deed, self.instance(deed))

    def image(self, deed: Deed) -> Path:
        return self.cloud / "images" / deed.name

    def instance(self, deed: Deed) -> Path:
        return self.cloud / "instances" / IMAGE / deed.name

    def differing(self, deed: Deed, folder: Path) -> Iterator[str]:
        for name, sha in deed.files.items():
            if not holds(str(folder / name), sha):
                yield f"{folder / name} is not as written"
