"""Keys of a region: what is made reads back, nothing else is read, and names survive servers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagefs.format.region import MAX_PACK_INDEX, SMALLEST_PACK_INDEX, PackName
from imagefs.region import layout
from imagefs.region.layout import DeletedKey, ImageName, LeaseBody, LeaseKey, Share, UseKey

NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1
).filter(lambda name: name not in {".", ".."} and len(name.encode()) <= 255)
IDS = st.binary(min_size=32, max_size=32)
STORES = st.binary(min_size=16, max_size=16)
PACKS = st.builds(PackName, IDS, st.integers(SMALLEST_PACK_INDEX, MAX_PACK_INDEX))
IMAGES = st.builds(ImageName, NAMES, NAMES)
DELETED = st.builds(
    DeletedKey, IMAGES, st.integers(0, 10**20 - 1), st.binary(min_size=8, max_size=8)
)

HEX = "0123456789abcdef" * 4
STORE = "0123456789abcdef" * 2


@given(PACKS)
def test_packs(pack: PackName) -> None:
    assert layout.parse_pack(layout.pack_key(pack)) == pack
    assert layout.parse_pack(layout.condemned_key(pack)) == pack


@given(IMAGES)
def test_images(image: ImageName) -> None:
    key = layout.image_key(image)
    assert layout.parse_image(key) == image
    assert key.startswith(layout.images_prefix(image.account))


@given(DELETED)
def test_deleted_images(deleted: DeletedKey) -> None:
    key = layout.deleted_key(deleted)
    assert layout.parse_deleted(key) == deleted
    assert key.startswith(layout.deleted_prefix(deleted.image.account))
    assert key.startswith(layout.deleted_prefix(deleted.image.account, deleted.image.name))


@given(st.builds(Share, NAMES, NAMES, NAMES))
def test_shares(share: Share) -> None:
    assert layout.parse_share(layout.share_key(share)) == share


@given(st.builds(LeaseKey, IMAGES, STORES))
def test_leases(lease: LeaseKey) -> None:
    key = layout.lease_key(lease)
    assert layout.parse_lease(key) == lease
    assert key.startswith(layout.leases_prefix(lease.image))
    assert layout.parse_cleaning(layout.cleaning_key(lease.store)) == lease.store


@given(st.builds(UseKey, STORES, IDS))
def test_uses(use: UseKey) -> None:
    key = layout.use_key(use)
    assert layout.parse_use(key) == use
    assert key.startswith(layout.uses_prefix(use.store))


@given(st.builds(LeaseBody, st.text(max_size=40), st.none() | st.integers(0, 2**63)))
def test_bodies_of_leases(body: LeaseBody) -> None:
    assert layout.decode_lease(layout.encode_lease(body)) == body


@pytest.mark.parametrize("data", [b"", b"[", b"[1,2]", b'{"a":1}', b'["x"]', b"\xff" * 1000])
def test_a_lease_that_says_nothing_began_before_all(data: bytes) -> None:
    assert layout.decode_lease(data) == LeaseBody("", None)


@given(NAMES)
def test_names_in_keys_are_carried_by_every_client(name: str) -> None:
    escaped = layout.escape(name)
    assert "/" not in escaped
    assert escaped.isascii() or name.isascii() is False
    assert not any(character in escaped for character in "#\\ \x7f\ufffe\uffff")
    assert all(character >= " " for character in escaped)


def test_ordinary_names_stand_in_keys_as_they_are() -> None:
    assert layout.image_key(ImageName("ada", "web-v2")) == "images/ada/web-v2"
    assert layout.image_key(ImageName("äda", "日本")) == "images/äda/日本"
    assert layout.escape("50% of #1\n") == "50%25%20of%20%231%0A"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "images",
        "images/",
        "images/a",
        "images/a/",
        "images//b",
        "images/a/b/c",
        "images/a/..",
        "images/./b",
        "images/a/b%41",
        "images/a/b%2fc",
        "images/a/b%2Fc",
        "images/a/%",
        "images/a/%FF",
        "images/a/b c",
        "images/a/" + "b" * 256,
        "images/a/\ud800",
        "deleted/a/b",
        "deleted/a/b/1-2",
        "deleted/a/b/00000000000000000001-0123456789ABCDEF",
        "deleted/a/b/00000000000000000001-0123456789abcdef/c",
        "shares/a/b",
        "shares/a/b/c/d",
        f"packs/{HEX}",
        f"packs/{HEX}.",
        f"packs/{HEX}.60",
        f"packs/{HEX}.0100",
        f"packs/{HEX}.99999999999",
        f"packs/{HEX[1:]}.100",
        f"packs/{HEX.upper()}.100",
        f"packs/x/{HEX}.100",
        f"images/{HEX}.100",
        f"copies/a/{STORE}",
        f"copies/a/b/{STORE}0",
        f"copies/a/b/c/{STORE}",
        f"cleaning/{STORE}/x",
        f"uses/{STORE}",
        f"uses/{STORE}/{HEX}0",
        f"uses/{STORE}/{HEX}/x",
        STORE,
    ],
)
def test_other_keys_mean_nothing(key: str) -> None:
    assert layout.parse_image(key) is None
    assert layout.parse_deleted(key) is None
    assert layout.parse_share(key) is None
    assert layout.parse_pack(key) is None
    assert layout.parse_lease(key) is None
    assert layout.parse_cleaning(key) is None
    assert layout.parse_use(key) is None


@given(st.text(st.sampled_from("images/deletedshrcp%2F0Aé#. -") | st.characters(), max_size=60))
def test_whatever_is_read_is_the_key_of_what_it_means(key: str) -> None:
    image = layout.parse_image(key)
    assert image is None or layout.image_key(image) == key
    name = layout.unescape(key)
    assert name is None or layout.escape(name) == key
