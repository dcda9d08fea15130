"""Names and references: the grammar of paths and of the command line.

An image is `NAME` (one's own), `NAME@OWNER`, or `regions/REGION/NAME` outside of the home region; an
instance is `IMAGE/INSTANCE`. Names are
1 to 255 bytes of UTF-8 without `/`, NUL, newline or `@` and do not start with `.` or `-`; an
image name does not end like an archive, because those names are reserved.
"""

from __future__ import annotations

import msgspec

from imagefs.errors import InvalidName
from imagefs.model import MAX_NAME

RESERVED_ENDINGS = (".tar", ".tar.gz", ".tar.xz", ".tar.zst", ".erofs")
_REGIONS = "regions"
_FORBIDDEN = frozenset("/\0\n@")


class ImageReference(msgspec.Struct, frozen=True):
    """An image by name; `owner` is None for one's own, `region` for the home region."""

    name: str
    owner: str | None = None
    region: str | None = None

    def __str__(self) -> str:
        if self.region is not None:
            return f"{_REGIONS}/{self.region}/{self.name}"
        return self.name if self.owner is None else f"{self.name}@{self.owner}"


class InstanceReference(msgspec.Struct, frozen=True):
    """An instance by the reference of its image and its name."""

    image: ImageReference
    name: str

    def __str__(self) -> str:
        return f"{self.image}/{self.name}"


def check_name(name: str | bytes) -> str:
    """Return `name` as text, or raise InvalidName saying which rule it breaks."""
    if isinstance(name, bytes):
        try:
            name = name.decode()
        except UnicodeDecodeError:
            raise InvalidName(f"Name {name!r} is not UTF-8") from None
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidName(f"Name {name!r} is not UTF-8") from None
    if not 1 <= length <= MAX_NAME:
        raise InvalidName(f"Name {name!r} has {length} bytes; names have 1 to {MAX_NAME}")
    if name[0] in ".-":
        raise InvalidName(f"Name {name!r} starts with {name[0]!r}; names do not")
    for character in name:
        if character in _FORBIDDEN:
            raise InvalidName(f"Name {name!r} contains {character!r}; names do not")
    return name


def check_image_name(name: str | bytes) -> str:
    """Like `check_name`, and refuse the endings reserved for archives and views."""
    name = check_name(name)
    for ending in RESERVED_ENDINGS:
        if name.endswith(ending):
            raise InvalidName(f"Image name {name!r} ends in {ending!r}, which is reserved")
    return name


def parse_image(text: str | bytes) -> ImageReference:
    """Parse `NAME` or `NAME@OWNER`; raise InvalidName otherwise."""
    if isinstance(text, bytes):
        text = text.decode(errors="surrogateescape")
    name, at, owner = text.partition("@")
    return ImageReference(check_image_name(name), check_name(owner) if at else None)


def parse(text: str) -> ImageReference | InstanceReference:
    """Parse an image or instance reference; raise InvalidName if it is neither."""
    if text.count("/") == 2 and text.startswith(f"{_REGIONS}/"):
        _, region, name = text.split("/")
        return ImageReference(check_image_name(name), None, check_name(region))
    image, slash, name = text.partition("/")
    reference = parse_image(image)
    if not slash:
        return reference
    return InstanceReference(reference, check_name(name))
