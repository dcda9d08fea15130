"""A service that fails, is slow, is gone, or does not want us."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from imagefs.errors import (
    AccessDenied,
    Corrupt,
    Exists,
    ImagefsError,
    InvalidArgument,
    IOFailure,
    NoSpace,
    PlaceGone,
    Unreachable,
)
from imagefs.region.bucket import Bucket, Patience
from tests import object_server
from tests.faulty_proxy import Cut, Delay, FaultyProxy, Flip, Hang, Lose, Request, Status
from tests.object_server import ObjectServer
from tests.region.conftest import Open

QUICK = Patience(connect=2.0, silence=1.0, whole=3.0, retry=0.3, refused=0.3)
DATA = bytes(range(256)) * 400
JOIN_SECONDS = 30.0


@pytest.fixture
def bucket(server: ObjectServer, proxy: FaultyProxy, prefix: str, open_bucket: Open) -> Bucket:
    """A bucket behind a proxy, with all the patience it has for users."""
    bucket: Bucket = open_bucket(server.url(prefix, endpoint=proxy.endpoint))
    bucket.put("packs/one", DATA)
    proxy.forget()
    return bucket


@pytest.fixture
def hasty(server: ObjectServer, proxy: FaultyProxy, prefix: str, open_bucket: Open) -> Bucket:
    """The same with little patience."""
    open_bucket(server.url(prefix)).put("packs/one", DATA)
    bucket: Bucket = open_bucket(server.url(prefix, endpoint=proxy.endpoint), QUICK)
    return bucket


def all_of(bucket: Bucket) -> dict[str, Callable[[], object]]:
    """Every kind of request once."""
    return {
        "list": bucket.list,
        "get": lambda: bucket.get("packs/one"),
        "range": lambda: bucket.get_range("packs/one", 1000, 500),
        "head": lambda: bucket.head("packs/one"),
        "put": lambda: bucket.put("packs/two", DATA),
        "create": lambda: bucket.create("packs/three", DATA),
        "delete": lambda: bucket.delete("packs/two"),
    }


def refusal(work: Callable[[], object], error: type[ImagefsError]) -> str:
    """The message of what is raised: one line that gives nothing away."""
    with pytest.raises(error) as caught:
        work()
    message = str(caught.value)
    assert type(caught.value) is error
    assert message.isprintable()
    for secret in (object_server.ACCESS_KEY, object_server.SECRET_KEY, "X-Amz", "hunter2"):
        assert secret not in message
    assert len(message) < 300
    return message


# -- what passes ------------------------------------------------------------------------


def test_what_passes_is_counted_at_the_server(bucket: Bucket, proxy: FaultyProxy) -> None:
    bucket.put("packs/two", DATA)
    bucket.get("packs/two")
    bucket.get_range("packs/one", 7, 100)
    bucket.list("packs/")
    bucket.delete("packs/two")
    assert proxy.requests("PUT", "packs/two") == 1
    assert proxy.sent("PUT") == proxy.sent() == len(DATA)
    assert proxy.received("GET", "packs/two") == len(DATA)
    assert proxy.requests("LIST", "packs/") == 1
    assert proxy.requests("DELETE", "packs/two") == 1
    # rclone is found out with one request more: its status for ranges is wrong.
    assert proxy.received("GET", "packs/one") in (100, 200)


def test_ranges_cost_one_request_each(bucket: Bucket, proxy: FaultyProxy) -> None:
    bucket.get_range("packs/one", 0, 10)
    proxy.forget()
    for start in range(20):
        assert bucket.get_range("packs/one", start, 10) == DATA[start : start + 10]
    assert proxy.requests() == 20
    assert proxy.received() == 200


def test_flipped_bytes_are_for_others_to_see(bucket: Bucket, proxy: FaultyProxy) -> None:
    """A bucket does not know what an object should be; who does, verifies."""
    proxy.harm(Flip())
    found = bucket.get("packs/one")
    assert len(found) == len(DATA)
    assert sum(one != other for one, other in zip(found, DATA, strict=True)) == 1
    proxy.clear()
    assert bucket.get("packs/one") == DATA


# -- what fails now and then ------------------------------------------------------------


@pytest.mark.parametrize("harm", [Status(500, "InternalError"), Status(503), Status(429, "Slow")])
def test_every_third_request_may_fail(bucket: Bucket, proxy: FaultyProxy, harm: Status) -> None:
    proxy.harm(harm, every=3)

    def work(number: int) -> None:
        key = f"packs/{number}"
        bucket.put(key, DATA)
        bucket.create(f"images/ann/{number}", b"%d" % number)
        assert bucket.get(key) == DATA
        assert bucket.get_range(key, number, 10) == DATA[number : number + 10]
        assert bucket.head(key) is not None
        bucket.delete(key)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(10)))
    assert [listed.key for listed in bucket.list("packs/")] == ["packs/one"]
    failed = [passed for passed in proxy.passed if passed.status == harm.status]
    assert len(failed) == bucket.statistics().retries
    assert len(failed) > 20
    assert bucket.statistics().requests["put"] == 1 + 20


def test_answers_that_break_off_are_asked_for_again(bucket: Bucket, proxy: FaultyProxy) -> None:
    proxy.harm(Cut(), every=2, match=lambda request: request.method in ("GET", "LIST"))
    for start in range(10):
        assert bucket.get("packs/one") == DATA
        assert bucket.get_range("packs/one", start, 5000) == DATA[start : start + 5000]
        assert len(bucket.list()) == 1
    assert bucket.statistics().retries >= 10


def test_writes_whose_answers_are_lost_are_done_again(bucket: Bucket, proxy: FaultyProxy) -> None:
    proxy.harm(Lose(), every=2, match=lambda request: request.method in ("PUT", "DELETE"))
    for number in range(6):
        bucket.put(f"packs/{number}", DATA)
        bucket.delete(f"packs/{number}")
    assert len(bucket.list()) == 1
    assert bucket.statistics().retries >= 6


def test_who_created_an_object_knows_it_though_the_answer_was_lost(
    bucket: Bucket, proxy: FaultyProxy
) -> None:
    proxy.harm(Lose(), match=once(lambda request: request.method == "PUT"))
    bucket.create("images/ann/web", b"mine")
    assert proxy.requests("PUT") == 2
    assert bucket.get("images/ann/web") == b"mine"


def test_who_did_not_create_an_object_knows_it_too(
    moto_server: ObjectServer, prefix: str, credentials: None, open_bucket: Open
) -> None:
    with FaultyProxy(moto_server.endpoint) as proxy:
        bucket = open_bucket(moto_server.url(prefix, endpoint=proxy.endpoint))
        open_bucket(moto_server.url(prefix)).create("images/ann/web", b"theirs")
        proxy.harm(Lose(), match=once(lambda request: request.method == "PUT"))
        with pytest.raises(Exists):
            bucket.create("images/ann/web", b"mine")
        assert bucket.get("images/ann/web") == b"theirs"


def once(match: Callable[[Request], bool]) -> Callable[[Request], bool]:
    """Matches the first time only."""
    left = [True]

    def matches(request: Request) -> bool:
        return match(request) and bool(left) and left.pop()

    return matches


def test_a_slow_service_is_waited_for(bucket: Bucket, proxy: FaultyProxy) -> None:
    proxy.harm(Delay(0.5))
    assert bucket.get("packs/one") == DATA
    assert proxy.requests() == 1


# -- what fails for long ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["list", "get", "range", "head", "put", "create", "delete"])
def test_a_service_that_fails_for_long_is_unreachable(
    hasty: Bucket, proxy: FaultyProxy, kind: str
) -> None:
    work = all_of(hasty)[kind]
    proxy.harm(Status(503))
    # The answer to a HEAD has no body to say more in.
    reason = "503 Service Unavailable" if kind == "head" else "503 SlowDown"
    assert refusal(work, Unreachable) == f"Region eu does not answer ({reason})"
    assert proxy.requests() > 1
    proxy.clear()
    work()


def test_a_service_that_hangs_is_unreachable(hasty: Bucket, proxy: FaultyProxy) -> None:
    hasty.get_range("packs/one", 0, 1)
    proxy.harm(Hang())
    works = list(all_of(hasty).values())
    with ThreadPoolExecutor(len(works)) as pool:
        messages = list(pool.map(lambda work: refusal(work, Unreachable), works))
    assert set(messages) == {"Region eu does not answer (no answer in time)"}
    proxy.clear()
    for work in works:
        work()


def test_a_large_body_is_given_more_time_but_not_forever(hasty: Bucket, proxy: FaultyProxy) -> None:
    large = bytes(2 * 1024 * 1024)
    proxy.harm(Delay(QUICK.silence * 1.5))
    hasty.put("packs/large", large)
    proxy.clear()
    proxy.harm(Hang())
    assert "no answer in time" in refusal(lambda: hasty.put("packs/large", large), Unreachable)


def test_a_service_that_is_not_there_is_unreachable(hasty: Bucket, proxy: FaultyProxy) -> None:
    proxy.refuse()
    for work in all_of(hasty).values():
        assert "does not answer (connection refused)" in refusal(work, Unreachable)
    proxy.accept()
    for work in all_of(hasty).values():
        work()


def test_answers_that_always_break_off_are_given_up(hasty: Bucket, proxy: FaultyProxy) -> None:
    proxy.harm(Cut())
    for kind in ("get", "range", "list"):
        message = refusal(all_of(hasty)[kind], Unreachable)
        assert message == "Region eu does not answer (the connection broke)"


def test_a_service_that_comes_back_in_time_is_not_missed(
    bucket: Bucket, proxy: FaultyProxy
) -> None:
    proxy.harm(Status(503))
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(bucket.get, "packs/one")
        while proxy.requests() < 3:
            assert not found.done()
        proxy.clear()
        assert found.result(JOIN_SECONDS) == DATA


def test_who_was_unreachable_is_asked_once_until_it_answers(
    hasty: Bucket, proxy: FaultyProxy
) -> None:
    proxy.harm(Status(503))
    refusal(hasty.list, Unreachable)
    proxy.forget()
    for work in all_of(hasty).values():
        refusal(work, Unreachable)
    assert proxy.requests() == len(all_of(hasty))
    proxy.clear()
    hasty.list()
    proxy.harm(Status(503), every=2)
    for _ in range(4):
        assert hasty.get("packs/one") == DATA


def test_closing_ends_the_wait_for_another_try(bucket: Bucket, proxy: FaultyProxy) -> None:
    proxy.harm(Status(503))
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(bucket.get, "packs/one")
        while proxy.requests() < 2:
            assert not found.done()
        bucket.close()
        assert isinstance(found.exception(JOIN_SECONDS), Unreachable)


def test_what_is_no_object_store_is_told(
    open_bucket: Open, credentials: None, proxy: FaultyProxy, prefix: str, server: ObjectServer
) -> None:
    bucket = open_bucket(server.url(prefix, endpoint=f"{proxy.endpoint}/some/page"), QUICK)
    with pytest.raises(ImagefsError, match="Region eu"):
        bucket.list()


# -- who does not want us ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "error", "says"),
    [
        (403, "SignatureDoesNotMatch", AccessDenied, "403 SignatureDoesNotMatch"),
        (401, "Unauthorized", AccessDenied, "401 Unauthorized"),
        (400, "ExpiredToken", AccessDenied, "400 ExpiredToken"),
        (404, "NoSuchBucket", PlaceGone, "Region eu has no bucket regions"),
        (400, "AuthorizationHeaderMalformed", InvalidArgument, "say ?region="),
        (507, "Full", NoSpace, "no space left"),
        (400, "InvalidRequest", IOFailure, "400 InvalidRequest"),
        (405, "MethodNotAllowed", IOFailure, "405 MethodNotAllowed"),
    ],
)
def test_a_refusal_is_told_as_what_it_is(
    hasty: Bucket,
    proxy: FaultyProxy,
    status: int,
    code: str,
    error: type[ImagefsError],
    says: str,
) -> None:
    proxy.harm(Status(status, code))
    for kind, work in all_of(hasty).items():
        if kind != "head":
            proxy.forget()
            assert says in refusal(work, error)
            assert proxy.requests() == 1


def test_wrong_credentials_are_told(
    rclone_server: ObjectServer,
    prefix: str,
    open_bucket: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in object_server.environment(secret_key="hunter2" * 5).items():
        monkeypatch.setenv(name, value)
    for kind, work in all_of(open_bucket(rclone_server.url(prefix))).items():
        message = refusal(work, AccessDenied)
        assert "Region eu refuses" in message
        assert "SignatureDoesNotMatch" in message or kind == "head"


def test_without_credentials_nobody_is_asked(
    hasty: Bucket,
    server: ObjectServer,
    proxy: FaultyProxy,
    prefix: str,
    open_bucket: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    bucket = open_bucket(server.url(prefix, endpoint=proxy.endpoint))
    for work in all_of(bucket).values():
        assert "No credentials for S3 found" in refusal(work, AccessDenied)
    assert proxy.requests() == 0
    for name, value in object_server.environment().items():
        monkeypatch.setenv(name, value)
    assert bucket.get("packs/one") == DATA


def test_credentials_may_be_in_the_files_of_aws(
    hasty: Bucket,
    server: ObjectServer,
    proxy: FaultyProxy,
    prefix: str,
    open_bucket: Open,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    file = tmp_path_factory.mktemp("aws") / "credentials"
    keys = (object_server.ACCESS_KEY, object_server.SECRET_KEY)
    file.write_text("[work]\naws_access_key_id = {}\naws_secret_access_key = {}\n".format(*keys))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.fspath(file))
    url = server.url(prefix, endpoint=proxy.endpoint)
    assert open_bucket(f"{url}&profile=work").get("packs/one") == DATA
    proxy.forget()
    unknown = open_bucket(f"{url}&profile=play")
    assert "no profile 'play'" in refusal(unknown.list, InvalidArgument)
    assert proxy.requests() == 0


def test_the_endpoint_may_be_in_the_environment(
    rclone_server: ObjectServer,
    prefix: str,
    credentials: None,
    open_bucket: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    open_bucket(rclone_server.url(prefix)).put("packs/one", DATA)
    monkeypatch.setenv("AWS_ENDPOINT_URL", rclone_server.endpoint)
    plain = open_bucket(f"s3://{object_server.BUCKET}/{prefix}")
    assert plain.get("packs/one") == DATA
    assert plain.get_range("packs/one", 1, 2) == DATA[1:3]


def test_a_bucket_that_is_missing_is_told(
    server: ObjectServer, prefix: str, open_bucket: Open
) -> None:
    bucket = open_bucket(server.url(prefix, bucket="nobodys"))
    for kind, work in all_of(bucket).items():
        if kind == "head":
            assert work() is None
        else:
            assert "Region eu has no bucket nobodys" in refusal(work, PlaceGone)


@pytest.mark.parametrize("key", ["images//ann", "images/../x", "images/a\x01\x1b[31m"])
def test_a_key_that_cannot_be_used_is_told_at_once(
    moto_server: ObjectServer, prefix: str, credentials: None, open_bucket: Open, key: str
) -> None:
    with FaultyProxy(moto_server.endpoint) as proxy:
        bucket = open_bucket(moto_server.url(prefix, endpoint=proxy.endpoint))
        moto_server.client().put_object(
            Bucket=object_server.BUCKET, Key=f"{prefix}/{key}", Body=b""
        )
        message = refusal(bucket.list, IOFailure)
        assert "whose key cannot be used: remove it" in message
        assert proxy.requests() == 1


def test_a_truncated_object_is_damage(
    rclone_server: ObjectServer, prefix: str, credentials: None, open_bucket: Open
) -> None:
    bucket = open_bucket(rclone_server.url(prefix))
    bucket.put("packs/one", DATA)
    bucket.get_range("packs/one", 1000, 500)
    bucket.put("packs/one", DATA[:1200])
    assert "shorter than it should be" in refusal(all_of(bucket)["range"], Corrupt)


def test_many_threads_may_find_a_service_gone(hasty: Bucket, proxy: FaultyProxy) -> None:
    begin = threading.Barrier(8)
    proxy.harm(Hang())

    def work(_: int) -> bool:
        begin.wait(JOIN_SECONDS)
        with pytest.raises(Unreachable):
            hasty.get("packs/one")
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    proxy.clear()
    assert hasty.get("packs/one") == DATA
