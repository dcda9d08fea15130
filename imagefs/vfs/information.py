"""What `show`, `ls` and the extended attributes tell about images and instances."""

from __future__ import annotations

import msgspec

from imagefs.catalog import PUBLIC, State, TreeRow
from imagefs.errors import NoAttribute
from imagefs.format.manifest import format_digest
from imagefs.vfs.sharing import Share

PREFIX = b"user.imagefs."


class ImageInformation(msgspec.Struct, frozen=True, kw_only=True):
    """One image. Times are ns since the epoch; figures not known (drafts) are None. `region` is
    where it is unless that is the home region."""

    reference: str
    name: str
    owner: str
    kind: str
    state: str
    digest: str | None
    created: int
    parent: str | None
    entries: int | None
    bytes: int | None
    stored_bytes: int | None
    shared_with: list[str]
    alias: str | None = None
    region: str | None = None
    deleted: int | None = None


class InstanceInformation(msgspec.Struct, frozen=True, kw_only=True):
    """One instance. Times are ns since the epoch."""

    reference: str
    image: str
    name: str
    owner: str
    kind: str = "instance"
    state: str
    created: int
    parent: str | None
    entries: int | None
    bytes: int | None
    changed_bytes: int | None
    deleted: int | None = None


Information = ImageInformation | InstanceInformation


class Shared(msgspec.Struct, frozen=True):
    """What others share with an account, and what it shares itself."""

    images: list[ImageInformation]
    shares: list[Share]


def describe_image(
    row: TreeRow, entries: int | None, size: int | None, shared_with: list[str]
) -> ImageInformation:
    """What is told about an image; figures of a draft come from its overlay."""
    sealed = row.state is State.SEALED
    return ImageInformation(
        reference=row.reference,
        name=row.name,
        owner=row.account,
        kind="public" if PUBLIC in (row.account, *shared_with) else "custom",
        state=str(row.state),
        digest=format_digest(row.manifest) if sealed and row.manifest else None,
        created=row.created,
        parent=row.parent,
        entries=row.entries if sealed else entries,
        bytes=row.bytes if sealed else size,
        stored_bytes=row.stored,
        shared_with=shared_with,
        deleted=row.deleted,
    )


def describe_foreign_image(row: TreeRow, *, public: bool) -> ImageInformation:
    """What is told about another account's image: not with whom else it is shared."""
    return msgspec.structs.replace(
        describe_image(row, None, None, []),
        reference=f"{row.name}@{row.account}",
        kind="public" if public else "shared",
    )


def describe_instance(
    row: TreeRow, entries: int | None, size: int | None, changed: int | None
) -> InstanceInformation:
    """What is told about an instance; its figures come from its overlay."""
    return InstanceInformation(
        reference=row.reference,
        image=row.place,
        name=row.name,
        owner=row.account,
        state=str(row.state),
        created=row.created,
        parent=row.parent,
        entries=entries,
        bytes=size,
        changed_bytes=changed,
        deleted=row.deleted,
    )


def attribute(information: Information, name: bytes) -> bytes:
    """The value of an extended attribute `user.imagefs.*`; raises NoAttribute."""
    field = name.removeprefix(PREFIX).decode(errors="replace")
    value = getattr(information, field, None) if field in _ATTRIBUTES else None
    if value is None:
        raise NoAttribute(f"{information.reference} has no attribute {name.decode()!r}")
    if isinstance(value, list):
        return " ".join(value).encode()
    return str(value).encode()


_ATTRIBUTES = frozenset(
    {
        "kind", "state", "digest", "owner", "created", "parent", "entries", "bytes",
        "stored_bytes", "shared_with", "image", "changed_bytes",
    }
)  # fmt: skip
