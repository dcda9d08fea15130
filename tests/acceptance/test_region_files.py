"""Regions through file operations: copying with cp, looking about, deleting what is open elsewhere;
and who may do so with which credentials."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.acceptance import samples
from tests.acceptance.machines import Machines
from tests.acceptance.manifest import assert_equal
from tests.acceptance.person import Person, wait_until
from tests.object_server import BUCKET, ObjectServer

pytestmark = pytest.mark.mount

DAMAGE = r"damage|Damage|checksum|corrupt|fetched again|lacks pack|is missing"


@pytest.mark.root
@pytest.mark.parametrize("server", ["rclone"], indirect=True)
def test_images_are_copied_and_looked_at_as_files(
    here: Person, there: Person, url: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    samples.build(source, privileged=True)
    for person in (here, there):
        person.imagefs("region", "add", "eu", url)
        person.mount()
    here.run("cp", "-a", source, here.images / "web")
    here.run("cp", "-a", here.images / "web", here.cloud / "regions/eu/")
    assert "web" not in os.listdir(there.cloud / "regions/eu")
    here.imagefs("seal", here.cloud / "regions/eu/web")
    wait_until(
        lambda: "web" in os.listdir(there.cloud / "regions/eu"), "the image to be seen there"
    )
    read = there.cloud / "regions/eu/web"
    assert there.information(read, "digest") == here.information(
        here.cloud / "regions/eu/web", "digest"
    )
    there.imagefs("copy", "regions/eu/web", "local")
    (there.instances / "web/one").mkdir()
    assert_equal(here.manifest(source), there.manifest(there.instances / "web/one"))
    there.shell(
        f"cd {there.cloud}; ls -lR regions; du -s regions; find regions -printf '%s %p\\n'; df regions/eu;"
        " grep -rl nothing-like-this regions/eu/web/contents || test $? = 1"
    )
    # What is open here, and what an instance stands on, may be deleted there.
    largest = max(
        (path for path in read.rglob("*") if path.is_file() and not path.is_symlink()),
        key=lambda path: path.stat().st_size,
    )
    with largest.open("rb") as file:
        first = file.read(10)
        (here.cloud / "regions/eu/web").rmdir()
        wait_until(lambda: "web" not in os.listdir(there.cloud / "regions/eu"), "it to be gone")
        with pytest.raises(FileNotFoundError):
            (read / "any").stat()
        file.seek(0)
        try:
            assert file.read(10) == first
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    there.imagefs("undelete", "regions/eu/web")
    assert read.is_dir()


@pytest.mark.root
def test_credentials_are_those_of_who_mounts(
    machines: Machines, here: Person, url: str, tmp_path: Path
) -> None:
    here.imagefs("region", "add", "eu", url)
    secret = here.environment["AWS_SECRET_ACCESS_KEY"]
    without = {
        name: value
        for name, value in here.environment.items()
        if "AWS_ACCESS" not in name and "AWS_SECRET" not in name
    }
    poor = Person(here.name, here.home, here.checkout, environment=without)
    told = poor.imagefs("ls", "regions", check=False)
    assert told.returncode in (0, 4), told
    (tmp_path / "source").mkdir()
    poor.imagefs("import", tmp_path / "source", "web")
    told = poor.imagefs("copy", "web", "eu", check=False)
    assert told.returncode == 4, told
    assert "credentials" in told.stderr.splitlines()[-1]
    here.mount()
    # The daemon has them, so the command needs none.
    poor.imagefs("copy", "web", "eu")
    here.unmount()
    found = here.run("grep", "-rl", secret, here.store, check=False)
    assert (found.returncode, found.stdout) == (1, "")


@pytest.mark.root
@pytest.mark.damaged
@pytest.mark.expected_log(DAMAGE)
@pytest.mark.parametrize("server", ["rclone"], indirect=True)
def test_an_object_that_somebody_changed(
    here: Person, there: Person, url: str, prefix: str, server: ObjectServer, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(os.urandom(3_000_000))
    for person in (here, there):
        person.imagefs("region", "add", "eu", url)
    here.imagefs("import", source, "web")
    here.imagefs("copy", "web", "eu")
    client = server.client()
    (listed,) = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/packs/")["Contents"]
    data = bytearray(client.get_object(Bucket=BUCKET, Key=listed["Key"])["Body"].read())
    data[1_500_000] ^= 1
    client.put_object(Bucket=BUCKET, Key=listed["Key"], Body=bytes(data))
    there.mount()
    read = there.run("cmp", source / "file", there.cloud / "regions/eu/web/file", check=False)
    assert read.returncode == 2, read
    assert os.strerror(errno.EIO) in read.stderr
    told = there.imagefs("copy", "regions/eu/web", "local", check=False)
    assert (told.returncode, told.stderr.count("\n")) == (5, 1), told
    assert there.imagefs_json("ls", "images") == []
    # Whoever has it whole makes it good again.
    here.imagefs("rm", "regions/eu/web")
    here.imagefs("region", "gc", "eu", "--retain", "0")
    here.imagefs("copy", "web", "eu")
    wait_until(
        lambda: (
            there.run(
                "cmp", source / "file", there.cloud / "regions/eu/web/file", check=False
            ).returncode
            == 0
        ),
        "the image to be good again",
        60.0,
    )


def test_a_directory_is_a_region_for_anyone(anyone: Person) -> None:
    region = anyone.home / "region"
    anyone.run("mkdir", region)
    anyone.imagefs("region", "add", "eu", f"file://{region}")
    anyone.mount("--region", "eu")
    anyone.shell(
        f"mkdir {anyone.images}/web; echo hello >{anyone.images}/web/file; chmod a-w {anyone.images}/web"
    )
    anyone.shell(
        f"mkdir {anyone.instances}/web/one; cat {anyone.instances}/web/one/file; rm {anyone.instances}/web/one/file"
    )
    anyone.imagefs("commit", "web/one", "empty")
    anyone.imagefs("copy", "web", "local")
    assert [row["reference"] for row in anyone.imagefs_json("ls", "regions")] == [
        "regions/local/web"
    ]
    anyone.remount()
