"""Request heads: valid and invalid heads, the framing of the body, and the maximum body size, all without sockets."""

from http import HTTPStatus

import pytest

from service.http.limits import BodyLimits, Limits
from service.http.request_head import BodyMode, RejectedRequest, RequestHead

LIMITS = Limits(BodyLimits(100, 300, 500), head=200, target=50, fields=5, pipeline=4)
HOST = (b"host", b"shop")
CHUNKED = (b"transfer-encoding", b"chunked")


def length(count: int) -> tuple[bytes, bytes]:
    return b"content-length", b"%d" % count


def head(
    *fields: tuple[bytes, bytes], method: str = "POST", target: bytes = b"/retrieve", version: str = "1.1"
) -> RequestHead:
    return RequestHead(method, target, version, [*fields])


@pytest.mark.parametrize(
    ("request_head", "mode"),
    [
        (head(HOST), BodyMode.LENGTH),
        (head(HOST, length(100)), BodyMode.LENGTH),
        (head(HOST, CHUNKED), BodyMode.CHUNKED),
        (head(HOST, (b"transfer-encoding", b"Chunked")), BodyMode.CHUNKED),
        (head(version="1.0"), BodyMode.LENGTH),
    ],
)
def test_check_returns_the_framing_of_the_body(request_head: RequestHead, mode: BodyMode) -> None:
    assert request_head.check(LIMITS, received=200, waiting=0) is mode


@pytest.mark.parametrize(
    ("request_head", "status", "detail"),
    [
        (head(), 400, "the Host field is missing"),
        (head(HOST, HOST), 400, "the Host or Transfer-Encoding field is repeated"),
        (head(HOST, CHUNKED, CHUNKED), 400, "the Host or Transfer-Encoding field is repeated"),
        (
            head(HOST, (b"transfer-encoding", b"gzip, chunked")),
            400,
            "the only supported transfer encoding is chunked",
        ),
        (
            head(CHUNKED, version="1.0"),
            400,
            "its version is HTTP/1.0. Send HTTP/1.1, or HTTP/1.0 without Transfer-Encoding",
        ),
        (head(HOST, version="2.0"), 400, "its version is HTTP/2.0"),
        (head(HOST, length(101)), 413, "limit of 100 bytes"),
        (head(HOST, *[(b"x", b"")] * 5), 431, "limit of 200 bytes or 5 fields"),
        (head(HOST, target=b"/" * 51), 414, "limit of 50 bytes"),
    ],
)
def test_rejects_an_invalid_head_with_the_reason(request_head: RequestHead, status: int, detail: str) -> None:
    with pytest.raises(RejectedRequest, match=detail) as rejected:
        request_head.check(LIMITS, received=0, waiting=0)
    assert rejected.value.status == HTTPStatus(status)


def test_bytes_received_after_a_head_do_not_count_towards_its_size() -> None:
    long = head(HOST, (b"x", b"x" * 200))
    with pytest.raises(RejectedRequest):
        long.check(LIMITS, received=201, waiting=0)
    short = head(HOST, (b"x", b"x" * 100))
    assert short.check(LIMITS, received=10_000, waiting=0) is BodyMode.LENGTH


def test_rejects_a_request_beyond_the_pipeline_limit() -> None:
    head(HOST).check(LIMITS, received=0, waiting=3)
    with pytest.raises(RejectedRequest, match="At most 4 requests") as rejected:
        head(HOST).check(LIMITS, received=0, waiting=4)
    assert rejected.value.status == HTTPStatus.TOO_MANY_REQUESTS


@pytest.mark.parametrize(
    ("request_head", "longest"),
    [
        (head(HOST), 100),
        (head(HOST, (b"content-type", b"multipart/form-data; boundary=b")), 300),
        (head(HOST, target=b"/items/bulk?x=1"), 500),
        (head(HOST, target=b"/items/b%75lk"), 500),
    ],
)
def test_the_maximum_body_size_depends_on_route_and_media_type(
    request_head: RequestHead, longest: int
) -> None:
    assert request_head.longest_body(LIMITS) == longest
