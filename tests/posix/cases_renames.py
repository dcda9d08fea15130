"""Renaming in all its ways, what is open meanwhile, and the times that names leave behind."""

import os

from tests.posix.calls import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, renameat2
from tests.posix.case import By, Difference, case
from tests.posix.observe import Seen, content, look, moved, put, tried


@case()
def rename_moves_and_replaces() -> Seen:
    before = os.stat("file").st_ino
    seen: Seen = {"moved": tried(os.rename, "file", "dir/moved")}
    seen["same"] = os.stat("dir/moved").st_ino == before
    seen["replaced"] = tried(os.rename, "dir/moved", "big")
    seen["content"] = content("big")
    seen["twin"] = [tried(os.rename, "empty", "twin"), look("other")["nlink"]]
    seen["fifo"] = tried(os.rename, "fifo", "big")
    seen["symlink over a fifo"] = tried(os.rename, "link", "big")
    seen["read"] = os.readlink("big")
    seen["missing"] = tried(os.rename, "missing", "x")
    seen["into nothing"] = tried(os.rename, "twin", "missing/x")
    seen["file over directory"] = tried(os.rename, "twin", "emptydir")
    seen["directory over file"] = tried(os.rename, "emptydir", "twin")
    seen["directory over symlink"] = tried(os.rename, "emptydir", "dirlink")
    seen["file over dangling"] = tried(os.rename, "twin", "dangling")
    seen["left"] = sorted(os.listdir())
    return seen


@case()
def rename_of_directories() -> Seen:
    os.mkdir("target")
    seen: Seen = {"over an empty one": tried(os.rename, "dir", "emptydir")}
    seen["moved"] = sorted(os.listdir("emptydir"))
    seen["over a full one"] = tried(os.rename, "target", "emptydir")
    seen["below itself"] = tried(os.rename, "emptydir", "emptydir/sub/x")
    seen["onto itself below"] = tried(os.rename, "emptydir", "emptydir/sub")
    seen["over its parent"] = tried(os.rename, "emptydir/sub", "emptydir")
    seen["parent"] = look(".")["nlink"]
    seen["into another"] = tried(os.rename, "emptydir", "target/in")
    seen["counts"] = [look(name)["nlink"] for name in (".", "target", "target/in")]
    seen["dot dot"] = os.stat("target/in/..").st_ino == os.stat("target").st_ino
    seen["deep"] = content("target/in/sub/deep")
    seen["out of one over one"] = [
        tried(os.mkdir, "hole"), tried(os.rename, "target/in/sub", "hole"),
    ]  # fmt: skip
    seen["counts afterwards"] = [look(name)["nlink"] for name in (".", "target/in", "hole")]
    seen["dot"] = tried(os.rename, "hole/.", "x")
    seen["dot dot named"] = tried(os.rename, "hole/..", "x")
    seen["onto dot"] = tried(os.rename, "hole", ".")
    return seen


@case()
def rename_onto_the_same_inode_does_nothing() -> Seen:
    return {
        "itself": tried(os.rename, "file", "file"),
        "directory itself": tried(os.rename, "dir", "dir"),
        "twin": tried(os.rename, "twin", "other"),
        "both there": [look(name)["nlink"] for name in ("twin", "other")],
        "no replace": tried(renameat2, "twin", "other", RENAME_NOREPLACE),
        "itself no replace": tried(renameat2, "file", "file", RENAME_NOREPLACE),
        "exchange": tried(renameat2, "twin", "other", RENAME_EXCHANGE),
        "exchange itself": tried(renameat2, "file", "file", RENAME_EXCHANGE),
        "times": moved(["file"], lambda: os.rename("file", "file")),
    }


@case()
def rename_without_replacing() -> Seen:
    return {
        "file": tried(renameat2, "file", "big", RENAME_NOREPLACE),
        "directory": tried(renameat2, "dir", "emptydir", RENAME_NOREPLACE),
        "dangling": tried(renameat2, "file", "dangling", RENAME_NOREPLACE),
        "free": tried(renameat2, "file", "new", RENAME_NOREPLACE),
        "missing": tried(renameat2, "missing", "new2", RENAME_NOREPLACE),
        "with exchange": tried(renameat2, "new", "x", RENAME_NOREPLACE | RENAME_EXCHANGE),
        "unknown flag": tried(renameat2, "new", "x", 64),
        "left": sorted(os.listdir()),
    }


@case()
def rename_exchanges() -> Seen:
    seen: Seen = {
        "files": tried(renameat2, "file", "big", RENAME_EXCHANGE),
        "sizes": [look(name)["size"] for name in ("file", "big")],
        "file and directory": tried(renameat2, "other", "dir", RENAME_EXCHANGE),
        "types": [look(name)["type"] for name in ("other", "dir")],
        "across": tried(renameat2, "other/sub", "file", RENAME_EXCHANGE),
        "counts": [look(name)["nlink"] for name in (".", "other", "file")],
        "dot dot": os.stat("file/..").st_ino == os.stat(".").st_ino,
        "missing": tried(renameat2, "file", "missing", RENAME_EXCHANGE),
        "from missing": tried(renameat2, "missing", "file", RENAME_EXCHANGE),
        "below itself": tried(renameat2, "file", "file/deep", RENAME_EXCHANGE),
        "with its parent": tried(renameat2, "file/deep", "file", RENAME_EXCHANGE),
        "symlink": tried(renameat2, "link", "fifo", RENAME_EXCHANGE),
        "swapped": [look(name)["type"] for name in ("link", "fifo")],
        "full directories": [
            tried(os.rename, "twin", "emptydir/x"),
            tried(renameat2, "emptydir", "other", RENAME_EXCHANGE),
            sorted(os.listdir("emptydir")),
        ],
    }
    seen["left"] = sorted(os.listdir())
    return seen


