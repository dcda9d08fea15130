"""Objects behind a service: S3 and what speaks it, Google Cloud Storage, Azure; obstore is the client.

The first request looks for credentials; making a `Service` costs nothing and asks nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import obstore
import obstore.exceptions
from obstore.store import AzureStore, GCSStore, S3Store

from imagefs.errors import (
    AccessDenied,
    Corrupt,
    Exists,
    ImagefsError,
    InvalidArgument,
    IOFailure,
    NoSpace,
    NotFound,
    PlaceGone,
)
from imagefs.region.listed import Listed
from imagefs.region.patience import Patience
from imagefs.region.retrying import Failed, Retrying
from imagefs.region.trouble import KNOWN, Trouble, What, trouble_of
from imagefs.region.url import RegionUrl

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import AzureConfig, ClientConfig, RetryConfig, S3Config

    from imagefs.region.signed import SignedReader

Store = S3Store | GCSStore | AzureStore
Result = TypeVar("Result")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SMALL = 512 * 1024
"""Bodies up to this size are sent as patiently as answers are waited for."""
_PAGE = 1000


class Service:
    """Thread-safe; methods block. `label` is how messages call the region."""

    def __init__(self, url: RegionUrl, label: str, patience: Patience) -> None:
        self._url = url
        self._label = label
        self._patience = patience
        self._retrying = Retrying(label, patience)
        self._lock = threading.Lock()
        self._stores: _Stores | None = None
        self._signed: SignedReader | None = None

    @property
    def retries(self) -> int:
        return self._retrying.retries

    def prepare(self) -> None:
        """Nothing: buckets are made with the service's own tools."""

    def close(self) -> None:
        self._retrying.close()
        with self._lock:
            if self._signed is not None:
                self._signed.close()

    # -- reading ------------------------------------------------------------------------

    def list(self, prefix: str) -> list[Listed]:
        stores = self._connected()
        return self._run(
            "list", prefix, lambda: [_listed(meta) for meta in _pages(stores.usual, prefix)]
        )

    def get(self, key: str, limit: int) -> bytes:
        stores = self._connected()

        def attempt() -> bytes:
            result = obstore.get(stores.usual, key)
            if result.meta["size"] > limit:
                raise Corrupt(f"{key} in {self._label} is larger than {limit} bytes")
            return bytes(result.bytes())

        return self._run("read", key, attempt)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        stores = self._connected()
        if self._signed is None:
            try:
                return self._run(
                    "read",
                    key,
                    lambda: bytes(obstore.get_range(stores.usual, key, start=start, length=length)),
                )
            except _NotPartial:
                self._read_signed(stores.usual)
        signed = self._signed
        assert signed is not None
        return self._run("read", key, lambda: signed.get_range(key, start, length))

    def head(self, key: str) -> Listed | None:
        stores = self._connected()

        def attempt() -> Listed | None:
            try:
                return _listed(obstore.head(stores.usual, key))
            except FileNotFoundError:
                return None

        return self._run("look at", key, attempt)

    # -- writing ------------------------------------------------------------------------

    def put(self, key: str, data: bytes) -> None:
        store = self._store_for(data)
        self._run("write", key, lambda: obstore.put(store, key, data, use_multipart=False))

    def create(self, key: str, data: bytes) -> None:
        store = self._store_for(data)
        perhaps_done = threading.Event()

        def attempt() -> None:
            obstore.put(store, key, data, mode="create", use_multipart=False)

        try:
            self._run("write", key, attempt, perhaps_done.set)
        except Exists:
            # What is there may be what an earlier try wrote, of which the answer was lost.
            if not perhaps_done.is_set() or not self._holds(key, data):
                raise

    def _holds(self, key: str, data: bytes) -> bool:
        found = self.head(key)
        return found is not None and found.size == len(data) and self.get(key, found.size) == data

    def delete(self, key: str) -> None:
        stores = self._connected()

        def attempt() -> None:
            try:
                obstore.delete(stores.usual, key)
            except FileNotFoundError as error:
                if trouble_of(error).what is What.NO_BUCKET:
                    raise

        self._run("delete", key, attempt)

    # -- requests -----------------------------------------------------------------------

    def _run(
        self,
        verb: str,
        key: str,
        attempt: Callable[[], Result],
        uncertain: Callable[[], None] = lambda: None,
    ) -> Result:
        def translated() -> Result:
            try:
                return attempt()
            except KNOWN as error:
                raise Failed(trouble_of(error)) from error

        try:
            return self._retrying.run(translated, uncertain)
        except Failed as failed:
            raise self._error(failed.trouble, verb, key) from failed.__cause__

    def _error(self, trouble: Trouble, verb: str, key: str) -> Exception:
        label, reason = self._label, trouble.reason
        wheres = {
            What.ABSENT: (
                NotFound(f"{label} has no {key}") if key else PlaceGone(f"{label} is not there")
            ),
            What.NO_BUCKET: PlaceGone(
                f"{label} has no bucket {self._url.bucket}: make it with the tools of the service"
            ),
            What.NO_CREDENTIALS: AccessDenied(f"{label}: no credentials found ({reason})"),
            What.DENIED: AccessDenied(f"{label} refuses to {verb} {key or 'its keys'} ({reason})"),
            What.EXISTS: Exists(f"{key} is in {label} already"),
            What.BEYOND: Corrupt(f"{key} in {label} is shorter than it should be"),
            What.NOT_PARTIAL: _NotPartial(),
            What.ELSEWHERE: InvalidArgument(
                f"{label}: bucket {self._url.bucket} is in another region of the service ({reason}): "
                "say ?region=NAME in the URL"
            ),
            What.UNREADABLE_KEY: IOFailure(
                f"{label} has an object whose key cannot be used: remove it ({reason})"
            ),
            What.FULL: NoSpace(f"{label} has no space left ({reason})"),
        }
        refused = IOFailure(f"{label} refuses to {verb} {key or 'its keys'} ({reason})")
        return wheres.get(trouble.what, refused)

    # -- the client ---------------------------------------------------------------------

    def _read_signed(self, store: Store) -> None:
        """From now on ranges are read in the other way."""
        from imagefs.region.signed import SignedReader  # noqa: PLC0415 - 70 ms that few need

        with self._lock:
            if self._signed is None:
                self._signed = SignedReader(store, self._patience)

    def _store_for(self, data: bytes) -> Store:
        stores = self._connected()
        return stores.usual if len(data) <= _SMALL else stores.sending

    def _connected(self) -> _Stores:
        with self._lock:
            if self._stores is None:
                self._stores = self._connect()
            return self._stores

    def _connect(self) -> _Stores:
        patience = self._patience
        whole = timedelta(seconds=patience.whole)
        options: ClientConfig = {
            "connect_timeout": timedelta(seconds=patience.connect),
            "timeout": whole,
            # Without one in the URL it may be in the client's environment; its own are https.
            "allow_http": not (self._url.endpoint or "").startswith("https://"),
        }
        # The time for the next bytes of an answer begins with the request, so that it must not be
        # there for those whose bodies take long to send.
        usual: ClientConfig = {**options, "read_timeout": timedelta(seconds=patience.silence)}
        try:
            return _Stores(usual=self._make(usual), sending=self._make(options))
        except obstore.exceptions.BaseError as error:
            reason = trouble_of(error).reason
            raise InvalidArgument(f"{self._label} cannot be used: {reason}") from error

    def _make(self, options: ClientConfig) -> Store:
        url = self._url
        prefix = url.prefix or None
        if url.scheme == "gs":
            return GCSStore(url.bucket, prefix=prefix, client_options=options, retry_config=_ONCE)
        if url.scheme == "az":
            account: AzureConfig = {} if url.account is None else {"account_name": url.account}
            return AzureStore(
                url.bucket,
                prefix=prefix,
                config=account,
                client_options=options,
                retry_config=_ONCE,
            )
        from imagefs.region.credentials import find_credentials  # noqa: PLC0415 - 200 ms, S3 only

        credentials, region = find_credentials(url.profile)
        # One request for one key says plainly what became of it.
        config: S3Config = {"region": url.region or region, "disable_bulk_delete": True}
        if url.endpoint is not None:
            config["endpoint"] = url.endpoint
        return S3Store(
            url.bucket,
            prefix=prefix,
            config=config,
            credential_provider=credentials,
            client_options=options,
            retry_config=_ONCE,
        )


class _Stores:
    """Two clients of one place: for bodies that take long to send, and for all else."""

    def __init__(self, *, usual: Store, sending: Store) -> None:
        self.usual = usual
        self.sending = sending


class _NotPartial(ImagefsError):
    """The service does not answer ranges as obstore wants it."""


_ONCE: RetryConfig = {"max_retries": 0, "retry_timeout": timedelta(seconds=1), "backoff": {}}


def _pages(store: Store, prefix: str) -> Iterator[ObjectMeta]:
    for page in obstore.list(store, prefix or None, chunk_size=_PAGE):
        yield from page


def _listed(meta: ObjectMeta) -> Listed:
    microseconds = (meta["last_modified"] - _EPOCH) // timedelta(microseconds=1)
    return Listed(meta["path"], meta["size"], microseconds * 1000)
