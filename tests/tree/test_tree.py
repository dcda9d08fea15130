"""Reading trees: names, positions, hard links, restarts, and trees that lie."""

from __future__ import annotations

import random

import pytest

from imagefs.errors import Corrupt, NotADirectory, Stale
from imagefs.format.directory import Entry
from imagefs.model import CHUNK_SIZE, ROOT_INO, Ino, ObjectId
from imagefs.tree import Tree, build
from tests.tree import samples
from tests.tree.samples import Memory, Node, directory, regular, take


def read_all(tree: Tree, root: Node) -> None:
    """Compare everything the tree says with the nodes it was built from."""
    numbers = samples.numbers(root)
    groups = samples.link_groups(root)
    positions = {path: Ino(i) for i, (path, _) in enumerate(samples.places(root), 1)}
    assert take(lambda: tree.total) == len(positions)
    for path, node in samples.places(root):
        ino = numbers[path]
        above, _, name = path.rpartition(b"/")
        if path:
            found = take(tree.lookup, numbers[above], name)
            assert found is not None
            assert found[0] == ino
            entry = found[1]
            assert take(tree.parent, positions[path]) == numbers[above]
        else:
            entry = take(tree.entry, ino)
        assert (entry.name, entry.mode, entry.mtime) == (name, node.mode, node.mtime)
        assert take(tree.entry, positions[path]) == entry
        assert take(tree.path, positions[path]) == path
        paths = samples.in_order(groups.get(id(node), [path]))
        assert take(tree.link_paths, ino) == paths
        if entry.is_directory:
            check_listing(tree, ino, path, node, numbers)
        else:
            assert take(tree.attributes, ino, entry).nlink == len(paths)


def check_listing(tree: Tree, ino: Ino, path: bytes, node: Node, numbers: dict[bytes, Ino]) -> None:
    names = sorted(node.children)
    wanted = [(numbers[path + b"/" + name if path else name], name) for name in names]
    rows = take(tree.list, ino)
    assert [(number, entry.name) for number, entry in rows] == wanted
    pieces: list[tuple[Ino, Entry]] = []
    while piece := take(tree.list, ino, pieces[-1][1].name if pieces else None, 7):
        assert len(piece) <= 7
        pieces += piece
    assert pieces == rows


@pytest.mark.parametrize("names", [0, 1, 10, 300, 1500])
def test_everything_is_found_where_it_was_put(names: int) -> None:
    memory = Memory()
    root = samples.grown(random.Random(names), names)
    manifest = samples.store(memory, root)
    read_all(Tree(memory.fetch, manifest), root)


def test_every_step_can_be_taken_again_when_objects_are_not_at_hand() -> None:
    memory = Memory()
    root = samples.grown(random.Random(7), 400)
    read_all(Tree(memory.unready_fetch(), samples.store(memory, root)), root)


def test_positions_are_found_without_any_lookup_before() -> None:
    memory = Memory()
    root = samples.grown(random.Random(3), 600)
    manifest = samples.store(memory, root)
    order = list(enumerate(samples.places(root), 1))
    random.Random(1).shuffle(order)
    tree = Tree(memory.fetch, manifest)
    for position, (path, _) in order:
        assert tree.path(Ino(position)) == path
        assert Tree(memory.fetch, manifest).entry(Ino(position)).name == path.rpartition(b"/")[2]


def test_inodes_and_names_that_do_not_exist() -> None:
    memory = Memory()
    tree = Tree(memory.fetch, samples.store(memory, directory({b"f": regular(b"x")})))
    assert tree.lookup(ROOT_INO, b"g") is None
    assert tree.lookup(ROOT_INO, b"") is None
    assert tree.resolve(b"f/g") is None
    for ino in (0, 3, 2**32):
        with pytest.raises(Stale):
            tree.entry(Ino(ino))
    with pytest.raises(NotADirectory):
        tree.lookup(Ino(2), b"x")
    with pytest.raises(NotADirectory):
        tree.list(Ino(2))


def test_a_large_directory_is_read_and_changed_by_few_pages() -> None:
    memory = Memory()
    root = directory({b"file-%06d" % i: regular() for i in range(100_000)})
    manifest = samples.store(memory, root)
    tree = Tree(memory.fetch, manifest)
    ref = tree.manifest.root.ref
    assert ref is not None
    memory.reads = memory.writes = 0
    assert tree.lookup(ROOT_INO, b"file-077777") is not None
    assert memory.reads <= 5
    assert len(tree.list(ROOT_INO, b"file-055555", 10)) == 10
    assert memory.reads <= 9
    memory.reads = 0
    entry = tree.entry(Ino(2))
    build.update_directory(
        memory.fetch, memory.put, ObjectId(ref),
        {b"new": Entry(b"new", *[getattr(entry, f) for f in entry.__struct_fields__[1:]])},
    )  # fmt: skip
    assert memory.reads <= 5
    assert memory.writes <= 5


