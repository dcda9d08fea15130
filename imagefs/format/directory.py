"""Directory objects: the entries of one directory in canonical order, in pages.

A page is one object. A directory of up to PAGE_LIMIT names is a single leaf page. A larger
one is cut into pages wherever `boundary_rank` of a name says so: a name of rank r begins a
new page on each of the levels 0 to r - 1, level 0 being the leaves; the index pages of
level n list the pages of level n - 1; the root is the lowest level with a single page. So
the pages follow from the set of names alone, whatever the order of changes, and a change
touches one page a level.

Decoding accepts exactly what encoding gives: order, names, types, counts and the spelling
of the bytes are checked and `Corrupt` raised, because pages may come from other people's
stores. What only two pages together can show (an index and its leaf disagree) is for the
reader to compare: `Leaf.claim` and `Index.claim` are what the page's parent has to say.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from itertools import accumulate
from operator import lt
from typing import Annotated, Final

import msgspec
import xxhash

from imagefs.errors import Corrupt, InvalidArgument
from imagefs.model import MAX_FILE_SIZE, MAX_NAME, MAX_SYMLINK, MAX_XATTR_VALUE, OBJECT_ID_SIZE

PAGE_LIMIT: Final = 128
"""Directories of at most this many names are a single leaf."""

RANK_BITS: Final = 6
"""A name begins a new page with probability 2**-RANK_BITS on each level."""

MAX_LEVEL: Final = 64 // RANK_BITS
MAX_INODES: Final = 2**31
"""Inodes in one tree, so that base and overlay together stay below 2**32."""

RESERVED_XATTR: Final = b"user.imagefs."
"""Attributes the file system answers itself; they are never stored."""

UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not the value they should be."""

_BOUNDARY_MASK: Final = (1 << RANK_BITS) - 1
_REGULAR: Final = stat.S_IFREG >> 12
_DIRECTORY: Final = stat.S_IFDIR >> 12
_SYMLINK: Final = stat.S_IFLNK >> 12
_DEVICES: Final = {stat.S_IFCHR >> 12, stat.S_IFBLK >> 12}
_PLAIN: Final = {stat.S_IFIFO >> 12, stat.S_IFSOCK >> 12}

_MAX_ID: Final = 2**32 - 1

_Mode = Annotated[int, msgspec.Meta(ge=0, le=0o177777)]
_Id = Annotated[int, msgspec.Meta(ge=0, le=_MAX_ID)]
_Time = Annotated[int, msgspec.Meta(ge=-MAX_FILE_SIZE - 1, le=MAX_FILE_SIZE)]
_Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_FILE_SIZE)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INODES)]


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """One name of a directory with everything the tree knows about it.

    `size`, `count`, `ref` and `links` depend on the type:

    - regular file: bytes; bytes of the chunks that are not holes; content reference, None
      when all is hole; 1 when several names share the inode, else 0
    - directory: bytes of all regular files below (at most MAX_FILE_SIZE); entries below;
      its page; directories directly in it
    - symlink: length of the target; 0; the target; as for files
    - device: 0; st_rdev; None; as for files
    - fifo, socket: 0; 0; None; as for files

    `mode` has the type bits. `xattrs` are sorted by name, None when there are none.
    """

    name: bytes
    mode: _Mode
    uid: _Id
    gid: _Id
    mtime: _Time
    size: _Size
    count: _Size
    ref: bytes | None
    links: _Count
    xattrs: tuple[tuple[bytes, bytes], ...] | None

    @property
    def is_directory(self) -> bool:
        return self.mode >> 12 == _DIRECTORY

    @property
    def is_regular(self) -> bool:
        return self.mode >> 12 == _REGULAR

    @property
    def is_linked(self) -> bool:
        """Whether several names of the tree share this inode."""
        return self.links != 0 and self.mode >> 12 != _DIRECTORY


