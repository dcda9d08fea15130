"""The one error tree.

Every failure that imagefs itself reports is an `ImagefsError`. Each class knows the
`errno` a file operation answers with and the exit code of the command. Messages start
with a capital letter, end without a period, carry the values that matter and say what
to do where that is not obvious. Any other exception that reaches a border is a bug.

`NotReady` is not an error: it is how a synchronous step says that it needs something
first (see its docstring).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable
from typing import Any, ClassVar

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_REFUSED = 4
EXIT_DAMAGED = 5


class ImagefsError(Exception):
    """Base of all errors; `errno` is for file operations, `exit_code` for the command."""

    errno: ClassVar[int] = errno.EIO
    exit_code: ClassVar[int] = EXIT_FAILED


class InvalidName(ImagefsError):
    """A name or reference that the grammar does not allow."""

    errno = errno.EINVAL
    exit_code = EXIT_USAGE


class InvalidArgument(ImagefsError):
    """An argument that makes no sense, whatever the state."""

    errno = errno.EINVAL
    exit_code = EXIT_USAGE


class NotFound(ImagefsError):
    errno = errno.ENOENT
    exit_code = EXIT_NOT_FOUND


class Stale(NotFound):
    """The inode belonged to something that exists no longer."""

    errno = errno.ESTALE


class PlaceGone(NotFound):
    """The bucket or directory of a region is not there, or not a region: what was asked for may be
    there all the same, so a file operation does not say that it is not."""

    errno = errno.EIO


class Exists(ImagefsError):
    errno = errno.EEXIST
    exit_code = EXIT_REFUSED


class Busy(ImagefsError):
    errno = errno.EBUSY
    exit_code = EXIT_REFUSED


class Cancelled(ImagefsError):
    """Work ended because somebody said so; what it has done so far is kept where it can be."""

    errno = errno.EINTR


class NotPermitted(ImagefsError):
    """The place does not allow the operation, whoever asks."""

    errno = errno.EPERM
    exit_code = EXIT_REFUSED


class AccessDenied(ImagefsError):
    """The caller lacks the right."""

    errno = errno.EACCES
    exit_code = EXIT_REFUSED


class ReadOnly(ImagefsError):
    """A change in a sealed image."""

    errno = errno.EROFS
    exit_code = EXIT_REFUSED


class CrossDevice(ImagefsError):
    """A rename or link across two instances or images."""

    errno = errno.EXDEV
    exit_code = EXIT_REFUSED


class NotADirectory(ImagefsError):
    errno = errno.ENOTDIR
    exit_code = EXIT_REFUSED


class IsADirectory(ImagefsError):
    errno = errno.EISDIR
    exit_code = EXIT_REFUSED


class NotEmpty(ImagefsError):
    errno = errno.ENOTEMPTY
    exit_code = EXIT_REFUSED


class NameTooLong(ImagefsError):
    errno = errno.ENAMETOOLONG
    exit_code = EXIT_USAGE


class TooManyLinks(ImagefsError):
    errno = errno.EMLINK
    exit_code = EXIT_REFUSED


class FileTooBig(ImagefsError):
    errno = errno.EFBIG


class NoAttribute(ImagefsError):
    """The extended attribute does not exist."""

    errno = errno.ENODATA
    exit_code = EXIT_NOT_FOUND


class AttributeTooBig(ImagefsError):
    """An extended attribute value or the list of them is larger than Linux allows."""

    errno = errno.E2BIG


class NotSupported(ImagefsError):
    errno = errno.EOPNOTSUPP


class NoSpace(ImagefsError):
    errno = errno.ENOSPC


class IOFailure(ImagefsError):
    """The host's disk answered with an error."""

    errno = errno.EIO


class Unreachable(ImagefsError):
    """The service of a region, or the way to it, does not answer, after several tries."""

    errno = errno.EIO


class Corrupt(ImagefsError):
    """Stored bytes are not what was written; the message names them."""

    errno = errno.EIO
    exit_code = EXIT_DAMAGED


class StoreError(ImagefsError):
    """The store as a whole cannot be used: not a store, unknown version, not writable."""

    errno = errno.EIO


class MountError(ImagefsError):
    """The mount cannot be made or ended: the message says why and what to do."""

    errno = errno.EIO
    exit_code = EXIT_REFUSED


class NotReady(Exception):
    """A synchronous step needs something first; do that and take the step again.

    Steps are plain functions on the loop's thread and change nothing before they raise
    this. `key` names what is missing, so that many steps that need the same thing cause
    one piece of work. `work` takes bytes to bytes and may block: it runs in a worker
    thread (offline: in place). `finish` then runs on the loop's thread with the result
    of `work`. An exception of `work` or `finish` is the answer to every step that asked
    for that work. With `work` None the step only waits until work under the same key, which
    is already going on, is over in whatever way. `remote` says that `work` waits for another
    machine, maybe for long: it must not take a thread from work that is done here. `lasting` says
    that it may go on for hours: it must not take one from work that is soon done.
    """

    def __init__(
        self,
        key: Hashable,
        work: Callable[[], Any] | None,
        finish: Callable[[Any], None] | None = None,
        *,
        remote: bool = False,
        lasting: bool = False,
    ) -> None:
        super().__init__(key)
        self.key = key
        self.work = work
        self.finish = finish
        self.remote = remote
        self.lasting = lasting
