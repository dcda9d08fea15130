"""The adapter under real requests of the kernel, over a file system of a few lines."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from imagefs.daemon.mountpoint import end
from imagefs.errors import Corrupt, NotReady, NotSupported
from tests.fuse.conftest import Mounted, mounted

pytestmark = pytest.mark.mount


async def test_files_are_written_read_and_listed(mount: Mounted) -> None:
    def work() -> None:
        (mount.path / "folder").mkdir()
        file = mount.path / "folder/file"
        file.write_bytes(b"hello" * 100_000)
        assert file.read_bytes() == b"hello" * 100_000
        assert file.stat().st_size == 500_000
        assert file.stat().st_blksize == 128 * 1024
        assert os.listdir(mount.path / "folder") == ["file"]
        os.truncate(file, 3)
        assert file.read_bytes() == b"hel"
        file.chmod(0o600)
        assert file.stat().st_mode & 0o7777 == 0o600
        file.unlink()
        assert not file.exists()
        assert os.statvfs(mount.path).f_bfree == 500

    await mount.use(work)


async def test_flush_is_asked_for_once_at_most(mount: Mounted) -> None:
    def work() -> None:
        for number in range(5):
            (mount.path / f"{number}").write_bytes(b"x")

    await mount.use(work)
    assert mount.filesystem.steps.count("write") == 5
    assert "flush" not in mount.filesystem.steps


@pytest.mark.parametrize("listed", [True, False])
async def test_looking_above_the_trees_wakes_the_background(
    mount: Mounted, nursery: trio.Nursery, listed: bool
) -> None:
    """It brings trees into use, and some have to be watched: other accounts' images."""
    woken = trio.Event()

    async def wait() -> None:
        await mount.operations.next_change()
        woken.set()

    await mount.use((mount.path / "folder").mkdir)
    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    with contextlib.ExitStack() as held:
        if listed:
            listing = held.enter_context(await mount.use(os.scandir, mount.path))
            await mount.use(next, listing)
        else:
            assert not await mount.use((mount.path / "absent").exists)
        with trio.fail_after(10):
            await woken.wait()


async def test_what_is_not_there_is_remembered_by_the_kernel(mount: Mounted) -> None:
    def work() -> None:
        for _ in range(5):
            assert not (mount.path / "absent").exists()

    await mount.use(work)
    assert mount.filesystem.steps.count("lookup") == 1


async def test_a_long_listing_arrives_whole_and_counts_every_name(mount: Mounted) -> None:
    def make() -> None:
        for number in range(500):
            (mount.path / f"file-{number:04}").touch()

    def list_all() -> list[str]:
        return sorted(os.listdir(mount.path))

    await mount.use(make)
    before = {number: node.lookups for number, node in mount.filesystem.nodes.items()}
    assert await mount.use(list_all) == [f"file-{number:04}" for number in range(500)]
    after = {number: node.lookups for number, node in mount.filesystem.nodes.items()}
    del before[1], after[1]
    assert after == {number: lookups + 1 for number, lookups in before.items()}


async def test_a_listing_that_must_wait_in_its_middle_goes_on_there(mount: Mounted) -> None:
    ready: set[Any] = set()

    def before(step: str, argument: Any) -> None:
        if step == "readdir" and argument.endswith(b"5") and argument not in ready:
            raise NotReady(argument, lambda: None, lambda _: ready.add(argument))

    def work() -> list[str]:
        for number in range(30):
            (mount.path / f"{number:02}").touch()
        return sorted(os.listdir(mount.path))

    mount.filesystem.before = before
    assert await mount.use(work) == [f"{number:02}" for number in range(30)]
    assert len(ready) == 3


async def test_a_step_waits_for_its_work_while_others_go_on(mount: Mounted) -> None:
    release = trio.Event()
    loaded = False

    def finish(_: None) -> None:
        nonlocal loaded
        loaded = True

    def before(step: str, argument: Any) -> None:
        if step == "read" and not loaded:
            raise NotReady("data", lambda: trio.from_thread.run(release.wait), finish)

    mount.filesystem.before = before
    slow, other = mount.path / "slow", mount.path / "other"
    await mount.use(slow.write_bytes, b"data")
    results: list[bytes] = []

    async def read() -> None:
        results.append(await mount.use(slow.read_bytes))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read)
        await mount.use(other.write_bytes, b"meanwhile")
        assert results == []
        release.set()
    assert results == [b"data"] * 3
    assert mount.steps.statistics().run == 1


@pytest.mark.parametrize(
    ("error", "code"), [(Corrupt("Object 12 is damaged"), errno.EIO), (NotSupported("No"), 95)]
)
async def test_errors_arrive_as_their_errno(mount: Mounted, error: Exception, code: int) -> None:
    def before(step: str, argument: Any) -> None:
        if step == "unlink":
            raise error

    (mount.filesystem).before = before
    await mount.use((mount.path / "file").touch)
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        await mount.use((mount.path / "file").unlink)
    assert caught.value.errno == code


async def test_what_nobody_needs_is_not_asked_for_again(mount: Mounted) -> None:
    def work(name: str) -> int:
        with pytest.raises(OSError, match=str(mount.path)) as caught:
            os.getxattr(mount.path, name)
        return caught.value.errno or 0

    assert await mount.use(work, "user.other") == errno.ENODATA
    assert await mount.use(work, "security.selinux") == errno.EOPNOTSUPP


async def test_a_bug_is_logged_counted_and_answered(
    mount: Mounted, caplog: pytest.LogCaptureFixture
) -> None:
    def before(step: str, argument: Any) -> None:
        if step == "getattr":
            raise ZeroDivisionError("a bug")

    mount.filesystem.before = before
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught,
    ):
        await mount.use(os.stat, mount.path)
    assert caught.value.errno == errno.EIO
    assert mount.operations.failures == 1
    assert "ZeroDivisionError" in caplog.text
    mount.operations.failures = 0


async def test_many_programs_at_once(mount: Mounted) -> None:
    script = 'for i in $(seq 30); do echo $i > "$1-$i"; cat "$1-$i"; rm "$1-$i"; done | sort -n'

    def work(name: str) -> str:
        command = ["bash", "-euc", script, "-", str(mount.path / name)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    outputs: list[str] = []

    async def run(name: str) -> None:
        outputs.append(await mount.use(work, name))

    async with trio.open_nursery() as nursery:
        for name in "abcd":
            nursery.start_soon(run, name)
    assert outputs == ["".join(f"{number}\n" for number in range(1, 31))] * 4


async def test_unmounting_ends_the_loop(tmp_path: Path) -> None:
    with trio.fail_after(10):
        async with mounted(tmp_path, polling=True) as mount:
            await mount.use(end, tmp_path)
            assert not mount.path.is_mount()
