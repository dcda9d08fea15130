"""What one account changes in regions: deleting, renaming, sharing, and what it says it uses.

The methods are steps: they raise NotReady with the work that takes the region. What was done there is
in the catalog when that work is over (`finish`), and not when the step is taken again: by then a
listing may have told of it, and nothing would be found to be done. So a step asks `taken` first
whether it has been carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from imagefs.catalog import Catalog, TreeRow
from imagefs.errors import NotReady
from imagefs.model import ObjectId
from imagefs.region.values import Image
from imagefs.store import Store
from imagefs.vfs.listed import published
from imagefs.vfs.regions import RegionalImages

if TYPE_CHECKING:
    from imagefs.region.region import Region

Done = Callable[[TreeRow], None]
"""Hears of the row of the image as it was, or is."""


class Publishing:
    """One account's changes of published images. `now` gives the time in ns."""

    def __init__(
        self, catalog: Catalog, regions: RegionalImages, account: str, now: Callable[[], int]
    ) -> None:
        self._catalog = catalog
        self._regions = regions
        self._account = account
        self._now = now
        self._done: dict[Hashable, TreeRow] = {}

    def __repr__(self) -> str:
        return f"<Publishing of {self._account}: {len(self._done)} answers to be taken>"

    def taken(self, *request: Hashable) -> TreeRow | None:
        """The answer to a request that has just been carried out: the first word is the method, then
        come region, image and what else there is. None if it was not, or was told already."""
        return self._done.pop(request, None)

    def use(self, image: TreeRow) -> None:
        """Raise NotReady until the region knows that this store has instances of the image, so
        that it keeps what they need even when the image is deleted there."""
        if not image.place or image.manifest is None:
            return
        # It is said anew as soon as there are none: a gc may have taken back what was said before.
        if image.manifest not in self._catalog.manifests_needed(image.place):
            work = partial(
                _use, self._regions.open(image.place), self._regions.store, image.manifest
            )
            self._regions.once(("use", image.place, image.manifest), work)

    def delete(self, image: TreeRow, done: Done) -> NotReady:
        """The work that deletes a published image in its region."""
        work = partial(self._regions.open(image.place).remove, image.account, image.name)

        def finish(_: None) -> TreeRow:
            self._catalog.forget(image)
            done(image)
            return image

        return self._work(("delete", image.place, image.name), [image.name], work, finish)

    def undelete(self, region: str, name: str, done: Done) -> NotReady:
        """The work that brings back the image of that name that was deleted last."""
        work = partial(self._regions.open(region).undelete, self._account, name)

        def finish(image: Image) -> TreeRow:
            row = self._catalog.adopt(region, published(image))
            done(row)
            return row

        return self._work(("undelete", region, name), [name], work, finish)

    def rename(self, image: TreeRow, name: str, done: Done) -> NotReady:
        """The work that gives a published image another name."""
        work = partial(self._regions.open(image.place).rename, image.account, image.name, name)

        def finish(renamed: Image) -> TreeRow:
            row = self._catalog.adopt(image.place, published(renamed), image)
            done(row)
            return row

        request = ("rename", image.place, image.name, name)
        return self._work(request, [image.name, name], work, finish)

    def share(self, image: TreeRow, grantees: Sequence[str]) -> NotReady:
        """The work that shares a published image with accounts of all machines."""
        region = self._regions.open(image.place)
        work = partial(region.share, image.account, image.name, grantees)

        def finish(_: None) -> TreeRow:
            if self._catalog.tree(image.number) is not None:
                self._catalog.share(image, grantees, self._now())
            return image

        return self._work(_sharing("share", image, grantees), [image.name], work, finish)

    def unshare(self, image: TreeRow, grantees: Sequence[str]) -> NotReady:
        """The work that ends that."""
        region = self._regions.open(image.place)
        work = partial(region.unshare, image.account, image.name, grantees)

        def finish(_: None) -> TreeRow:
            left = self._catalog.shared_with(image.number)
            self._catalog.unshare(image, [name for name in grantees if name in left])
            return image

        return self._work(_sharing("unshare", image, grantees), [image.name], work, finish)

    def _work(
        self,
        request: tuple[Hashable, ...],
        names: Sequence[str],
        work: Callable[[], Any],
        finish: Callable[[Any], TreeRow],
    ) -> NotReady:
        def finished(result: Any) -> None:
            # Also where it failed: the region may have done it, and the answer was lost.
            self._regions.changed_names(str(request[1]), names)
            if isinstance(result, Exception):
                raise result
            self._done[request] = finish(result)

        return NotReady(request, partial(_attempt, work), finished, remote=True)


def _sharing(what: str, image: TreeRow, grantees: Sequence[str]) -> tuple[Hashable, ...]:
    return what, image.place, image.name, tuple(grantees)


def _attempt(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - handed on to `finished`, which raises it
        return error


def _use(region: Region, store: Store, manifest: ObjectId) -> None:
    """Tell a region that instances here are to stand on a tree, and keep its manifest here: so
    they can be listed whatever the region does."""
    region.use(manifest)
    with store.writer() as writer:
        writer.put_hashed(manifest, store.get(manifest), metadata=True)
        writer.finish()
