"""What an account sees of a region."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from imagefs.region.jobs import beside
from imagefs.region.layout import ImageName, Share
from imagefs.region.publication import Publication
from imagefs.region.values import Image, Listing

PUBLIC = "public"
"""The account whose images all see, and the grantee that is everybody."""


def listing(
    publication: Publication, shares: Callable[[], Iterable[Share]], account: str
) -> Listing:
    """The images an account may see, and the shares that concern it; `shares` gives all of them,
    and is asked at the same time as for images."""
    own: dict[ImageName, Image] = {}
    with beside(lambda: own.update(publication.images({account, PUBLIC}))):
        concerning = [
            one for one in shares() if one.owner == account or one.grantee in (account, PUBLIC)
        ]
    others = {one.owner for one in concerning} - {account, PUBLIC}
    seen = own | publication.images(others)
    granted = {ImageName(one.owner, one.name) for one in concerning}
    visible = [
        image
        for name, image in sorted(seen.items())
        if name.account in (account, PUBLIC) or name in granted
    ]
    present = [one for one in concerning if ImageName(one.owner, one.name) in seen]
    return Listing(visible, present)
