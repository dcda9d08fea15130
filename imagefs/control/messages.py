"""The messages: what a command may ask for, and the two kinds of answers.

Every message is a length (4 bytes, big-endian) and that many bytes of MessagePack. A request
names itself in `type` and carries the arguments of one verb of the vfs's lifecycle. Answers
carry plain values, so that the asking side needs none of the vfs's types.
"""

from __future__ import annotations

from typing import Any

import msgspec

from imagefs import errors
from imagefs.errors import ImagefsError

HEADER_SIZE = 4
MAX_SIZE = 64 * 1024 * 1024


class Request(msgspec.Struct, frozen=True, tag=str.lower, tag_field="type"):
    """Base of the requests."""


class Images(Request, frozen=True):
    deleted: bool = False


class Instances(Request, frozen=True):
    deleted: bool = False


class Show(Request, frozen=True):
    reference: str


class Clone(Request, frozen=True):
    image: str
    names: list[str]


class Commit(Request, frozen=True):
    instance: str
    name: str


class Reset(Request, frozen=True):
    instance: str


class Seal(Request, frozen=True):
    image: str


class Remove(Request, frozen=True):
    reference: str


class Undelete(Request, frozen=True):
    reference: str


class Shared(Request, frozen=True):
    pass


class Share(Request, frozen=True):
    image: str
    accounts: list[str]


class Unshare(Request, frozen=True):
    image: str
    accounts: list[str]


class Publish(Request, frozen=True):
    name: str
    manifest: bytes
    stored: int = 0


class Manifest(Request, frozen=True):
    reference: str


class Writable(Request, frozen=True):
    reference: str


class CheckOverlay(Request, frozen=True):
    number: int


class StoredContents(Request, frozen=True):
    number: int
    after: int = 0


class InodePath(Request, frozen=True):
    number: int
    ino: int


class Regions(Request, frozen=True):
    pass


class AddRegion(Request, frozen=True):
    name: str
    url: str


class RemoveRegion(Request, frozen=True):
    name: str


class CleanRegion(Request, frozen=True):
    """`retain` in ns."""

    name: str
    retain: int
    dry_run: bool = False


class Regional(Request, frozen=True):
    """The images of all regions but the home region."""

    deleted: bool = False


class Copy(Request, frozen=True):
    image: str
    region: str


class PlanCopy(Request, frozen=True):
    image: str
    region: str


class CopyProgress(Request, frozen=True):
    """How far the copy is that is under way to a name in a region: bytes, and of how many."""

    region: str
    name: str


class CancelCopy(Request, frozen=True):
    region: str
    name: str


class Status(Request, frozen=True):
    """How the daemon is; only a daemon can tell."""


AnyRequest = (
    Images
    | Instances
    | Show
    | Clone
    | Commit
    | Reset
    | Seal
    | Remove
    | Undelete
    | Shared
    | Share
    | Unshare
    | Publish
    | Manifest
    | Writable
    | CheckOverlay
    | StoredContents
    | InodePath
    | Regions
    | AddRegion
    | RemoveRegion
    | CleanRegion
    | Regional
    | Copy
    | PlanCopy
    | CopyProgress
    | CancelCopy
    | Status
)


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The request was carried out."""

    result: Any = None


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The request failed: the class of the error and its message."""

    error: str
    message: str


Answer = Done | Failed

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[AnyRequest] = msgspec.msgpack.Decoder(AnyRequest)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode(message: Request | Answer) -> bytes:
    """One message as it travels."""
    body = _encoder.encode(message)
    return len(body).to_bytes(HEADER_SIZE, "big") + body


def body_size(header: bytes) -> int:
    """The length of the message behind a header; raises InvalidArgument."""
    size = int.from_bytes(header, "big")
    if size > MAX_SIZE:
        raise errors.InvalidArgument(f"A message of {size} bytes is too long")
    return size


def decode_request(body: bytes) -> AnyRequest:
    """The request in a body; raises InvalidArgument."""
    try:
        return _requests.decode(body)
    except msgspec.MsgspecError as error:
        raise errors.InvalidArgument(f"The daemon does not know this request: {error}") from error


def decode_answer(body: bytes) -> Answer:
    """The answer in a body; raises InvalidArgument."""
    try:
        return _answers.decode(body)
    except msgspec.MsgspecError as error:
        raise errors.InvalidArgument(f"The daemon's answer makes no sense: {error}") from error


def failed(error: ImagefsError) -> Failed:
    """The answer that tells of an error."""
    return Failed(type(error).__name__, str(error))


def raised(failure: Failed) -> ImagefsError:
    """The error that an answer tells of, to be raised on this side."""
    kind = getattr(errors, failure.error, None)
    if isinstance(kind, type) and issubclass(kind, ImagefsError):
        return kind(failure.message)
    return ImagefsError(failure.message)
