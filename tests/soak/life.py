"""A program that makes and unmakes images and instances without rest, while others work.

    python -m tests.soak.life MOUNTPOINT INSTANCE SEED

Run as `python -m tests.soak.life`. By file operations alone: clones INSTANCE's image, changes the
clone, turns it into an image, launches from that, and takes all of it away again; so the number of
images and instances is bounded. It ends when its standard input does.
"""

import json
import os
import random
import selectors
import shutil
import sys
from collections import Counter
from pathlib import Path


class Life:
    """One round after the other; every round leaves what was there before."""

    def __init__(self, cloud: Path, image: str, seed: int) -> None:
        self.images, self.clones = cloud / "images", cloud / "instances"
        self.image = image
        self.rng = random.Random(seed)
        self.done: Counter[str] = Counter()

    def round(self) -> None:
        clone = self.clones / self.image / "passing"
        clone.mkdir()
        (clone / "note").write_bytes(self.rng.randbytes(self.rng.randrange(200_000)))
        shutil.rmtree(clone / "d0", ignore_errors=True)
        self.done["cloned"] += 1
        if self.rng.random() < 0.3:
            shutil.rmtree(clone)
            self.done["removed by rm -r"] += 1
            return
        made = self.images / "passing"
        clone.rename(made)
        second = self.clones / "passing/again"
        second.mkdir()
        if (second / "note").read_bytes() != (made / "note").read_bytes():
            raise AssertionError("The clone of an image is not equal to it")
        self.draft(second)
        shutil.rmtree(second)
        made.rmdir()
        self.done["turned into an image and removed"] += 1

    def draft(self, source: Path) -> None:
        draft = self.images / "filled"
        draft.mkdir()
        shutil.copy2(source / "note", draft / "note")
        draft.chmod(0o555)
        os.getxattr(draft, "user.imagefs.digest")
        draft.rmdir()
        self.done["filled and sealed"] += 1


def main(cloud: str, image: str, seed: str) -> None:
    life = Life(Path(cloud), image, int(seed))
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        while not selector.select(0):
            life.round()
    print(json.dumps({"done": life.done}))


if __name__ == "__main__":
    main(*sys.argv[1:])
