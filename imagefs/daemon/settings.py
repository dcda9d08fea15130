"""What a mount is asked to be: handed from the command to the daemon's process."""

from __future__ import annotations

from pathlib import Path

import msgspec


class MountSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Paths are absolute and without symlinks. `owner` is a user's name, None for whoever
    mounts. `region` is the home region. `seal_after` is in seconds, 0 for never; `rest_after` is what
    MountOptions says."""

    store: str
    mountpoint: str
    account: str
    region: str = "local"
    seal_after: float = 60.0
    rest_after: float = 30.0
    allow_other: bool = False
    owner: str | None = None
    debug: bool = False

    @property
    def store_path(self) -> Path:
        """The store's directory."""
        return Path(self.store)

    @property
    def mountpoint_path(self) -> Path:
        """Where to mount."""
        return Path(self.mountpoint)