NO_WHITEOUT = Difference("`RENAME_WHITEOUT`", "EINVAL")


@case(By.ROOT, differs={"file": NO_WHITEOUT, "over": NO_WHITEOUT, "directory": NO_WHITEOUT})
def rename_leaves_a_whiteout() -> Seen:
    return {
        "with exchange": tried(renameat2, "big", "other", RENAME_WHITEOUT | RENAME_EXCHANGE),
        "with no replace": tried(renameat2, "big", "other", RENAME_WHITEOUT | RENAME_NOREPLACE),
        "file": tried(renameat2, "file", "new", RENAME_WHITEOUT),
        "over": tried(renameat2, "twin", "big", RENAME_WHITEOUT),
        "directory": tried(renameat2, "dir", "dir2", RENAME_WHITEOUT),
    }


@case()
def open_files_outlive_renames() -> Seen:
    os.chdir("dir")
    with open("sub/deep", "r+b", buffering=0) as file:
        os.rename("../dir", "../elsewhere")
        file.write(b"DIR")
        seen: Seen = {"content": content("sub/deep"), "cwd": os.path.basename(os.getcwd())}
        seen["dot dot"] = sorted(os.listdir(".."))
        os.rename("../elsewhere", "../emptydir")
        seen["content again"] = content("../emptydir/sub/deep")
        os.rename("sub/deep", "a")
        file.write(b"/SUB")
        seen["replaced"] = content("a")
    os.rename("../file", "b")
    seen["b"] = content("../emptydir/b")
    return seen


@case()
def a_process_in_a_moved_directory() -> Seen:
    os.chdir("dir/sub")
    os.rename("../../dir/sub", "../../emptydir/sub")
    put("new", b"x")
    return {
        "parent": os.stat("..").st_ino == os.stat("../../emptydir").st_ino,
        "above": sorted(os.listdir("..")),
        "new": content("../../emptydir/sub/new"),
        "cwd": os.getcwd().endswith("/emptydir/sub"),
    }


# -- times ------------------------------------------------------------------------------


def _open_new() -> None:
    os.close(os.open("dir/new", os.O_CREAT | os.O_WRONLY))


@case()
def making_and_removing_touches_the_directory() -> Seen:
    watched = [".", "dir", "dir/sub", "file", "emptydir"]
    return {
        "create": moved(watched, _open_new),
        "open existing": moved(watched, _open_new),
        "mkdir": moved(watched, lambda: os.mkdir("dir/newdir")),
        "symlink": moved(watched, lambda: os.symlink("x", "dir/newlink")),
        "mkfifo": moved(watched, lambda: os.mkfifo("dir/newfifo")),
        "link": moved(watched, lambda: os.link("file", "dir/hard")),
        "unlink": moved(watched, lambda: os.unlink("dir/hard")),
        "rmdir": moved(watched, lambda: os.rmdir("dir/newdir")),
        "failed mkdir": moved(watched, lambda: tried(os.mkdir, "dir/sub")),
        "failed unlink": moved(watched, lambda: tried(os.unlink, "dir/sub")),
        "failed rmdir": moved(watched, lambda: tried(os.rmdir, "dir")),
        "failed rename": moved(watched, lambda: tried(os.rename, "file", "dir")),
    }


@case()
def renaming_touches_both_directories() -> Seen:
    watched = [".", "dir", "dir/sub", "emptydir"]
    return {
        "within": moved([*watched, "dir/b"], lambda: os.rename("dir/a", "dir/c")),
        "across": moved(watched, lambda: os.rename("dir/c", "emptydir/c")),
        "over": moved([*watched, "twin"], lambda: os.rename("dir/b", "other")),
        "directory": moved(watched, lambda: os.rename("dir/sub", "emptydir/sub")),
        "exchange": moved(
            [".", "emptydir", "emptydir/sub", "dir"],
            lambda: renameat2("dir", "emptydir/sub", RENAME_EXCHANGE),
        ),
        "hard link of itself": moved(["."], lambda: os.rename("twin", "twin")),
    }


@case()
def renaming_touches_what_is_renamed() -> Seen:
    def there_and_back() -> None:
        os.rename("file", "x")
        os.rename("x", "file")
        os.rename("emptydir", "y")
        os.rename("y", "emptydir")
        os.rename("link", "dir/z")
        os.rename("dir/z", "link")

    return moved(["file", "emptydir", "link"], there_and_back)
