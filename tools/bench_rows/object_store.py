"""An object store on loopback for those who copy to one: rclone's S3 server behind a meter."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench_rows.bench import PATIENCE, Bench, remove
from bench_rows.meter import Meter, metered

BUCKET = "bench"
KEYS = ("key-of-the-benchmark", "secret-of-the-benchmark")
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": KEYS[0],
    "AWS_SECRET_ACCESS_KEY": KEYS[1],
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}
LISTENING = re.compile(r"http://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True)
class ObjectStore:
    """A service that speaks S3; what clients send to it is counted by `meter`."""

    meter: Meter

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.meter.port}"


@contextmanager
def object_store(bench: Bench) -> Iterator[ObjectStore]:
    """The service with one bucket, BUCKET; ended and removed afterwards."""
    folder = bench.folder("object-store")
    (folder / "data" / BUCKET).mkdir(parents=True)
    rclone = Path(sys.executable).parent / "rclone"
    options = ["--addr", "127.0.0.1:0", "--auth-key", ",".join(KEYS)]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [rclone, "serve", "s3", *options, folder / "data"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "RCLONE_CONFIG": "/dev/null"},
        )
    try:
        with metered(port_of(log)) as meter:
            yield ObjectStore(meter)
    finally:
        process.kill()
        process.wait(PATIENCE)
        remove(folder)


def port_of(log: Path) -> int:
    """Where the service listens, once it says so."""
    deadline = time.monotonic() + PATIENCE
    while (found := LISTENING.search(log.read_text())) is None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"rclone does not listen: {log.read_text().strip()}")
        time.sleep(0.02)
    return int(found[1])
