"""With whom the images of a region are shared: an empty object for each grantee.

A share is put only while its image is there, and whoever publishes an image removes what is left of
shares of its name first: an image is never shared because an earlier one of its name was.
"""

from __future__ import annotations

from collections.abc import Iterable

from imagefs.errors import Busy, NotFound
from imagefs.region.bucket import Bucket
from imagefs.region.layout import SHARES, ImageName, Share, image_key, parse_share, share_key


def shares(bucket: Bucket) -> list[Share]:
    """All shares of the region, in the order of grantee, owner and name."""
    found = [parse_share(listed.key) for listed in bucket.list(SHARES)]
    return sorted(filter(None, found), key=share_key)


def of_image(bucket: Bucket, image: ImageName) -> list[Share]:
    """With whom one image is shared."""
    return [share for share in shares(bucket) if (share.owner, share.name) == image]


def share(bucket: Bucket, image: ImageName, grantees: Iterable[str]) -> None:
    """Shares an image; raises `NotFound` when there is none of that name."""
    added = [Share(image.account, image.name, grantee) for grantee in grantees]
    _require(bucket, image)
    for one in added:
        bucket.put(share_key(one), b"")
    try:
        _require(bucket, image)
    except NotFound:  # deleted meanwhile, perhaps before the shares were put
        withdraw(bucket, added)
        raise


def withdraw(bucket: Bucket, gone: Iterable[Share]) -> None:
    """Ends these shares, where there are any."""
    for one in gone:
        bucket.delete(share_key(one))


def refuse_shared(bucket: Bucket, image: ImageName, region: str) -> None:
    """Raises `Busy` when an image is shared."""
    grantees = [one.grantee for one in of_image(bucket, image)]
    if grantees:
        raise Busy(
            f"Image {image.name} in region {region} is shared with {', '.join(grantees[:10])}:"
            " unshare it first"
        )


def _require(bucket: Bucket, image: ImageName) -> None:
    if bucket.head(image_key(image)) is None:
        raise NotFound(f"There is no image {image.name} of {image.account}")
