"""The head of a request, checked beyond what the parser checks: its size, its framing and its version.

The parser (llhttp, strict) refuses what smuggles: two lengths, a length beside chunks, line feeds alone, folded
fields. What it lets pass and RFC 9112 does not is refused here. Nothing here knows a socket; `connection.py` hands over
what the parser has read, and sends the answers.
"""

from enum import StrEnum
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote

from httptools import parse_url

from .limits import Limits


class RejectedRequest(Exception):
    """A request that is answered before the application sees it, and ends its connection."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class BodyMode(StrEnum):
    """How the end of a body is found (RFC 9112, section 6.3)."""

    LENGTH = "length"
    """By Content-Length; without that field there is no body."""
    CHUNKED = "chunked"
    """By the last chunk, which trailers may follow."""


class RequestHead(NamedTuple):
    """The request line and the header fields of one request, as the parser gives them."""

    method: str
    target: bytes
    version: str
    """Of HTTP, such as `1.1`."""
    fields: list[tuple[bytes, bytes]]
    """Names in lower case, and values, in the order of their arrival."""

    def check(self, limits: Limits, received: int, waiting: int) -> BodyMode:
        """Check the head, of which at most `received` bytes came, on a connection with `waiting` earlier requests.

        Raises:
            RejectedRequest: the head or the body it declares is too long, too many requests wait, or it breaks RFC
                9112.
        """
        self._check_size(limits, received)
        by_name = dict(self.fields)
        self._check_form(by_name)
        if b"content-length" in by_name and int(by_name[b"content-length"]) > limits.bodies.body:
            longest = self.longest_body(limits)
            if int(by_name[b"content-length"]) > longest:
                raise long_body(longest)
        if waiting >= limits.pipeline:
            raise RejectedRequest(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"At most {limits.pipeline} requests may wait on a connection. Send more after an answer.",
            )
        if by_name.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise malformed("no transfer encoding but chunked is read here.")
        return BodyMode.CHUNKED if b"transfer-encoding" in by_name else BodyMode.LENGTH

    def longest_body(self, limits: Limits) -> int:
        """Return the bytes that the body of the request may have; worth asking only about one that is long."""
        path = unquote(parse_url(self.target).path.decode("latin-1"))
        media_type = next((value for name, value in self.fields if name == b"content-type"), b"")
        return limits.bodies.longest(self.method, path, media_type.decode("latin-1"))

    def _check_size(self, limits: Limits, received: int) -> None:
        if len(self.fields) > limits.fields or len(self.target) > limits.target:
            raise long_head(self.target, limits)
        if received > limits.head:  # counts what came along with the head, so the sum is seldom needed
            size = len(self.target) + sum(len(name) + len(value) for name, value in self.fields)
            if size > limits.head:
                raise long_head(self.target, limits)

    def _check_form(self, by_name: dict[bytes, bytes]) -> None:
        if len(by_name) < len(self.fields):
            names = [name for name, _ in self.fields]
            if names.count(b"host") > 1 or names.count(b"transfer-encoding") > 1:
                raise malformed("a Host or Transfer-Encoding field is repeated.")
        if self.version != "1.1" and (self.version != "1.0" or b"transfer-encoding" in by_name):
            raise malformed(f"HTTP/{self.version} is not spoken here, or not with chunks.")
        if self.version == "1.1" and b"host" not in by_name:
            raise malformed("a Host field is missing.")


def long_head(target: bytes, limits: Limits) -> RejectedRequest:
    """Return the rejection of a head that is too long, of whose target this much has come."""
    if len(target) > limits.target:
        detail = f"The target is longer than the limit of {limits.target} bytes. Send a shorter one."
        return RejectedRequest(HTTPStatus.REQUEST_URI_TOO_LONG, detail)
    detail = (
        f"The header fields exceed the limit of {limits.head} bytes or {limits.fields} fields. "
        "Send fewer or shorter ones."
    )
    return RejectedRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)


def long_body(longest: int) -> RejectedRequest:
    """Return the rejection of a body of more than `longest` bytes."""
    detail = f"The body is longer than the limit of {longest} bytes. Send a shorter one."
    return RejectedRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)


def malformed(reason: str) -> RejectedRequest:
    """Return the rejection of a request that is not HTTP/1.1."""
    return RejectedRequest(HTTPStatus.BAD_REQUEST, f"The request breaks HTTP/1.1 (RFC 9112): {reason}")
