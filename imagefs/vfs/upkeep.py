"""What has to be done without anybody asking, and when.

Drafts that nobody writes to any more are sealed, changes that nobody synced become durable
within seconds, overlays that nobody changed for a while have their files closed, overlays
that nobody needs are removed. This module only says what is due;
the daemon runs the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from imagefs.catalog import State, TreeRow
from imagefs.errors import ImagefsError
from imagefs.model import SECOND
from imagefs.vfs.caller import MountOptions
from imagefs.vfs.lifecycle import Lifecycle
from imagefs.vfs.volume import Volume
from imagefs.vfs.volumes import Volumes

Step = Callable[[], object]

FLUSH_AFTER = 5 * SECOND
"""How long (ns) a change may wait to be made durable when nobody asks."""


class Upkeep:
    """The background work of one account's view; `options` say when some of it is due.

    `drafts` were left by an earlier mount: time goes on sealing them.
    """

    def __init__(
        self,
        volumes: Volumes,
        lifecycle: Lifecycle,
        clock: Callable[[], int],
        options: MountOptions,
        drafts: Iterable[TreeRow],
    ) -> None:
        self._volumes = volumes
        self._lifecycle = lifecycle
        self._clock = clock
        self._seal_after = int(options.seal_after * SECOND)
        self._rest_after = int(options.rest_after * SECOND)
        self._names_changed: int | None = None
        """When (ns) names above the trees were first seen to be changed and not durable."""
        self._left = {row.number: row for row in drafts if row.state is State.DRAFT}

    def next_due(self) -> int | None:
        """When (ns) `due` has something: 0 for now, None for not before something changes."""
        if self._left or self._volumes.chores():
            return 0
        times = [volume.last_change + self._seal_after for volume in self._unsealed()]
        times += [volume.unsynced_since + FLUSH_AFTER for volume in self._unsynced()]
        times += [volume.last_use + self._rest_after for volume in self._resting()]
        since = self._names_since()
        if since is not None:
            times.append(since + FLUSH_AFTER)
        return min(times, default=None)

    def due(self) -> list[Step]:
        """Steps that are due. One that fails is due again only after as long as before."""
        now = self._clock()
        steps: list[Step] = [partial(self._take_up, row) for row in self._left.values()]
        steps += self._volumes.chores()
        for volume in self._unsynced():
            if volume.unsynced_since + FLUSH_AFTER <= now:
                volume.unsynced_since = now
                steps.append(partial(self._flush, volume, volume.changes))
        since = self._names_since()
        if since is not None and since + FLUSH_AFTER <= now:
            self._names_changed = now
            changes = self._volumes.name_changes
            steps.append(partial(self._volumes.require_names_durable, changes))
        for volume in self._resting():
            if volume.last_use + self._rest_after <= now:
                volume.last_use = now
                steps.append(partial(self._rest, volume))
        for volume in self._unsealed():
            if volume.last_change + self._seal_after <= now:
                volume.last_change = now
                steps.append(partial(self._seal, volume))
        return steps

    def _take_up(self, row: TreeRow) -> None:
        """A draft left by an earlier mount is in use from now on; what it holds counts as one
        change made now."""
        if self._volumes.in_use(row.number) is not None:
            del self._left[row.number]
            return
        try:
            volume = self._volumes.open(row)
            filled = volume.overlay.entries
        except ImagefsError:
            del self._left[row.number]
            raise
        if filled:
            volume.changed(self._clock())
        del self._left[row.number]

    def _unsealed(self) -> Iterator[Volume]:
        """Drafts that time alone will seal: written to, and no file open for writing.

        One that is still empty waits for whoever made it to fill it.
        """
        if not self._seal_after:
            return
        for volume in self._volumes:
            draft = volume.row.state is State.DRAFT and not volume.superseded
            if draft and not volume.writers and volume.changes:
                yield volume

    def _unsynced(self) -> Iterator[Volume]:
        """Volumes with changes that power loss would take."""
        for volume in self._volumes:
            if volume.synced < volume.changes and not volume.superseded:
                yield volume

    def _names_since(self) -> int | None:
        """Since when names above the trees are changed and not durable."""
        if self._volumes.names_durable:
            self._names_changed = None
        elif self._names_changed is None:
            self._names_changed = self._clock()
        return self._names_changed

    def _resting(self) -> Iterator[Volume]:
        """Volumes whose files are open for nothing."""
        for volume in self._volumes:
            if volume.may_rest:
                yield volume

    def _rest(self, volume: Volume) -> None:
        # Other steps were taken since it was found due.
        if volume.may_rest:
            volume.overlay.close()

    def _flush(self, volume: Volume, changes: int) -> None:
        volume.require_synced(changes)
        self._volumes.release(volume)

    def _seal(self, volume: Volume) -> None:
        if not volume.superseded:
            self._lifecycle.require_sealed(volume.row)
