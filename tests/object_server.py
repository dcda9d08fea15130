"""Object stores for tests: real servers on loopback, started here and ended by their process id.

rclone and moto have no code in common. rclone keeps objects as files, so that tests can damage
them, checks signatures, and can be stopped and started again with everything still there; it does
not know conditional puts and answers ranges with status 200. moto does both as S3 does, keeps
objects in memory, and takes any credentials.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

BUCKET = "regions"
ACCESS_KEY = "access-key-of-the-tests"
SECRET_KEY = "secret-key-of-the-tests"
START_SECONDS = 60.0
STOP_SECONDS = 20.0

PROGRAMS = Path(sys.executable).parent
LISTENING = re.compile(r"http://127\.0\.0\.1:(\d+)")


def environment(access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY) -> dict[str, str]:
    """What the client finds its credentials in; no files, no service of a cloud's machine."""
    return {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class ObjectServer:
    """A server that runs as a process of its own. `folder` holds its log, its home and its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.log = folder / "log"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url(self, prefix: str, *, endpoint: str | None = None, bucket: str = BUCKET) -> str:
        """A region's URL; `endpoint` for what stands in front of this server."""
        return f"s3://{bucket}/{prefix}?endpoint={endpoint or self.endpoint}&region=us-east-1"

    def command(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def start(self) -> None:
        """Starts it, at the same port when it ran before, and waits until it listens."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                env={"HOME": str(self.home), "PATH": "/usr/bin:/bin", "RCLONE_CONFIG": "/dev/null"},
            )
        deadline = time.monotonic() + START_SECONDS
        while (found := LISTENING.search(self.log.read_text())) is None:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "The server does not start"
            time.sleep(0.02)
        self.port = int(found[1])

    def stop(self) -> None:
        """Ends it at once: who talks to it finds its connections closed and nobody listening."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
            self.process = None

    def client(self) -> Any:
        """Another client than the one that is tested, to look and to tamper."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )


class RcloneServer(ObjectServer):
    """`rclone serve s3`; `data` is where the objects are, a folder for each bucket."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.data = folder / "data"
        (self.data / BUCKET).mkdir(parents=True)

    def command(self) -> Sequence[str | Path]:
        keys = ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
        address = ["--addr", f"127.0.0.1:{self.port}"]
        # Files that a test damages are seen at once.
        fresh = ["--dir-cache-time", "1s"]
        return [PROGRAMS / "rclone", "serve", "s3", *address, *keys, *fresh, self.data]


class MotoServer(ObjectServer):
    """moto's server; what it holds ends with it."""

    def command(self) -> Sequence[str | Path]:
        return [sys.executable, PROGRAMS / "moto_server", "-H", "127.0.0.1", "-p", str(self.port)]

    def start(self) -> None:
        super().start()
        self.client().create_bucket(Bucket=BUCKET)