class PageRef(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A page as its index page lists it: first name, object id, names in the page, inodes
    (the names and everything below them), bytes below, directories among the names."""

    first: bytes
    ref: bytes
    names: _Count
    total: _Count
    size: _Size
    links: _Count


class Claim(msgspec.Struct, frozen=True, gc=False):
    """What a page holds in total, to compare with what its parent says."""

    names: int
    total: int
    size: int
    links: int


class _LeafObject(msgspec.Struct, array_like=True, frozen=True, tag=0, forbid_unknown_fields=True):
    entries: list[Entry]


class _IndexObject(msgspec.Struct, array_like=True, frozen=True, tag=1, forbid_unknown_fields=True):
    level: Annotated[int, msgspec.Meta(ge=1, le=MAX_LEVEL)]
    pages: list[PageRef]


class Leaf:
    """A decoded leaf page; `starts[i]` is the number of inodes before entry i."""

    __slots__ = ("claim", "entries", "linked", "names", "starts", "weight")
    level: Final = 0

    def __init__(self, entries: list[Entry], weight: int) -> None:
        self.entries = entries
        self.names = [entry.name for entry in entries]
        self.weight = weight
        size = links = 0
        below = len(entries)
        self.linked = False
        spans = []
        for entry in entries:
            kind = entry.mode >> 12
            if kind == _DIRECTORY:
                links += 1
                size += entry.size
                below += entry.count
                spans.append(entry.count + 1)
                continue
            if kind == _REGULAR:
                size += entry.size
            if entry.links:
                self.linked = True
            spans.append(1)
        self.starts: Sequence[int] = (
            range(len(entries)) if below == len(entries) else list(accumulate(spans, initial=0))
        )
        self.claim = Claim(len(entries), below, min(size, MAX_FILE_SIZE), links)


class Index:
    """A decoded index page; `starts[i]` is the number of inodes before page i."""

    __slots__ = ("claim", "level", "names", "pages", "starts", "weight")

    def __init__(self, level: int, pages: list[PageRef], weight: int) -> None:
        self.level = level
        self.pages = pages
        self.names = [page.first for page in pages]
        self.starts = list(accumulate((page.total for page in pages), initial=0))
        self.weight = weight
        size = min(sum(page.size for page in pages), MAX_FILE_SIZE)
        names = sum(page.names for page in pages)
        links = sum(page.links for page in pages)
        self.claim = Claim(names, self.starts[-1], size, links)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_LeafObject | _IndexObject)


def boundary_rank(name: bytes) -> int:
    """On how many levels a page begins with this name; 0 for all but one in 2**RANK_BITS."""
    value = xxhash.xxh3_64_intdigest(name)
    if value & _BOUNDARY_MASK:
        return 0
    if value == 0:
        return MAX_LEVEL
    return ((value & -value).bit_length() - 1) // RANK_BITS


def encode_leaf(entries: list[Entry]) -> bytes:
    """The bytes of a leaf page; `entries` are valid and in order."""
    return _encoder.encode(_LeafObject(entries))


def encode_index(level: int, pages: list[PageRef]) -> bytes:
    """The bytes of an index page of that level; `pages` are valid and in order."""
    return _encoder.encode(_IndexObject(level, pages))


def decode_page(data: bytes) -> Leaf | Index:
    """The page that these bytes are; raises Corrupt unless they are exactly what encoding
    gives for a page that may exist."""
    try:
        page = _decoder.decode(data)
    except UNDECODABLE as error:
        raise Corrupt(f"Directory page cannot be decoded: {error}") from error
    if _encoder.encode(page) != data:
        raise Corrupt("Directory page is not in canonical form")
    if isinstance(page, _LeafObject):
        _check_names([entry.name for entry in page.entries])
        for entry in page.entries:
            check_entry(entry)
        leaf = Leaf(page.entries, len(data))
        _check_leaf(leaf)
        return leaf
    _check_names([ref.first for ref in page.pages])
    index = Index(page.level, page.pages, len(data))
    _check_index(index)
    return index


def check_entry(entry: Entry) -> None:
    """Raise Corrupt unless the fields fit each other; the name is not looked at."""
    kind = entry.mode >> 12
    if kind == _REGULAR:
        good = _regular_fits(entry)
    elif kind == _DIRECTORY:
        good = entry.ref is not None and len(entry.ref) == OBJECT_ID_SIZE
        good = good and entry.links <= entry.count < MAX_INODES
    elif entry.links > 1:
        good = False
    elif kind == _SYMLINK:
        good = _symlink_fits(entry)
    else:
        good = entry.ref is None and entry.size == 0
        good = good and (kind in _DEVICES or (kind in _PLAIN and entry.count == 0))
    if not good:
        raise Corrupt(f"Directory entry {entry.name!r} contradicts itself")
    if entry.xattrs is not None:
        check_xattrs(entry.name, entry.xattrs)


def validate_entry(entry: Entry) -> None:
    """Raise InvalidArgument for an entry that could be written but not be read again."""
    in_range = (
        0 <= entry.uid <= _MAX_ID
        and 0 <= entry.gid <= _MAX_ID
        and -MAX_FILE_SIZE - 1 <= entry.mtime <= MAX_FILE_SIZE
        and 0 <= entry.size <= MAX_FILE_SIZE
        and 0 <= entry.count <= MAX_FILE_SIZE
    )
    if not in_range:
        raise InvalidArgument(f"A value of directory entry {entry!r} is out of range")
    try:
        check_entry(entry)
    except Corrupt as error:
        raise InvalidArgument(str(error)) from error


def _regular_fits(entry: Entry) -> bool:
    if entry.links > 1:
        return False
    if entry.ref is None:
        return entry.count == 0
    return len(entry.ref) == OBJECT_ID_SIZE and 0 < entry.count <= entry.size


def _symlink_fits(entry: Entry) -> bool:
    target = entry.ref
    if not target or len(target) > MAX_SYMLINK or b"\0" in target:
        return False
    return entry.size == len(target) and entry.count == 0


def check_xattrs(name: bytes, xattrs: tuple[tuple[bytes, bytes], ...]) -> None:
    """Raise Corrupt unless these can be the extended attributes of an entry."""
    keys = [key for key, _ in xattrs]
    if not keys or not all(map(lt, keys, keys[1:])):
        raise Corrupt(f"Extended attributes of {name!r} are not in canonical order")
    for key, value in xattrs:
        if not 0 < len(key) <= MAX_NAME or b"\0" in key or len(value) > MAX_XATTR_VALUE:
            raise Corrupt(f"Extended attribute {key!r} of {name!r} is not a valid one")
        if key.startswith(RESERVED_XATTR):
            raise Corrupt(f"Extended attribute {key!r} of {name!r} has a reserved name")


def valid_name(name: bytes) -> bool:
    """Whether a directory may hold this name."""
    if not 0 < len(name) <= MAX_NAME or name in {b".", b".."}:
        return False
    return b"/" not in name and b"\0" not in name


def _check_names(names: list[bytes]) -> None:
    if not names:
        return
    if not all(map(lt, names, names[1:])):
        raise Corrupt("Names in a directory page are not in canonical order")
    # The checks of valid_name, but over all names at once: pages are decoded on hot paths.
    joined = b"/".join(names)
    bad = joined.count(b"/") != len(names) - 1 or b"\0" in joined or max(map(len, names)) > MAX_NAME
    if bad or not names[0] or b"." in names or b".." in names:
        wrong = next(name for name in names if not valid_name(name))
        raise Corrupt(f"Directory page holds the name {wrong[:64]!r}, which cannot exist")


def _check_leaf(leaf: Leaf) -> None:
    if leaf.claim.total > MAX_INODES:
        raise Corrupt(f"Directory page claims {leaf.claim.total} inodes")
    if len(leaf.entries) > PAGE_LIMIT and holds_boundary(leaf):
        raise Corrupt("Directory page should have been split")


def _check_index(index: Index) -> None:
    if not index.pages:
        raise Corrupt("Index page of a directory is empty")
    if index.claim.total > MAX_INODES:
        raise Corrupt(f"Index page of a directory claims {index.claim.total} inodes")
    for page in index.pages:
        if len(page.ref) != OBJECT_ID_SIZE or page.names == 0:
            raise Corrupt(f"Index page of a directory has a bad row at {page.first!r}")
        if page.total < page.names or page.links > page.names:
            raise Corrupt(f"Index page of a directory contradicts itself at {page.first!r}")
    if any(boundary_rank(name) != index.level for name in index.names[1:]):
        raise Corrupt("Index page of a directory is not split where it should be")


def holds_boundary(leaf: Leaf) -> bool:
    """Whether a name other than the first should have begun a page of its own."""
    return any(map(boundary_rank, leaf.names[1:]))
