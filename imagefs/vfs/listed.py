"""What a region lists, as the catalog takes it over. Regions are not to be trusted: names are checked
here."""

from __future__ import annotations

from imagefs.catalog.reference import check_image_name, check_name
from imagefs.catalog.regional import Share
from imagefs.catalog.rows import Published
from imagefs.errors import InvalidName
from imagefs.model import ObjectId
from imagefs.region.complaints import Complaints
from imagefs.region.values import Image, Listing


def published(image: Image) -> Published:
    """An image as the catalog knows it."""
    described = image.descriptor
    return Published(
        image.account, image.name, ObjectId(described.manifest), described.entries,
        described.bytes, described.created, described.parent,
    )  # fmt: skip


def images_of(listing: Listing, complaints: Complaints) -> list[Published]:
    """The images whose names can be names here."""
    return [
        published(image)
        for image in listing.images
        if _are_names(complaints, image.name, image.account)
    ]


def shares_of(listing: Listing, complaints: Complaints) -> list[Share]:
    """Who shares what with whom, as far as these can be names here."""
    return [
        (share.owner, share.name, share.grantee)
        for share in listing.shares
        if _are_names(complaints, share.name, share.owner, share.grantee)
    ]


def _are_names(complaints: Complaints, image: str, *accounts: str) -> bool:
    try:
        check_image_name(image)
        for account in accounts:
            check_name(account)
    except InvalidName as error:
        complaints.say("/".join((*accounts, image)), str(error))
        return False
    return True
