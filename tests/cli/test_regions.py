"""The commands about regions, as people give them, with a mount and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Shell


@pytest.fixture
def region(tmp_path: Path) -> str:
    return f"file://{tmp_path / 'eu'}"


def source(shell: Shell) -> Path:
    tree = shell.home / "tree"
    tree.mkdir()
    (tree / "file").write_text("hello\n")
    (tree / "big").write_bytes(bytes(range(256)) * 3000)
    return tree


def test_an_image_goes_to_a_region_and_back_without_a_mount(shell: Shell, region: str) -> None:
    digest = shell("import", source(shell), "web")
    assert shell("region", "add", "eu", region) == ""
    assert shell("copy", "web", "eu", "--dry-run").endswith("would travel to eu\n")
    assert shell.json("ls", "regions") == []
    assert shell("copy", "web", "eu") == digest
    assert "0 B in 0 objects" in shell("copy", "web", "eu", "--dry-run")
    (image,) = shell.json("ls", "regions")
    assert (image["reference"], image["state"]) == ("regions/eu/web", "sealed")
    assert image["digest"] == digest.strip()
    assert "regions/eu/web" in shell("ls", "regions")
    assert shell.json("show", "regions/eu/web")["digest"] == digest.strip()
    assert shell("diff", "web", "regions/eu/web") == ""
    assert shell("dump", "web") == shell("dump", "regions/eu/web")
    shell("rm", "web")
    assert shell("copy", "regions/eu/web", "local") == digest
    assert shell.run("verify").returncode == 0
    shell("region", "rm", "eu")
    assert shell("region", "ls") == ""
    assert shell("diff", "web", "web") == ""


def test_a_region_is_listed_and_cleaned(shell: Shell, region: str) -> None:
    shell("region", "add", "eu", region)
    assert "eu" in shell("region", "ls")
    shell("import", source(shell), "web")
    shell("copy", "web", "eu")
    (known,) = shell.json("region", "ls")
    assert (known["name"], known["url"], known["failure"]) == ("eu", region, None)
    assert "Removed 0 deleted images and 0 packs" in shell("region", "gc", "eu", "--retain", "0")
    shell("rm", "regions/eu/web")
    (deleted,) = shell.json("ls", "regions", "--deleted")
    assert deleted["reference"] == "regions/eu/web"
    assert "Would remove 0 deleted images" in shell("region", "gc", "eu", "--dry-run")
    assert "Would remove 1 deleted image" in shell(
        "region", "gc", "eu", "--dry-run", "--retain", "0"
    )
    shell("undelete", "regions/eu/web")
    assert len(shell.json("ls", "regions")) == 1
    shell("rm", "regions/eu/web")
    assert "Removed 1 deleted image and 1 pack" in shell("region", "gc", "eu", "--retain", "0")
    shell.refused("undelete", "regions/eu/web", code=3)


def test_what_cannot_be_done_is_said_in_one_line(shell: Shell, region: str) -> None:
    tree = source(shell)
    shell("import", tree, "web")
    assert "There is no region eu" in shell.refused("copy", "web", "eu", code=3)
    assert "no region eu" in shell.refused("mount", shell.mountpoint, "--region", "eu", code=3)
    assert "region add eu" in shell.refused("mount", shell.mountpoint, "--region", "eu", code=3)
    for wrong in ("nonsense", "http://host/bucket", "s3://", "s3://key:secret@bucket/prefix"):
        told = shell.refused("region", "add", "eu", wrong, code=2)
        assert "secret" not in told
    (shell.home / "full").mkdir()
    (shell.home / "full" / "file").write_text("something else")
    shell.refused("region", "add", "eu", f"file://{shell.home}/full", code=2)
    shell.refused("region", "add", "e/u", region, code=2)
    shell.refused("region", "rm", "eu", code=3)
    shell("region", "add", "eu", region)
    shell.refused("region", "add", "eu", region)
    shell.refused("copy", "none", "eu", code=3)
    shell.refused("clone", "regions/eu/web", "one")
    shell("copy", "web", "eu")
    assert shell("copy", "web", "eu") == shell.json("show", "web")["digest"] + "\n"
    shell("rm", "web")
    (tree / "other").write_text("another tree")
    shell("import", tree, "web")
    shell.refused("copy", "web", "eu")


def test_what_is_no_amount_and_no_text_is_bad_usage(shell: Shell, region: str) -> None:
    shell("region", "add", "eu", region)
    for days in ("nan", "inf", "-1", "1e300", "x"):
        assert "--retain" in shell.refused("region", "gc", "eu", "--retain", days, code=2)
        assert "--seal-after" in shell.refused("mount", "--seal-after", days, code=2)
    for words in (("rm", "\udcff"), ("gc", "\udcff"), ("add", "us", "file:///\udcff")):
        assert "is not UTF-8" in shell.refused("region", *words, code=2)
    assert "is not UTF-8" in shell.refused("mount", "--region", "\udcff", code=2)
    assert "is not UTF-8" in shell.refused("copy", "web", "\udcff", code=2)


def test_a_url_is_kept_in_one_spelling(shell: Shell, region: str) -> None:
    shell("region", "add", "eu", f"{region.replace('file', 'FILE')}/")
    (known,) = shell.json("region", "ls")
    assert known["url"] == region
    shell("import", source(shell), "web")
    shell("copy", "web", "eu")
    assert len(shell.json("ls", "regions")) == 1


def test_help_on_regions(shell: Shell) -> None:
    result = shell.run("region")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == shell("region", "--help")
    assert "...\n" not in result.stderr.partition("Commands:")[2], "click cut a sentence short"


def test_warnings_are_told_when_nothing_failed(shell: Shell, region: str, tmp_path: Path) -> None:
    shell("region", "add", "eu", region)
    shell("import", source(shell), "web")
    shell("copy", "web", "eu")
    (tmp_path / "eu").rename(tmp_path / "away")
    listed = shell.run("ls", "regions")
    assert (listed.returncode, listed.stderr.count("\n")) == (0, 1)
    assert listed.stderr.startswith("imagefs: Region eu cannot be listed: ")
    assert "regions/eu/web" in listed.stdout
    assert "eu" in shell.refused("rm", "regions/eu/web", code=3)
    assert "cannot be listed" in shell.run("--debug", "rm", "regions/eu/web").stderr


def test_what_keeps_an_image_or_region_is_said_as_it_is_to_be_ended(
    shell: Shell, region: str
) -> None:
    shell("region", "add", "eu", region)
    shell("import", source(shell), "web")
    shell("copy", "web", "eu")
    shell("share", "regions/eu/web", "bob")
    told = shell.refused("rm", "regions/eu/web")
    assert "`imagefs unshare regions/eu/web bob`" in told
    shell("unshare", "regions/eu/web", "bob")
    shell("rm", "regions/eu/web")


@pytest.mark.mount
def test_a_mount_shows_a_region_and_commands_agree(shell: Shell, region: str) -> None:
    digest = shell("import", source(shell), "web")
    shell("region", "add", "eu", region)
    shell("copy", "web", "eu")
    shell.mount()
    cloud = shell.mountpoint
    assert sorted(entry.name for entry in (cloud / "regions").iterdir()) == ["eu", "local"]
    assert (cloud / "regions/eu/web/file").read_text() == "hello\n"
    assert (cloud / "regions/local/web/file").read_text() == "hello\n"
    assert shell("diff", cloud / "images/web", cloud / "regions/eu/web") == ""
    shell.unmount()

    shell.mount("--region", "eu")
    assert shell.json("status")["home"] == "eu"
    assert [row["url"] for row in shell.json("status")["regions"]] == [region]
    (cloud / "instances/web/one").mkdir()
    (cloud / "instances/web/one/new").write_text("new\n")
    (cloud / "instances/web/one").rename(cloud / "images/web2")
    assert [row["reference"] for row in shell.json("ls", "images")] == ["web", "web2"]
    assert [row["reference"] for row in shell.json("ls", "regions")] == ["regions/local/web"]
    assert "eu" in shell.refused("region", "rm", "eu")
    assert shell("copy", "web2", "local") == shell.json("show", "web2")["digest"] + "\n"
    shell.unmount()
    assert [row["reference"] for row in shell.json("ls", "images")] == ["web", "web2"]
    assert shell.json("ls", "images")[0]["digest"] == digest.strip()
    assert "mount without `--region` first" in shell.refused("region", "rm", "eu")

    shell.mount()
    assert [row["reference"] for row in shell.json("ls", "images")] == ["web", "web2"]
    assert (cloud / "images/web2/new").read_text() == "new\n"
    shell.unmount()
    assert shell.run("verify").returncode == 0
