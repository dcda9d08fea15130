"""What went wrong with one request, read from the exception of the client; pure.

object_store tells some failures by type and the rest (all of listings, most of anything) by text, so
text is read: the status and the code of the service's own answer, or why there was none. Whatever is
not known to be final is worth another try.
"""

from __future__ import annotations

import enum
import re

import msgspec
import obstore.exceptions

_STATUS = re.compile(r"status code: (\d{3})(?: ([A-Za-z][A-Za-z -]*))?")
_CODE = re.compile(r"<Code>\s*([A-Za-z0-9._-]{1,64})\s*</Code>")
_MESSAGE = re.compile(r"<Message>\s*([^<]{1,200}?)\s*</Message>")
_KIND = re.compile(r"HttpError \{\s*kind: (\w+)")
_OS_ERROR = re.compile(r'kind: \w+,\s*message: "([^"]{1,100})"')
_FRAME = re.compile(r"^(?:Generic \w+ error: )+")
_TIMING = re.compile(r" in [0-9.]+(?:ns|µs|ms|s) - ")
_MAX_REASON = 160

_AGAIN_STATUS = frozenset({408, 425, 429})
_AGAIN_CODES = frozenset(
    {"ConditionalRequestConflict", "OperationAborted", "RequestTimeout", "SlowDown"}
)
_DENIED_CODES = frozenset(
    {
        "ExpiredToken",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "TokenRefreshRequired",
        "InvalidAccessKeyId",
    }
)
_NO_BUCKET_CODES = frozenset({"NoSuchBucket", "ContainerNotFound"})
_NOT_OF_THE_SERVICE = ("External AWS credential provider", "Error performing token request")


class What(enum.Enum):
    """What kind of failure it was."""

    ABSENT = enum.auto()
    NO_BUCKET = enum.auto()
    NO_CREDENTIALS = enum.auto()
    DENIED = enum.auto()
    EXISTS = enum.auto()
    BEYOND = enum.auto()  # the range begins behind the object's end
    NOT_PARTIAL = enum.auto()  # a range was answered as if it were the whole
    ELSEWHERE = enum.auto()  # the bucket is in another region of the service
    UNREADABLE_KEY = enum.auto()  # a listing has a key in it that the client cannot even name
    FULL = enum.auto()
    REFUSED = enum.auto()  # the service does not want it, now or later
    NO_CONNECTION = enum.auto()  # nothing was sent
    AGAIN = enum.auto()  # anything else: it may do, or may have been done


class Trouble(msgspec.Struct, frozen=True):
    """A failure and why, in some words that can stand in a message."""

    what: What
    reason: str


def trouble_of(error: Exception) -> Trouble:
    """What an exception of obstore means."""
    text, _, debug = str(error).partition("\n\nDebug source")
    if any(words in text for words in _NOT_OF_THE_SERVICE):
        return Trouble(What.NO_CREDENTIALS, _short(text.rpartition(": ")[2]))
    found = _STATUS.search(text)
    if found is not None:
        return trouble_of_answer(int(found[1]), found[2] or "", text)
    if isinstance(error, FileNotFoundError):
        return Trouble(What.ABSENT, "not found")
    if "non-partial response" in text:
        return Trouble(What.NOT_PARTIAL, "answers ranges with everything")
    if "object with invalid path" in text:
        return Trouble(What.UNREADABLE_KEY, _short(text.partition("invalid path: ")[2]))
    if "incorrectly configured region" in text:
        return Trouble(What.ELSEWHERE, "redirected")
    return _trouble_of_connection(text, debug)


def trouble_of_answer(status: int, phrase: str, body: str) -> Trouble:
    """What an answer that is no success means; `body` may be XML of the service."""
    code = _CODE.search(body)
    name = code[1] if code is not None else ""
    reason = " ".join(filter(None, (str(status), name or phrase.strip())))
    if name in _AGAIN_CODES or status in _AGAIN_STATUS:
        return Trouble(What.AGAIN, reason)
    if name in _NO_BUCKET_CODES:
        return Trouble(What.NO_BUCKET, reason)
    if status in (401, 403) or name in _DENIED_CODES:
        return Trouble(What.DENIED, reason)
    if name in ("AuthorizationHeaderMalformed", "PermanentRedirect"):
        return Trouble(What.ELSEWHERE, _with_message(reason, body))
    simple = {404: What.ABSENT, 409: What.EXISTS, 412: What.EXISTS, 416: What.BEYOND}
    if status in simple:
        return Trouble(simple[status], reason)
    if status == 507 or name in ("QuotaExceeded", "XMinioStorageFull"):
        return Trouble(What.FULL, reason)
    if status >= 500:
        return Trouble(What.AGAIN, reason)
    return Trouble(What.REFUSED, _with_message(reason, body))


def _with_message(reason: str, body: str) -> str:
    message = _MESSAGE.search(body)
    return reason if message is None else _short(f"{reason}: {message[1]}")


def _trouble_of_connection(text: str, debug: str) -> Trouble:
    """No answer, or one that cannot be understood."""
    kind = _KIND.search(debug)
    detail = _OS_ERROR.search(debug)
    if kind is not None and kind[1] == "Connect":
        if "dns error" in debug or "Dns" in debug:
            return Trouble(What.NO_CONNECTION, "its name is not known")
        if "invalid peer certificate" in debug:
            return Trouble(What.NO_CONNECTION, "its certificate is not valid")
        if "TimedOut" in debug:
            return Trouble(What.NO_CONNECTION, "no connection in time")
        words = "no connection" if detail is None else detail[1].lower()
        return Trouble(What.NO_CONNECTION, words)
    if kind is not None and kind[1] == "Timeout":
        return Trouble(What.AGAIN, "no answer in time")
    if "HTTP error" in text:
        return Trouble(What.AGAIN, "the connection broke")
    return Trouble(What.AGAIN, _short(_TIMING.split(text)[-1]))


def _short(text: str) -> str:
    """One line, with no more of it than can be read, and nothing that a terminal would obey."""
    words = "".join(letter if letter.isprintable() else " " for letter in _FRAME.sub("", text))
    line = " ".join(words.split())
    return line if len(line) <= _MAX_REASON else f"{line[:_MAX_REASON]}..."


KNOWN = (obstore.exceptions.BaseError, OSError)
"""What obstore raises for a request that failed; all else is a bug."""
