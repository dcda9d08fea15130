"""The command's verbs, with and without a daemon: results, output, exit codes."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from imagefs.cli import importing
from tests.cli.conftest import Shell


@pytest.fixture(params=["mounted", "offline"])
def either(request: pytest.FixtureRequest, shell: Shell, source: Path) -> Shell:
    """A shell whose store holds the image `base`; its account is mounted, or is not."""
    if request.param == "mounted":
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            pytest.skip("/dev/fuse is missing or closed to this user")
        shell.mount()
    assert shell("import", source, "base").startswith("blake3:")
    return shell


def names(shell: Shell, what: str, *options: str) -> list[str]:
    return [row["reference"] for row in shell.json("ls", what, *options)]


def test_import_makes_a_sealed_image(either: Shell) -> None:
    known = either.json("show", "base")
    assert (known["state"], known["entries"], known["bytes"]) == ("sealed", 3, 8)
    assert known["digest"].startswith("blake3:")
    assert names(either, "images") == ["base"]


def test_clone_commit_reset_rm_undelete(either: Shell) -> None:
    assert either("clone", "base", "one", "two") == ""
    assert names(either, "instances") == ["base/one", "base/two"]
    digest = either("commit", "base/one", "committed")
    assert digest.strip() == either.json("show", "base")["digest"]
    assert either.json("show", "committed")["parent"] == "base/one"
    assert either("reset", "base/one") == ""
    assert either("rm", "base/one", "committed") == ""
    assert names(either, "instances") == ["base/two"]
    assert names(either, "images") == ["base"]
    assert names(either, "images", "--deleted") == ["committed"]
    assert either("undelete", "committed", "base/one") == ""
    assert names(either, "images") == ["base", "committed"]


def test_what_a_reset_left_comes_back_once_its_name_is_free(either: Shell) -> None:
    either("clone", "base", "one")
    either("reset", "base/one")
    assert "rename" in either.refused("undelete", "base/one", code=4)
    either("rm", "base/one")
    assert either("undelete", "base/one") == ""


def test_errors_have_one_line_and_a_code(either: Shell) -> None:
    assert "absent" in either.refused("show", "absent", code=3)
    assert "absent" in either.refused("clone", "absent", "x", code=3)
    assert "base/absent" in either.refused("commit", "base/absent", "x", code=3)
    assert "folder" in either.refused("clone", "base", "folder", code=4)
    either("clone", "base", "one")
    assert "exists" in either.refused("clone", "base", "one", code=4)
    assert "exists" in either.refused("commit", "base/one", "base", code=4)
    assert ".bad" in either.refused("clone", "base", ".bad", code=2)
    assert "absent" in either.refused("undelete", "absent", code=3)


def test_bytes_that_are_no_text_are_refused(either: Shell) -> None:
    bad = os.fsdecode(b"\xff")
    for arguments in (
        ("show", bad), ("show", f"images/{bad}"), ("rm", f"base@{bad}"), ("clone", "base", bad),
        ("share", "base", bad), ("unshare", "base", bad), ("show", "base", "--account", bad),
    ):  # fmt: skip
        assert "UTF-8" in either.refused(*arguments, code=2)


def test_clone_makes_all_or_none(either: Shell) -> None:
    either("clone", "base", "taken")
    either.refused("clone", "base", "new", "taken", code=4)
    assert names(either, "instances") == ["base/taken"]


def test_rm_goes_on_after_a_failure(either: Shell) -> None:
    either("clone", "base", "one", "two")
    assert "absent" in either.refused("rm", "base/one", "absent", "base/two", code=3)
    assert names(either, "instances") == []


def test_references_as_people_type_them(either: Shell) -> None:
    either("clone", "base/", "one", "two")
    for typed in ("base/", "images/base", "images/base/"):
        assert either.json("show", typed)["reference"] == "base"
    for typed in ("base/one/", "base//one", "instances/base/one"):
        assert either.json("show", typed)["reference"] == "base/one"
    either("diff", "images/base", "instances/base/one")
    either("rm", "images/base", "instances/base/one/")
    assert (names(either, "images"), names(either, "instances")) == ([], ["base/two"])
    either("undelete", "images/base", "instances/base/one")
    assert either.json("show", "base")["reference"] == "base"
    assert "IMAGE/INSTANCE" in either.refused("show", "/nowhere/images/base", code=2)
    assert "IMAGE/INSTANCE" in either.refused("show", "images/base/one", code=2)
    assert "IMAGE/INSTANCE" in either.refused("show", "/", code=2)
    assert "IMAGE/INSTANCE" in either.refused("show", "", code=2)
    assert "images/absent" not in either.refused("show", "images/absent", code=3)


def test_an_image_called_images_goes_first(either: Shell, source: Path) -> None:
    either("import", source, "images")
    assert "images/base" in either.refused("rm", "images/base", code=3)
    either("clone", "images", "base")
    assert either.json("show", "images/base")["reference"] == "images/base"
    either("rm", "images/base", "images")
    either("undelete", "images")
    either("undelete", "images/base")
    assert names(either, "instances") == ["images/base"]


@pytest.mark.mount
def test_paths_in_the_mount_are_references(shell: Shell, source: Path) -> None:
    shell("import", source, "base")
    shell("clone", "base", "one")
    shell.mount()
    (shell.home / "door").symlink_to(shell.mountpoint)
    for mount in (shell.mountpoint, "~/cloud", "./cloud", "door", "cloud"):
        assert shell.json("show", f"{mount}/images/base/")["reference"] == "base"
        assert shell.json("show", f"{mount}/instances/base/one")["reference"] == "base/one"
        assert "NAME or" in shell.refused("show", f"{mount}/instances/base/one/folder", code=2)


def test_a_name_given_twice(either: Shell) -> None:
    assert "twice" in either.refused("clone", "base", "one", "two", "one", code=2)


def test_diff_and_dump(either: Shell, source: Path) -> None:
    (source / "folder/new").write_text("x")
    (source / "link").unlink()
    either("import", source, "other")
    assert either("diff", "base", "base") == ""
    assert either.json("diff", "base", "base") == []
    lines = either("diff", "base", "other").splitlines()
    assert "+ /folder/new" in lines
    assert "- /link" in lines
    changes = {change["path"]: change["kind"] for change in either.json("diff", "base", "other")}
    assert changes["/folder/new"] == "added"
    assert changes["/link"] == "removed"
    dump = either("dump", "base").splitlines()
    assert [line.split()[0] for line in dump[1:]] == ["/", "/folder", "/folder/file", "/link"]


def test_import_refuses_what_it_cannot_do(either: Shell, source: Path) -> None:
    assert "exists" in either.refused("import", source, "base", code=4)
    assert "nowhere" in either.refused("import", source / "nowhere", "new", code=3)
    assert "not a directory" in either.refused("import", source / "link", "new", code=2)
    assert ".tar" in either.refused("import", source, "new.tar", code=2)
    assert "web/y" in either.refused("import", source, "web/y", code=2)


def test_import_checks_the_name_before_it_makes_a_store(shell: Shell, source: Path) -> None:
    shell.refused("import", source, "web/y", code=2)
    assert not shell.store.exists()


@pytest.mark.parametrize("ending", ["", "/", "//"])
def test_paths_in_errors_of_an_import_have_no_double_slashes(
    shell: Shell, source: Path, ending: str
) -> None:
    assert importing._without_slashes(f"{source}{ending}") == str(source)
    (source.parent / "door").symlink_to(source)
    assert shell("import", f"{source.parent}/door//", "base").startswith("blake3:")
    assert importing._without_slashes("//") == "/."


def test_lists_for_people(either: Shell) -> None:
    either("clone", "base", "one")
    lines = either("ls").splitlines()
    assert lines[0].split() == ["IMAGE", "STATE", "ENTRIES", "SIZE", "STORED", "CREATED", "FROM"]
    assert lines[1].split()[:4] == ["base", "sealed", "3", "8"]
    assert lines[3].split()[0] == "INSTANCE"
    assert lines[4].startswith("base/one")
    shown = either("show", "base/one")
    assert "changed bytes:" in shown
    assert "image:" in shown


def test_lists_of_what_was_deleted_say_when(either: Shell) -> None:
    either("clone", "base", "one")
    assert "DELETED" not in either("ls")
    either("rm", "base/one", "base")
    year = time.strftime("%Y-")
    for what in ("images", "instances"):
        titles, row = either("ls", what, "--deleted").splitlines()
        assert titles.index("DELETED") > titles.index("CREATED")
        assert row[titles.index("DELETED") :].startswith(year)


@pytest.mark.mount
def test_what_was_just_written_is_in_a_commit_and_a_diff(shell: Shell, source: Path) -> None:
    shell("import", source, "base")
    shell.mount()
    (shell.mountpoint / "instances/base/one").mkdir()
    (shell.mountpoint / "instances/base/one/new").write_text("written")
    changes = shell.json("diff", "base", "base/one")
    assert {"path": "/new", "kind": "added", "details": []} in changes
    shell("commit", "base/one", "committed")
    assert (shell.mountpoint / "images/committed/new").read_text() == "written"


@pytest.mark.mount
def test_what_commands_do_is_visible_at_once(shell: Shell, source: Path) -> None:
    shell.mount()
    images, instances = shell.mountpoint / "images", shell.mountpoint / "instances"
    for round_ in range(3):
        # The kernel remembers that it is not there.
        assert not (images / f"base{round_}").exists()
        shell("import", source, f"base{round_}")
        assert (images / f"base{round_}/link").is_symlink()
        assert not (instances / f"base{round_}/one").exists()
        shell("clone", f"base{round_}", "one")
        file = instances / f"base{round_}/one/folder/file"
        file.write_text("changed")
        shell("reset", f"base{round_}/one")
        assert file.read_text() == "content\n"
        shell("rm", f"base{round_}/one", f"base{round_}")
        assert not file.exists()
        assert not (images / f"base{round_}").exists()


@pytest.mark.mount
def test_seal(shell: Shell) -> None:
    shell.mount()
    draft = shell.mountpoint / "images/draft"
    draft.mkdir()
    (draft / "file").write_text("x")
    with (draft / "file").open("a"):
        assert "open for writing" in shell.refused("seal", "draft", code=4)
    assert shell("seal", "draft").startswith("blake3:")
    with pytest.raises(OSError, match="Read-only"):
        (draft / "file").write_text("y")


def test_without_a_store(shell: Shell) -> None:
    assert "mount" in shell.refused("ls", code=1)
    assert shell.json("status")["mounted"] is False
    assert not shell.store.exists()


def test_bad_usage(shell: Shell) -> None:
    assert "frobnicate" in shell.refused("frobnicate", code=2)
    assert "--frobnicate" in shell.refused("ls", "--frobnicate", code=2)
    assert "--deleted" in shell.refused("ls", "shared", "--deleted", code=2)
    shell.refused("clone", "base", code=2)


def test_no_arguments_at_all(shell: Shell) -> None:
    result = shell.run()
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == shell("--help")


def test_choices_are_told_in_one_line(shell: Shell) -> None:
    assert "fish" in shell.refused("completion", code=2)


def test_help_and_version(shell: Shell) -> None:
    assert shell("--version").startswith("imagefs ")
    text = shell("--help")
    for command in ("mount", "umount", "ls", "import", "clone", "commit", "diff"):
        assert command in text
        assert "Usage: imagefs" in shell(command, "--help")
    listed = text.partition("Commands:")[2].splitlines()
    assert not [line for line in listed if line.endswith("...")], "click cut a sentence short"


def test_debug_shows_where_an_error_comes_from(shell: Shell) -> None:
    assert "Traceback" not in shell.run("ls").stderr
    assert "Traceback" in shell.run("--debug", "ls").stderr


def test_where_the_store_is(shell: Shell, source: Path, tmp_path: Path) -> None:
    def found(**environment: str) -> list[str]:
        result = shell.run("import", source, "x", **environment)
        assert result.returncode == 0, result
        return sorted(str(path.parent) for path in tmp_path.rglob("format"))

    assert found(XDG_DATA_HOME=str(tmp_path / "data")) == [str(tmp_path / "data/imagefs")]
    assert str(tmp_path / "named") in found(IMAGEFS_STORE=str(tmp_path / "named"))
    assert found(XDG_DATA_HOME="relative")
    assert (shell.store / "format").exists(), "what is not absolute does not count"


def test_a_reader_that_has_enough(shell: Shell, source: Path) -> None:
    for number in range(300):
        (source / f"{number:0200}").touch()
    shell("import", source, "base")
    command = " ".join([*shell.command("dump", "base"), "| head -n 1"])
    result = subprocess.run(
        command, shell=True, env=shell.environment, capture_output=True, text=True, check=True
    )
    assert result.stdout == "imagefs dump 1\n"
    assert result.stderr == ""


def test_names_that_would_steer_a_terminal(shell: Shell, source: Path) -> None:
    shell("import", source, "a\x1b[31mb")
    assert "\x1b" not in shell("ls")
    assert r"a\x1b[31mb" in shell("ls")
    assert names(shell, "images") == ["a\x1b[31mb"]


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: Shell, shell_name: str) -> None:
    script = shell("completion", shell_name)
    assert f"_IMAGEFS_COMPLETE={shell_name}_complete" in script


def test_completion_of_names(shell: Shell, source: Path) -> None:
    shell("import", source, "base")
    shell("import", source, "bare")
    shell("clone", "base", "one")

    def completed(*words: str) -> list[str]:
        result = shell.run(
            _IMAGEFS_COMPLETE="bash_complete",
            COMP_WORDS=" ".join(["imagefs", *words]),
            COMP_CWORD=str(len(words)),
        )
        return [line.partition(",")[2] for line in result.stdout.splitlines()]

    assert completed("cl") == ["clone"]
    assert completed("clone", "b") == ["bare", "base"]
    assert completed("commit", "b") == ["base/one"]
    assert completed("rm", "base") == ["base", "base/one"]


def test_two_commands_at_once_wait_for_each_other(shell: Shell, source: Path) -> None:
    shell("import", source, "base")
    running = [
        subprocess.Popen(shell.command("clone", "base", f"i{n}"), env=shell.environment)
        for n in range(6)
    ]
    assert [process.wait(60) for process in running] == [0] * 6
    assert len(names(shell, "instances")) == 6


def test_a_command_of_the_daemon_imports_little(shell: Shell, source: Path) -> None:
    """What a command needs to talk to a daemon; each of these costs as much as all of it."""
    script = (
        "import sys, imagefs.cli.changing, imagefs.cli.looking\n"
        "print(*sorted(m for m in sys.modules if m.split('.')[0] in"
        " {'trio', 'pyfuse3', 'rich', 'sqlite3', 'lz4', 'subprocess', 'json'}))\n"
        "print(*sorted(m for m in sys.modules if m.startswith('imagefs.')))"
    )
    command = [*shell.command()[:1], "-c", script]
    result = subprocess.run(
        command, env=shell.environment, capture_output=True, text=True, check=True
    )
    foreign, own = result.stdout.split("\n")[:2]
    assert foreign == ""
    layers = {name.split(".")[1] for name in own.split()}
    assert layers == {"cli", "control", "errors"}
