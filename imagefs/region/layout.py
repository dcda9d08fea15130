"""The keys of a region and what they mean; docs/format.md has the table.

Pure: text to values and back. Names stand in keys as they are, but for the few characters that
clients, servers or XML do not carry unharmed: those are escaped as `%XX`, byte by byte. Whatever
a server lists may be anybody's: what does not read back as the same key is None here and is
nobody's business. Whether a name is one that the catalog allows, the caller finds out.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

from imagefs.format.region import MAX_PACK_INDEX, SMALLEST_PACK_INDEX, PackName

MARKER: Final = "imagefs-region"
PACKS: Final = "packs/"
IMAGES: Final = "images/"
DELETED: Final = "deleted/"
SHARES: Final = "shares/"
COPIES: Final = "copies/"
CLEANING: Final = "cleaning/"
CONDEMNED: Final = "condemned/"
USES: Final = "uses/"

STORE_ID_SIZE: Final = 16
RANDOM_SIZE: Final = 8
_LONGEST_NAME = 255

# Controls and the two that are not allowed in XML at all; `%` itself; `#`, because object_store takes
# `#1` at the end of a file's name for its own; the backslash, which rclone keeps for other systems.
# Blanks at either end are dropped by readers of XML.
_UNSAFE = re.compile(r"[\x00-\x20\x7f%#\\\u0085\u2028\u2029\ufffe\uffff]")
_ESCAPED = re.compile(r"(?:%[0-9A-F]{2})+")
_HEX32 = re.compile(r"[0-9a-f]{64}")
_STORE = re.compile(r"[0-9a-f]{32}")
_PACK = re.compile(r"([0-9a-f]{64})\.([1-9][0-9]{0,9})")
_MOMENT = re.compile(r"([0-9]{20})-([0-9a-f]{16})")


class ImageName(NamedTuple):
    """An image of a region: whose, and what it is called. Both as the server has them."""

    account: str
    name: str


class DeletedKey(NamedTuple):
    """A deleted image: what it was, when it was deleted (ns since 1970), and a random number."""

    image: ImageName
    time: int
    random: bytes


class Share(NamedTuple):
    """That an image is shared, with an account or with `public`."""

    owner: str
    name: str
    grantee: str


class LeaseKey(NamedTuple):
    """That a store is at work at a name."""

    image: ImageName
    store: bytes


class UseKey(NamedTuple):
    """That a store has instances of a tree."""

    store: bytes
    manifest: bytes


# -- names ------------------------------------------------------------------------------


def escape(name: str) -> str:
    """A name as it stands in a key."""
    return _UNSAFE.sub(_escape_match, name)


def _escape_match(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def unescape(segment: str) -> str | None:
    """The name that stands in a key like this; None when none does."""
    try:
        name = _ESCAPED.sub(_unescape_match, segment)
        length = len(name.encode())
    except UnicodeError:
        return None
    if not 1 <= length <= _LONGEST_NAME or name in (".", "..") or escape(name) != segment:
        return None
    return name


def _unescape_match(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("%", "")).decode()


def _names(key: str, prefix: str, count: int) -> list[str] | None:
    """The segments of a key behind its prefix, the first `count` of them as names."""
    if not key.startswith(prefix):
        return None
    found: list[str] = []
    segments = key.removeprefix(prefix).split("/")
    if len(segments) < count:
        return None
    for segment in segments[:count]:
        name = unescape(segment)
        if name is None:
            return None
        found.append(name)
    return found + segments[count:]


# -- packs ------------------------------------------------------------------------------


def pack_key(pack: PackName) -> str:
    return f"{PACKS}{_pack(pack)}"


def condemned_key(pack: PackName) -> str:
    return f"{CONDEMNED}{_pack(pack)}"


def parse_pack(key: str) -> PackName | None:
    """The pack that a key below `packs/` or `condemned/` is about."""
    prefix, _, rest = key.partition("/")
    match = _PACK.fullmatch(rest)
    if match is None or f"{prefix}/" not in (PACKS, CONDEMNED):
        return None
    length = int(match[2])
    if not SMALLEST_PACK_INDEX <= length <= MAX_PACK_INDEX:
        return None
    return PackName(bytes.fromhex(match[1]), length)


def _pack(pack: PackName) -> str:
    return f"{pack.id.hex()}.{pack.index_length}"


# -- images -----------------------------------------------------------------------------


def images_prefix(account: str) -> str:
    """What the keys of all images of an account begin with."""
    return f"{IMAGES}{escape(account)}/"


def image_key(image: ImageName) -> str:
    return f"{images_prefix(image.account)}{escape(image.name)}"


def parse_image(key: str) -> ImageName | None:
    names = _names(key, IMAGES, 2)
    return ImageName._make(names) if names is not None and len(names) == 2 else None


def deleted_prefix(account: str, name: str | None = None) -> str:
    """What the keys of all deleted images of an account, or of one name, begin with."""
    prefix = f"{DELETED}{escape(account)}/"
    return prefix if name is None else f"{prefix}{escape(name)}/"


def deleted_key(deleted: DeletedKey) -> str:
    prefix = deleted_prefix(deleted.image.account, deleted.image.name)
    return f"{prefix}{deleted.time:020}-{deleted.random.hex()}"


def parse_deleted(key: str) -> DeletedKey | None:
    names = _names(key, DELETED, 2)
    if names is None or len(names) != 3:
        return None
    match = _MOMENT.fullmatch(names[2])
    if match is None:
        return None
    return DeletedKey(ImageName(names[0], names[1]), int(match[1]), bytes.fromhex(match[2]))


def share_key(share: Share) -> str:
    return f"{SHARES}{escape(share.grantee)}/{escape(share.owner)}/{escape(share.name)}"


def parse_share(key: str) -> Share | None:
    names = _names(key, SHARES, 3)
    if names is None or len(names) != 3:
        return None
    return Share(owner=names[1], name=names[2], grantee=names[0])


# -- stores -----------------------------------------------------------------------------


def leases_prefix(image: ImageName) -> str:
    """What the keys of all leases of a name begin with."""
    return f"{COPIES}{escape(image.account)}/{escape(image.name)}/"


def lease_key(lease: LeaseKey) -> str:
    return f"{leases_prefix(lease.image)}{lease.store.hex()}"


def parse_lease(key: str) -> LeaseKey | None:
    names = _names(key, COPIES, 2)
    if names is None or len(names) != 3 or _STORE.fullmatch(names[2]) is None:
        return None
    return LeaseKey(ImageName(names[0], names[1]), bytes.fromhex(names[2]))


def cleaning_key(store: bytes) -> str:
    return f"{CLEANING}{store.hex()}"


def parse_cleaning(key: str) -> bytes | None:
    """The store whose lease to clean the region this is."""
    store = key.removeprefix(CLEANING)
    return bytes.fromhex(store) if key != store and _STORE.fullmatch(store) else None


def uses_prefix(store: bytes) -> str:
    """What the keys of everything that a store uses begin with."""
    return f"{USES}{store.hex()}/"


def use_key(use: UseKey) -> str:
    return f"{uses_prefix(use.store)}{use.manifest.hex()}"


def parse_use(key: str) -> UseKey | None:
    if not key.startswith(USES):
        return None
    store, _, manifest = key.removeprefix(USES).partition("/")
    if _STORE.fullmatch(store) is None or _HEX32.fullmatch(manifest) is None:
        return None
    return UseKey(bytes.fromhex(store), bytes.fromhex(manifest))


# -- bodies of leases -------------------------------------------------------------------


class LeaseBody(msgspec.Struct, array_like=True, frozen=True):
    """What a lease says: which attempt it is of, and when that began by the server's clock.

    `began` is the Last-Modified (ns) of its first put, which is known only after it: None until
    then, to be taken for "before anything else".
    """

    token: str
    began: int | None


MAX_LEASE: Final = 256
_decoder = msgspec.json.Decoder(LeaseBody)


def encode_lease(body: LeaseBody) -> bytes:
    return msgspec.json.encode(body)


def decode_lease(data: bytes) -> LeaseBody:
    """What a lease says; of one that cannot be read, that it began before anything else."""
    try:
        return _decoder.decode(data[:MAX_LEASE])
    except msgspec.DecodeError:
        return LeaseBody("", None)