def test_attributes_say_what_stat_is_to_say() -> None:
    memory = Memory()
    twice = regular(b"x" * CHUNK_SIZE, None, b"end", mode=0o4755, mtime=-5)
    device = samples.Node(0o020600, rdev=1281)
    root = directory(
        {b"a": directory({b"b": directory()}), b"f": twice, b"g": twice, b"tty": device}
    )
    root.children[b"s"] = samples.symlink(b"somewhere")
    tree = Tree(memory.fetch, samples.store(memory, root))

    def attributes(path: bytes) -> tuple[int, ...]:
        found = tree.resolve(path)
        assert found is not None
        a = tree.attributes(*found)
        assert a.atime == a.mtime == a.ctime
        return a.mode, a.nlink, a.size, a.blocks, a.rdev, a.mtime

    assert attributes(b"") == (0o040755, 3, 4096, 8, 0, 0)
    assert attributes(b"a/b") == (0o040755, 2, 4096, 8, 0, 0)
    assert attributes(b"f") == (0o104755, 2, 2 * CHUNK_SIZE + 3, 257, 0, -5)
    assert attributes(b"tty") == (0o020600, 1, 0, 0, 1281, 0)
    assert attributes(b"s") == (0o120777, 1, 9, 0, 0, 0)


def test_a_deep_tree_is_no_problem() -> None:
    memory = Memory()
    depth = 3000
    entries: list[Entry] = []
    for _ in range(depth):
        summary = build.write_directory(memory.put, entries)
        entries = [
            Entry(
                b"d", 0o040755, 0, 0, 0,
                summary.size, summary.count, summary.ref, summary.links, None,
            )
        ]  # fmt: skip
    summary = build.write_directory(memory.put, entries)
    root = Entry(b"", 0o040755, 0, 0, 0, 0, summary.count, summary.ref, summary.links, None)
    tree = Tree(memory.fetch, build.write_manifest(memory.put, root, []))
    assert tree.total == depth + 1
    assert tree.path(Ino(depth + 1)) == b"/".join([b"d"] * depth)
    assert tree.resolve(b"/".join([b"d"] * depth)) is not None


# -- trees that lie ---------------------------------------------------------------------


def a_file(name: bytes, size: int = 0, links: int = 0) -> Entry:
    return Entry(name, 0o100644, 0, 0, 0, size, 0, None, links, None)


def rooted(memory: Memory, entries: list[Entry], groups: list[list[bytes]], **lies: int) -> Tree:
    summary = build.write_directory(memory.put, entries)
    truth = {"size": summary.size, "count": summary.count, "links": summary.links}
    root = Entry(
        name=b"", mode=0o040755, uid=0, gid=0, mtime=0, ref=summary.ref, xattrs=None,
        **{**truth, **lies},
    )  # fmt: skip
    return Tree(memory.fetch, build.write_manifest(memory.put, root, groups))


@pytest.mark.parametrize("lie", [{"count": 1}, {"size": 6}, {"count": 3}])
def test_a_directory_that_is_not_what_its_entry_says(lie: dict[str, int]) -> None:
    tree = rooted(Memory(), [a_file(b"a", 5), a_file(b"b")], [], **lie)
    with pytest.raises(Corrupt, match="does not hold what its entry says"):
        tree.lookup(ROOT_INO, b"a")


@pytest.mark.parametrize(
    "groups",
    [
        [[b"a", b"missing"]],
        [[b"a", b"plain"]],
        [[b"a", b"b", b"d"]],
        [[b"a", b"b"], [b"a", b"c"]],
        [[b"a", b"e/f"]],
        [],
    ],
)
def test_link_tables_that_do_not_fit_the_tree(groups: list[list[bytes]]) -> None:
    entries = [a_file(b"plain"), a_file(b"d", 1, links=1)]
    entries += [a_file(name, links=1) for name in (b"a", b"b", b"c")]
    tree = rooted(Memory(), entries, groups)
    with pytest.raises(Corrupt):
        tree.list(ROOT_INO)
    with pytest.raises(Corrupt):
        tree.lookup(ROOT_INO, b"a")
    assert tree.lookup(ROOT_INO, b"plain") is not None


def test_a_link_in_no_group_is_reported_when_it_is_met() -> None:
    entries = [a_file(name, links=1) for name in (b"a", b"b", b"c")]
    tree = rooted(Memory(), entries, [[b"a", b"b"]])
    assert tree.lookup(ROOT_INO, b"b") == (2, entries[1])
    with pytest.raises(Corrupt, match="missing in the link table"):
        tree.lookup(ROOT_INO, b"c")


def test_an_object_that_is_no_page_is_named() -> None:
    memory = Memory()
    noise = memory.put(b"noise")
    root = Entry(b"", 0o040755, 0, 0, 0, 0, 1, noise, 0, None)
    tree = Tree(memory.fetch, build.write_manifest(memory.put, root, []))
    with pytest.raises(Corrupt, match=noise.hex()):
        tree.list(ROOT_INO)
    with pytest.raises(Corrupt, match=noise.hex()):
        _ = Tree(memory.fetch, noise).total
