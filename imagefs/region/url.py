"""Where a region is, as its URL says; pure.

A URL never holds credentials: those come from where the services' own tools take them.

    s3://BUCKET/PREFIX?endpoint=https://HOST&region=NAME&profile=NAME     S3 and what speaks it
    gs://BUCKET/PREFIX                                                    Google Cloud Storage
    az://CONTAINER/PREFIX                                                 Azure; the account from the environment
    abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX                 Azure
    file:///DIRECTORY                                                     a directory of this machine
"""

from __future__ import annotations

import re
from typing import Final, NoReturn
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

from imagefs.errors import InvalidArgument

_MAX_URL = 2048
_FORMS: Final = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///DIRECTORY"
_S3_KEYS = ("endpoint", "region", "profile")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
_AZURE_HOST = re.compile(r"([a-z0-9]{3,24})\.(?:dfs|blob)\.core\.windows\.net")


class RegionUrl(msgspec.Struct, frozen=True):
    """A URL that makes sense. `text` is how it is shown and stored.

    `scheme` is s3, gs, az or file. `prefix` is what keys have before them, without slashes at the
    ends and maybe empty; for a file URL it is the directory, absolute, and `bucket` is empty.
    """

    text: str
    scheme: str
    bucket: str
    prefix: str
    account: str | None = None
    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None

    @classmethod
    def parse(cls, text: str) -> RegionUrl:
        """Raises `InvalidArgument` with one line that says what is wrong, and no credentials."""
        if len(text) > _MAX_URL or _CONTROL.search(text) or "://" not in text:
            raise InvalidArgument(f"A region's URL is {_FORMS}")
        try:
            parts = urlsplit(text)
            parts.port  # noqa: B018 - raises for what is no port
        except ValueError:
            raise InvalidArgument(f"Not a URL; a region's is {_FORMS}") from None
        scheme = parts.scheme
        azure = scheme in ("abfs", "abfss")
        if ("@" in parts.netloc and not azure) or parts.password is not None:
            raise InvalidArgument(
                "A region's URL holds no user name, password or key: credentials come from the "
                "environment and files of the service's own tools"
            )
        if parts.fragment:
            raise InvalidArgument(f"A region's URL has no part behind #: {_shown(parts)}")
        if scheme == "file":
            return _directory(parts)
        if azure:
            return _azure(parts)
        if scheme not in ("s3", "gs", "az"):
            raise InvalidArgument(f"Regions are not at {scheme}://, but at {_FORMS}")
        return _service(parts)

    def __str__(self) -> str:
        return self.text


def _shown(parts: SplitResult) -> str:
    """A URL without what stands in its query, which may be anything."""
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _service(parts: SplitResult) -> RegionUrl:
    if _BUCKET.fullmatch(parts.netloc) is None:
        raise InvalidArgument(
            f"{parts.netloc!r} is no name of a bucket: a region's URL is {_FORMS}"
        )
    options = _options(parts)
    prefix = _prefix(parts)
    text = f"{parts.scheme}://{parts.netloc}" + (f"/{prefix}" if prefix else "")
    if parts.query:
        text += f"?{parts.query}"
    return RegionUrl(text, parts.scheme, parts.netloc, prefix, **options)


def _azure(parts: SplitResult) -> RegionUrl:
    host = _AZURE_HOST.fullmatch(parts.hostname or "")
    container = parts.username or ""
    if host is None or _BUCKET.fullmatch(container) is None or parts.port is not None:
        _wrong(parts, f"{parts.scheme}://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX")
    _options(parts)
    prefix = _prefix(parts)
    text = f"{parts.scheme}://{parts.netloc}" + (f"/{prefix}" if prefix else "")
    return RegionUrl(text, "az", container, prefix, account=host[1])


def _directory(parts: SplitResult) -> RegionUrl:
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        _wrong(parts, "file:///DIRECTORY, with the whole path")
    _options(parts)
    path = unquote(parts.path, errors="surrogateescape").rstrip("/")
    names = path.split("/")[1:]
    if not names or any(name in ("", ".", "..") for name in names) or _CONTROL.search(path):
        _wrong(parts, "file:///DIRECTORY, a path without //, . and ..")
    return RegionUrl(f"file://{parts.path.rstrip('/')}", "file", "", path)


def _wrong(parts: SplitResult, form: str) -> NoReturn:
    raise InvalidArgument(f"{_shown(parts)} is no region's URL: it must be {form}")


def _prefix(parts: SplitResult) -> str:
    prefix = parts.path.strip("/")
    if prefix and any(name in ("", ".", "..") for name in prefix.split("/")):
        raise InvalidArgument(f"The prefix of a region has no //, . and .. in it: {_shown(parts)}")
    return prefix


def _options(parts: SplitResult) -> dict[str, str]:
    """What stands behind the question mark; only S3 has anything there."""
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise InvalidArgument(
            f"Behind the ? of {_shown(parts)} stand KEY=VALUE, joined by &"
        ) from None
    options: dict[str, str] = {}
    for key, value in pairs:
        if parts.scheme != "s3" or key not in _S3_KEYS:
            known = ", ".join(_S3_KEYS) if parts.scheme == "s3" else "none"
            raise InvalidArgument(
                f"{_shown(parts)} cannot have {key!r} behind the ?; allowed: {known}"
            )
        if key in options:
            raise InvalidArgument(f"{_shown(parts)} has {key!r} twice")
        options[key] = value
    _check_options(options)
    return options


def _check_options(options: dict[str, str]) -> None:
    if "endpoint" in options:
        _check_endpoint(options["endpoint"])
    if "region" in options and _WORD.fullmatch(options["region"]) is None:
        raise InvalidArgument(f"{options['region']!r} is no region of S3, like eu-central-1")
    profile = options.get("profile", "x")
    if not profile or _CONTROL.search(profile):
        raise InvalidArgument(f"{profile!r} is no name of a profile")


def _check_endpoint(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    else:
        if "@" in parts.netloc:
            raise InvalidArgument("An endpoint holds no user name, password or key")
        good = good and not parts.query and not parts.fragment and not _CONTROL.search(endpoint)
    if not good:
        raise InvalidArgument("An endpoint is https://HOST or http://HOST:PORT")
