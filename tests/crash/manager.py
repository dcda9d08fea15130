"""Does one kind of thing to whole images and instances, over and over (see tests.crash.worker).

Each deed has a name. It is noted when what it is done to is ready (with the hashes of its files),
when it begins, and when it has returned (with the digest it answered with).
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from imagefs.control.client import Client
from imagefs.control.messages import Commit, Publish, Remove, Request, Reset, Seal
from imagefs.errors import ImagefsError
from imagefs.store import Store
from imagefs.transfer.import_directory import import_directory

FILES = {"commit": 50, "seal": 50, "promote": 50, "reset": 2, "rm": 2, "import": 50}
SIZE = 30_000
IMAGE = "base"


def operations(
    kind: str, cloud: str, store: str, source: str, seed: int
) -> Iterator[dict[str, Any]]:
    """Works for ever; yields what is true from now on."""
    rng = random.Random(seed)
    number = 0
    while True:
        number += 1
        name = f"{kind}-{seed}-{number}"
        files = prepare(folder_of(kind, Path(cloud), source, name), rng, FILES[kind])
        yield {"kind": kind, "name": name, "is": "ready", "files": files}
        yield {"kind": kind, "name": name, "is": "begun"}
        digest = DEEDS[kind](Path(cloud), Path(store), source, name)
        yield {"kind": kind, "name": name, "is": "done", "digest": digest}


def folder_of(kind: str, cloud: Path, source: str, name: str) -> Path:
    """What the deed is done to."""
    if kind == "import":
        if Path(source).exists():  # it was killed before it made it again
            shutil.rmtree(source)
        return Path(source)
    return cloud / ("images" if kind == "seal" else f"instances/{IMAGE}") / name


def prepare(folder: Path, rng: random.Random, count: int) -> dict[str, str]:
    folder.mkdir()
    files = {}
    for number in range(count):
        data = rng.randbytes(SIZE)
        (folder / f"file-{number}").write_bytes(data)
        files[f"file-{number}"] = sha256(data).hexdigest()
    return files


def call(store: Path, request: Request) -> Any:
    client = Client.connect(store, "root")
    if client is None:
        raise ImagefsError("The daemon is gone")
    with client:
        return client.call(request)


def commit(cloud: Path, store: Path, source: str, name: str) -> str | None:
    digest: str = call(store, Commit(f"{IMAGE}/{name}", name))["digest"]
    return digest


def seal(cloud: Path, store: Path, source: str, name: str) -> str | None:
    digest: str = call(store, Seal(name))["digest"]
    return digest


def promote(cloud: Path, store: Path, source: str, name: str) -> str | None:
    os.rename(cloud / "instances" / IMAGE / name, cloud / "images" / name)
    return None


def reset(cloud: Path, store: Path, source: str, name: str) -> str | None:
    call(store, Reset(f"{IMAGE}/{name}"))
    return None


def remove(cloud: Path, store: Path, source: str, name: str) -> str | None:
    call(store, Remove(f"{IMAGE}/{name}"))
    return None


def take_in(cloud: Path, store: Path, source: str, name: str) -> str | None:
    """What `imagefs import` does, without starting Python for it."""
    with Store.open(store) as opened, opened.writer() as writer:
        manifest = import_directory(source, writer, opened.get)
        stored = writer.stored_bytes
    digest: str = call(store, Publish(name, manifest, stored))["digest"]
    return digest


DEEDS: dict[str, Callable[[Path, Path, str, str], str | None]] = {
    "commit": commit,
    "seal": seal,
    "promote": promote,
    "reset": reset,
    "rm": remove,
    "import": take_in,
}
