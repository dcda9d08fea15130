"""What each request means: one call of the lifecycle. The same with and without a daemon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from imagefs.control import messages
from imagefs.control.messages import Request
from imagefs.errors import NotSupported
from imagefs.vfs import Lifecycle

_VERBS: dict[type[Request], Callable[[Lifecycle, Any], Any]] = {
    messages.Images: lambda lifecycle, m: lifecycle.descriptions.images(m.deleted),
    messages.Instances: lambda lifecycle, m: lifecycle.descriptions.instances(m.deleted),
    messages.Show: lambda lifecycle, m: lifecycle.show(m.reference),
    messages.Clone: lambda lifecycle, m: lifecycle.clone(m.image, m.names),
    messages.Commit: lambda lifecycle, m: lifecycle.commit(m.instance, m.name),
    messages.Reset: lambda lifecycle, m: lifecycle.reset(m.instance),
    messages.Seal: lambda lifecycle, m: lifecycle.seal(m.image),
    messages.Remove: lambda lifecycle, m: lifecycle.remove(m.reference),
    messages.Undelete: lambda lifecycle, m: lifecycle.undelete(m.reference),
    messages.Shared: lambda lifecycle, _: lifecycle.descriptions.shared(),
    messages.Share: lambda lifecycle, m: lifecycle.share(m.image, m.accounts),
    messages.Unshare: lambda lifecycle, m: lifecycle.unshare(m.image, m.accounts),
    messages.Publish: lambda lifecycle, m: lifecycle.publish(m.name, m.manifest, m.stored),
    messages.Manifest: lambda lifecycle, m: lifecycle.manifest(m.reference),
    messages.Writable: lambda lifecycle, m: lifecycle.writable(m.reference),
    messages.CheckOverlay: lambda lifecycle, m: lifecycle.inspection.check(m.number),
    messages.StoredContents: lambda lifecycle, m: lifecycle.inspection.contents(m.number, m.after),
    messages.Regions: lambda lifecycle, _: lifecycle.regions.all(),
    messages.AddRegion: lambda lifecycle, m: lifecycle.regions.add(m.name, m.url),
    messages.RemoveRegion: lambda lifecycle, m: lifecycle.regions.remove(m.name),
    messages.CleanRegion: lambda lifecycle, m: lifecycle.regions.clean(
        m.name, m.retain, dry_run=m.dry_run
    ),
    messages.Regional: lambda lifecycle, m: lifecycle.descriptions.regional(m.deleted),
    messages.Copy: lambda lifecycle, m: lifecycle.copy(m.image, m.region),
    messages.PlanCopy: lambda lifecycle, m: lifecycle.plan_copy(m.image, m.region),
    messages.CopyProgress: lambda lifecycle, m: lifecycle.regions.progress(m.region, m.name),
    messages.CancelCopy: lambda lifecycle, m: lifecycle.regions.end(m.region, m.name),
    messages.InodePath: lambda lifecycle, m: lifecycle.inspection.path(m.number, m.ino),
}


def perform(lifecycle: Lifecycle, request: Request) -> Any:
    """A step: carry out a request. Raises NotReady and what the lifecycle raises."""
    verb = _VERBS.get(type(request))
    if verb is None:
        raise NotSupported(f"Nobody answers {type(request).__name__} without a daemon")
    return verb(lifecycle, request)
