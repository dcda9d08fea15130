"""A mount with a store of its own that the model works in, and the ways in which it ends."""

import os
import select
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from imagefs.cli.place import Place
from imagefs.cli.session import open_session
from imagefs.control.client import Client
from imagefs.control.messages import CheckOverlay, Publish, Request
from imagefs.daemon import mountpoint
from imagefs.daemon.assembly import create_store
from imagefs.daemon.launch import launch
from imagefs.daemon.settings import MountSettings
from imagefs.errors import MountError
from imagefs.format.manifest import format_digest
from imagefs.model import ObjectId
from imagefs.store import Store
from imagefs.transfer.import_directory import import_directory
from imagefs.vfs.node import INO_BITS
from tests.acceptance.person import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
ACCOUNT = "model"
PATIENCE = 120.0
REST_AFTER = 0.1
"""Seconds after which an overlay closes its files: soon, so that a script can wait for it."""


class Mount:
    """Everybody may enter, and the kernel enforces modes; nothing is sealed by time."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.cloud = home / "cloud"
        self.store_path = home / "store"
        self.pid = 0
        home.mkdir(mode=0o755)
        create_store(self.store_path)
        self.store = Store.open(self.store_path)
        self.start()

    @property
    def images(self) -> Path:
        return self.cloud / "images"

    @property
    def instances(self) -> Path:
        return self.cloud / "instances"

    def start(self) -> None:
        settings = MountSettings(
            store=str(self.store_path),
            mountpoint=str(self.cloud),
            account=ACCOUNT,
            seal_after=0,
            allow_other=True,
            rest_after=REST_AFTER,
        )
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        launch(settings, environment)
        self.pid = int(os.getxattr(self.cloud, "user.imagefs.process"))

    def stop(self) -> None:
        """Raises Busy while something is open."""
        try:
            mountpoint.unmount(self.cloud)
        except MountError:
            # A mount namespace that somebody made meanwhile has the mount, too.
            assert not self.cloud.is_mount()
            os.kill(self.pid, signal.SIGTERM)
        self._reap()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        process = os.pidfd_open(self.pid)
        ended, _, _ = select.select([process], [], [], PATIENCE)
        os.close(process)
        assert ended, "The daemon did not end"
        os.waitpid(self.pid, 0)
        self.pid = 0

    def end(self) -> None:
        """Whatever state it is in; nothing is left."""
        self.store.close()
        if self.pid:
            self.kill()
        if mountpoint.mounted_type(self.cloud) is not None:
            mountpoint.detach(self.cloud)
        shutil.rmtree(self.home)

    # -- commands -----------------------------------------------------------------------

    def call(self, request: Request) -> Any:
        client = Client.connect(self.store_path, ACCOUNT)
        assert client is not None, "Nobody listens"
        with client:
            return client.call(request)

    def collect(self, reference: str) -> None:
        """Have the kernel hand over what was written through maps, as a command does."""
        with open_session(Place(self.store_path, ACCOUNT)) as session:
            session.collect(reference)

    def overlay_problems(self, root: int) -> list[str]:
        """What `imagefs verify` says about the instance or draft whose root has this number."""
        problems: list[str] = self.call(CheckOverlay(root >> INO_BITS))
        return problems

    def import_tree(self, directory: Path) -> bytes:
        with self.store.writer() as writer:
            return import_directory(directory, writer, self.store.get)

    def publish(self, directory: Path, name: str) -> str:
        digest: str = self.call(Publish(name, self.import_tree(directory)))["digest"]
        return digest

    def digest_of(self, directory: Path) -> str:
        """The digest that an import of the directory would have."""
        return format_digest(ObjectId(self.import_tree(directory)))

    def wait_for_rest(self) -> None:
        """Until no overlay has a file open."""
        wait_until(lambda: not self._open_overlays(), "all overlays to rest", PATIENCE)

    def _open_overlays(self) -> int:
        folder = Path(f"/proc/{self.pid}/fd")
        count = 0
        for number in os.listdir(folder):
            try:
                count += "/heap" in os.readlink(folder / number)
            except FileNotFoundError:
                continue
        return count

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted((self.store_path / "log").iterdir()))


def copy(source: Path, target: Path) -> None:
    """A tree of the host, with everything."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
