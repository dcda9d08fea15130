"""What an account sees of a region."""

from __future__ import annotations

from collections.abc import Iterable

from imagefs.region.layout import ImageName, Share
from imagefs.region.publication import Publication
from imagefs.region.values import Listing

PUBLIC = "public"
"""The account whose images all see, and the grantee that is everybody."""


def listing(publication: Publication, shares: Iterable[Share], account: str) -> Listing:
    """The images an account may see, and the shares that concern it; `shares` are all of them."""
    concerning = [one for one in shares if one.owner == account or one.grantee in (account, PUBLIC)]
    own = publication.images({account, PUBLIC})
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
