"""URLs of regions, good and bad."""

import pytest

from imagefs.errors import InvalidArgument
from imagefs.region.url import RegionUrl


def test_a_bucket_with_a_prefix() -> None:
    url = RegionUrl.parse("s3://backups/images/eu/")
    assert (url.scheme, url.bucket, url.prefix) == ("s3", "backups", "images/eu")
    assert str(url) == "s3://backups/images/eu"
    assert RegionUrl.parse(str(url)) == url


def test_a_bucket_alone() -> None:
    assert RegionUrl.parse("gs://backups") == RegionUrl.parse("gs://backups/")
    assert RegionUrl.parse("gs://backups").prefix == ""
    assert RegionUrl.parse("az://container/x").scheme == "az"


def test_what_s3_may_have_behind_the_question_mark() -> None:
    text = "s3://b1/p?endpoint=http%3A%2F%2Flocalhost:9000&region=eu-central-1&profile=my%20work"
    url = RegionUrl.parse(text)
    assert (url.endpoint, url.region, url.profile) == (
        "http://localhost:9000",
        "eu-central-1",
        "my work",
    )
    assert RegionUrl.parse(str(url)) == url
    plain = RegionUrl.parse("s3://b1/p?endpoint=https://minio.example:9000/base")
    assert plain.endpoint == "https://minio.example:9000/base"


def test_a_container_of_azure_with_its_account() -> None:
    url = RegionUrl.parse("abfss://images@account1.dfs.core.windows.net/eu")
    assert (url.scheme, url.bucket, url.account, url.prefix) == ("az", "images", "account1", "eu")


def test_a_directory() -> None:
    url = RegionUrl.parse("file:///media/usb%20stick/images/")
    assert (url.scheme, url.prefix) == ("file", "/media/usb stick/images")
    assert RegionUrl.parse("file://localhost/srv").prefix == "/srv"
    assert RegionUrl.parse("file:///srv/tä st").prefix == "/srv/tä st"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "region's URL is s3://BUCKET/PREFIX"),
        ("eu", "region's URL is"),
        ("/srv/images", "region's URL is"),
        ("s3:bucket/x", "region's URL is"),
        ("s3://", "no name of a bucket"),
        ("s3:///prefix", "no name of a bucket"),
        ("s3://buck et/x", "no name of a bucket"),
        ("s3://bucket:80/x", "no name of a bucket"),
        ("s3://bucket:http/x", "Not a URL"),
        ("s3://[::1/x", "Not a URL"),
        ("s3://bucket/a//b", "no //"),
        ("s3://bucket/../b", "no //, . and"),
        ("s3://bucket/a\nb", "region's URL is"),
        ("s3://bucket/a#b", "behind #"),
        ("s3://bucket/" + "x" * 3000, "region's URL is"),
        ("s3://bucket/x?endpoint", "KEY=VALUE"),
        ("s3://bucket/x?speed=high", "cannot have 'speed'"),
        ("s3://bucket/x?region=a&region=b", "'region' twice"),
        ("s3://bucket/x?region=eu/central", "no region of S3"),
        ("s3://bucket/x?profile=", "no name of a profile"),
        ("s3://bucket/x?endpoint=localhost:9000", "An endpoint is"),
        ("s3://bucket/x?endpoint=ftp://host", "An endpoint is"),
        ("s3://bucket/x?endpoint=http://host:99999", "An endpoint is"),
        ("s3://bucket/x?endpoint=http://", "An endpoint is"),
        ("gs://bucket/x?endpoint=http://host", "cannot have 'endpoint'"),
        ("ftp://host/x", "not at ftp://"),
        ("http://host/x", "not at http://"),
        ("abfss://container/x", "CONTAINER@ACCOUNT"),
        ("abfss://c1@account.example.org/x", "CONTAINER@ACCOUNT"),
        ("file://server/share", "whole path"),
        ("file://", "whole path"),
        ("file:///", "a path without"),
        ("file:///srv/../etc", "a path without"),
        ("file:///srv//x", "a path without"),
        ("file:///srv/a%00b", "a path without"),
        ("file:///srv?region=x", "cannot have 'region'"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        RegionUrl.parse(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIA123:hunter2@bucket/x",
        "s3://hunter2@bucket/x",
        "gs://me:hunter2@bucket",
        "file://me:hunter2@localhost/srv",
        "abfss://container:hunter2@account.dfs.core.windows.net/x",
        "s3://bucket/x?endpoint=http://me:hunter2@host",
        "s3://bucket/x?secret_access_key=hunter2",
        "s3://bucket/x?token=hunter2&region=eu",
        "ftp://me:hunter2@host/x",
    ],
)
def test_credentials_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        RegionUrl.parse(text)
    assert "hunter2" not in str(caught.value)
