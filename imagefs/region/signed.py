"""Ranges of objects from services that answer them with status 200 instead of 206.

rclone's S3 server and some gateways send the right bytes under the wrong status, which obstore refuses.
There the client only signs the URL, and urllib3 fetches it. A signed URL is a credential for a minute:
it stands in no message.
"""

from __future__ import annotations

import re
from datetime import timedelta

import obstore
import urllib3
from obstore.store import AzureStore, GCSStore, S3Store

from imagefs.region.patience import Patience
from imagefs.region.retrying import Failed
from imagefs.region.trouble import KNOWN, Trouble, What, trouble_of, trouble_of_answer

Store = S3Store | GCSStore | AzureStore
_VALID = timedelta(minutes=5)
_RANGE = re.compile(r"bytes (\d+)-(\d+)/")
_MAX_ERROR = 4096
_POOL_SIZE = 16


class SignedReader:
    """Thread-safe."""

    def __init__(self, store: Store, patience: Patience) -> None:
        self._store = store
        self._http = urllib3.PoolManager(
            maxsize=_POOL_SIZE,
            retries=False,
            timeout=urllib3.Timeout(connect=patience.connect, read=patience.silence),
        )

    def close(self) -> None:
        self._http.clear()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Bytes of an object from `start`, fewer than `length` where it ends. Raises `Failed`."""
        try:
            url = obstore.sign(self._store, "GET", key, _VALID)
        except KNOWN as error:
            raise Failed(trouble_of(error)) from None
        headers = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
        try:
            return self._fetch(url, headers, start, length)
        except urllib3.exceptions.NewConnectionError:
            raise Failed(Trouble(What.NO_CONNECTION, "no connection")) from None
        except urllib3.exceptions.TimeoutError:
            raise Failed(Trouble(What.AGAIN, "no answer in time")) from None
        except (urllib3.exceptions.HTTPError, OSError):
            raise Failed(Trouble(What.AGAIN, "the connection broke")) from None

    def _fetch(self, url: str, headers: dict[str, str], start: int, length: int) -> bytes:
        response = self._http.request(
            "GET", url, headers=headers, preload_content=False, redirect=False
        )
        try:
            if response.status not in (200, 206):
                body = response.read(_MAX_ERROR).decode(errors="replace")
                raise Failed(trouble_of_answer(response.status, response.reason or "", body))
            found = _RANGE.match(response.headers.get("Content-Range", ""))
            if found is None:
                return response.read(start + length)[start:]
            if int(found[1]) != start:
                raise Failed(Trouble(What.AGAIN, "it answers with another range"))
            return response.read(length)
        finally:
            response.close() if response.length_remaining else response.release_conn()
