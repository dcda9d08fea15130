"""What every kind of place for objects does alike."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from imagefs.errors import Corrupt, Exists, NotFound
from imagefs.region.bucket import Bucket
from imagefs.region.layout import ImageName, image_key, parse_image
from tests.region.conftest import Open

NAMES = [
    "x",
    "debian 12",
    " blank ",
    "täst-日本-😀",
    "100%",
    "a%2Fb",
    "a#1",
    "back\\slash",
    "q?a&b=c+d;e",
    "<&>\"'",
    "~x",
    "x.",
    "x..y",
    "tab\tand\x01",
    "x" * 255,
    "é" * 127,
]


def keys(bucket: Bucket, prefix: str = "") -> list[str]:
    return sorted(listed.key for listed in bucket.list(prefix))


def test_what_was_put_is_got(bucket: Bucket) -> None:
    bucket.put("packs/one", b"first")
    bucket.put("packs/one", b"second")
    assert bucket.get("packs/one") == b"second"
    assert keys(bucket) == ["packs/one"]


def test_an_object_may_be_empty(bucket: Bucket) -> None:
    bucket.put("shares/bob/ann/web", b"")
    assert bucket.get("shares/bob/ann/web") == b""
    (listed,) = bucket.list("shares/bob/")
    assert listed.size == 0


def test_a_large_object_comes_back_as_it_was(bucket: Bucket) -> None:
    data = bytes(range(256)) * 32768
    bucket.put("packs/large", data)
    assert bucket.get("packs/large") == data
    assert bucket.get_range("packs/large", 5_000_001, 300_000) == data[5_000_001:5_300_001]


def test_a_range_is_exactly_what_was_asked(bucket: Bucket) -> None:
    bucket.put("packs/one", b"0123456789")
    assert bucket.get_range("packs/one", 0, 10) == b"0123456789"
    assert bucket.get_range("packs/one", 3, 4) == b"3456"
    assert bucket.get_range("packs/one", 9, 1) == b"9"
    assert bucket.get_range("packs/one", 4, 0) == b""


def test_a_range_that_reaches_behind_the_end_is_damage(bucket: Bucket) -> None:
    bucket.put("packs/one", b"0123456789")
    for start in (8, 10, 1000):
        with pytest.raises(Corrupt, match="packs/one in Region eu is shorter"):
            bucket.get_range("packs/one", start, 4)


def test_what_is_not_there_is_not_found(bucket: Bucket) -> None:
    bucket.put("packs/one", b"1")
    for key in ("packs/two", "packs", "packs/one/two", "images/ann/web"):
        with pytest.raises(NotFound, match=f"Region eu has no {key}"):
            bucket.get(key)
        with pytest.raises(NotFound, match=f"Region eu has no {key}"):
            bucket.get_range(key, 0, 1)
        assert bucket.head(key) is None


def test_an_object_larger_than_the_limit_is_not_read(bucket: Bucket) -> None:
    bucket.put("images/ann/web", b"12345")
    assert bucket.get("images/ann/web", limit=5) == b"12345"
    with pytest.raises(Corrupt, match="larger than 4 bytes"):
        bucket.get("images/ann/web", limit=4)
    assert bucket.statistics().received == 5


def test_the_head_of_an_object_is_its_size_and_time(bucket: Bucket) -> None:
    before = time.time_ns()
    bucket.put("packs/one", b"12345")
    head = bucket.head("packs/one")
    assert head is not None
    assert (head.key, head.size) == ("packs/one", 5)
    assert before - 2 * 10**9 < head.modified < time.time_ns() + 10**9
    (listed,) = bucket.list()
    assert abs(listed.modified - head.modified) < 10**9


def test_a_listing_is_of_everything_below_a_prefix(bucket: Bucket) -> None:
    some = ["images/ann/web", "images/ann/web2", "images/anna/x", "packs/one", "imagefs-region"]
    for key in some:
        bucket.put(key, key.encode())
    assert keys(bucket) == sorted(some)
    assert keys(bucket, "images/") == ["images/ann/web", "images/ann/web2", "images/anna/x"]
    assert keys(bucket, "images/ann/") == ["images/ann/web", "images/ann/web2"]
    assert keys(bucket, "images/bob/") == []
    assert keys(bucket, "deleted/") == []
    assert {listed.key: listed.size for listed in bucket.list()} == {key: len(key) for key in some}


def test_a_listing_may_be_longer_than_a_page(bucket: Bucket) -> None:
    some = [f"packs/{number:04}" for number in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: bucket.put(key, b""), some))
    assert keys(bucket, "packs/") == some


def test_names_of_all_kinds_come_back(bucket: Bucket) -> None:
    images = {ImageName("ann", name) for name in NAMES}
    for image in images:
        bucket.put(image_key(image), image.name.encode())
    assert {parse_image(key) for key in keys(bucket, "images/ann/")} == images
    for image in images:
        assert bucket.get(image_key(image)) == image.name.encode()
        assert bucket.get_range(image_key(image), 0, 1) == image.name.encode()[:1]
        bucket.delete(image_key(image))
    assert keys(bucket) == []


def test_deleting_makes_sure_that_it_is_not_there(bucket: Bucket) -> None:
    bucket.put("packs/one", b"1")
    bucket.put("packs/two", b"2")
    bucket.delete("packs/one")
    bucket.delete("packs/one")
    bucket.delete("images/ann/web")
    assert keys(bucket) == ["packs/two"]


def test_creating_what_is_not_there(bucket: Bucket) -> None:
    bucket.create("images/ann/web", b"mine")
    assert bucket.get("images/ann/web") == b"mine"


def test_creating_what_is_there_is_refused(bucket: Bucket, knows_conditions: bool) -> None:
    bucket.create("images/ann/web", b"mine")
    if not knows_conditions:
        bucket.create("images/ann/web", b"other")
        assert bucket.get("images/ann/web") == b"other"
        return
    with pytest.raises(Exists, match="images/ann/web is in Region eu already"):
        bucket.create("images/ann/web", b"other")
    assert bucket.get("images/ann/web") == b"mine"
    with pytest.raises(Exists):
        bucket.create("images/ann/web", b"mine")


def test_of_many_who_create_one_object_one_succeeds(
    bucket: Bucket, open_bucket: Open, knows_conditions: bool
) -> None:
    others = [open_bucket(str(bucket.url)) for _ in range(6)]
    begin = threading.Barrier(len(others))

    def create(number: int) -> bool:
        begin.wait(30)
        try:
            others[number].create("images/ann/web", b"%d" % number)
        except Exists:
            return False
        return True

    with ThreadPoolExecutor(len(others)) as pool:
        won = [number for number, done in enumerate(pool.map(create, range(len(others)))) if done]
    if knows_conditions:
        assert len(won) == 1
    assert bucket.get("images/ann/web") in [b"%d" % number for number in won]


def test_many_threads_share_a_bucket(bucket: Bucket) -> None:
    def there_and_back(number: int) -> bool:
        data = bytes([number]) * 100_000
        bucket.put(f"packs/{number}", data)
        return (
            bucket.get_range(f"packs/{number}", 50_000, 10) == data[:10]
            and bucket.get(f"packs/{number}") == data
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, range(40)))
    assert len(bucket.list("packs/")) == 40


def test_requests_and_bytes_are_counted(bucket: Bucket) -> None:
    bucket.put("packs/one", b"12345")
    bucket.create("packs/two", b"123")
    bucket.get("packs/one")
    bucket.get_range("packs/one", 1, 2)
    bucket.head("packs/one")
    bucket.list()
    bucket.delete("packs/one")
    statistics = bucket.statistics()
    assert statistics.requests == {"put": 2, "get": 2, "head": 1, "list": 1, "delete": 1}
    assert (statistics.sent, statistics.received) == (8, 7)
    assert statistics.retries == 0


def test_a_bucket_asks_nobody_before_it_is_used(open_bucket: Open) -> None:
    open_bucket("s3://nowhere/?endpoint=http://127.0.0.1:1&profile=nobody")
    open_bucket("file:///nowhere/at/all")
