"""The grammar of names and references."""

import pytest

from imagefs.catalog.reference import (
    RESERVED_ENDINGS,
    ImageReference,
    InstanceReference,
    check_image_name,
    check_name,
    parse,
)
from imagefs.errors import InvalidName


@pytest.mark.parametrize(
    "name", ["web", "x", "ä" * 127, "a b", "node-001", "web.v2", "a:b", "x" * 255]
)
def test_good_names(name: str) -> None:
    assert check_name(name) == name
    assert check_name(name.encode()) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "-x",
        "a/b",
        "a\0b",
        "a\nb",
        "a@b",
        "x" * 256,
        "ä" * 128,
        "\udc80",
        b"\xff",
    ],
)
def test_bad_names(name: str | bytes) -> None:
    with pytest.raises(InvalidName):
        check_name(name)


@pytest.mark.parametrize("ending", RESERVED_ENDINGS)
def test_reserved_endings_are_for_images_only(ending: str) -> None:
    assert check_name(f"web{ending}")
    with pytest.raises(InvalidName, match="reserved"):
        check_image_name(f"web{ending}")


def test_references() -> None:
    assert parse("web") == ImageReference("web")
    assert parse("debian-12@public") == ImageReference("debian-12", "public")
    assert parse("web/node-001") == InstanceReference(ImageReference("web"), "node-001")
    assert parse("debian-12@public/ci-7") == InstanceReference(
        ImageReference("debian-12", "public"), "ci-7"
    )
    for text in ("web", "debian-12@public", "web/n", "d@p/c"):
        assert str(parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "/", "web/", "/n", "web/a/b", "web@", "@bob", "a@b@c", "web@b/", "../x"]
)
def test_bad_references(text: str) -> None:
    with pytest.raises(InvalidName):
        parse(text)


def test_an_image_of_another_region_says_so() -> None:
    reference = parse("regions/eu/web")
    assert reference == ImageReference("web", None, "eu")
    assert str(reference) == "regions/eu/web"
    for wrong in ("regions/eu/web@bob", "regions/.eu/web", "regions//web", "regions/eu/web.tar"):
        with pytest.raises(InvalidName):
            parse(wrong)
