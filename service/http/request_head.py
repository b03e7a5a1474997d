"""Checks of a request head that the parser does not make: size, framing and HTTP version.

The parser (llhttp in strict mode) rejects request smuggling: two lengths, a length together with chunks, bare line
feeds, and folded fields. This module rejects heads that the parser accepts although RFC 9112 forbids them. It does not
use sockets: `connection.py` passes in what the parser has read and sends the responses.
"""

from enum import StrEnum
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote

from httptools import HttpParserCallbackError, HttpParserError, parse_url

from service.problems.kinds import Kind

from .limits import Limits

SHORT_BODY_BYTES = 8 * 2**10
"""Length of a body in bytes up to which a request is passed on only when the body is complete.

Until then it costs the application nothing, and `Admission` can see whether the request needs the network.
"""


class RejectedRequest(Exception):
    """Rejection of a request by the HTTP server itself, which then closes the connection."""

    def __init__(
        self, status: HTTPStatus, detail: str, kind: Kind | None = None, retry_after: int = 1
    ) -> None:
        """Describe the rejection; without a `kind` it has the plain kind of its status."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.retry_after = retry_after


class BodyMode(StrEnum):
    """Framing of a request body, which determines where the body ends (RFC 9112, section 6.3)."""

    LENGTH = "length"
    """Body of Content-Length bytes, or no body if that field is missing."""
    CHUNKED = "chunked"
    """Body that ends with the last chunk, optionally followed by trailers."""


class RequestHead(NamedTuple):
    """Request line and header fields of one request, as read by the parser."""

    method: str
    target: bytes
    version: str
    """HTTP version, such as `1.1`."""
    fields: list[tuple[bytes, bytes]]
    """Header fields in order of arrival, as pairs of a lower-case name and a value."""

    def check(self, limits: Limits, received: int, waiting: int) -> BodyMode:
        """Check the head and return the framing of the body.

        `received` is an upper bound on the size of the head in bytes. `waiting` is the number of requests on the
        connection that wait for a response.

        Raises:
            RejectedRequest: The head or the declared body is too long, too many requests are waiting, or the head
                violates RFC 9112.
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
                f"At most {limits.pipeline} requests may wait on a connection. Send more after a response.",
            )
        if by_name.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise malformed("the only supported transfer encoding is chunked.")
        return BodyMode.CHUNKED if b"transfer-encoding" in by_name else BodyMode.LENGTH

    def is_short(self, mode: BodyMode) -> bool:
        """Return whether the body, if there is one, has a declared length of at most `SHORT_BODY_BYTES`."""
        declared = next((int(value) for name, value in self.fields if name == b"content-length"), 0)
        return mode is BodyMode.LENGTH and declared <= SHORT_BODY_BYTES

    @property
    def path(self) -> str:
        """Path of the target, decoded."""
        return unquote(parse_url(self.target).path.decode("latin-1"))

    def longest_body(self, limits: Limits) -> int:
        """Return the maximum size of the request body in bytes.

        Parsing the target takes time, so callers call this only for a body that exceeds the smallest limit
        (`BodyLimits.body`).
        """
        media_type = next((value for name, value in self.fields if name == b"content-type"), b"")
        return limits.bodies.longest(self.method, self.path, media_type.decode("latin-1"))

    def _check_size(self, limits: Limits, received: int) -> None:
        if len(self.fields) > limits.fields or len(self.target) > limits.target:
            raise long_head(self.target, limits)
        if received > limits.head:  # may include bytes after the head, so compute the exact size
            size = len(self.target) + sum(len(name) + len(value) for name, value in self.fields)
            if size > limits.head:
                raise long_head(self.target, limits)

    def _check_form(self, by_name: dict[bytes, bytes]) -> None:
        if len(by_name) < len(self.fields):
            names = [name for name, _ in self.fields]
            if names.count(b"host") > 1 or names.count(b"transfer-encoding") > 1:
                raise malformed("the Host or Transfer-Encoding field is repeated.")
        if self.version != "1.1" and (self.version != "1.0" or b"transfer-encoding" in by_name):
            raise malformed(
                f"its version is HTTP/{self.version}. Send HTTP/1.1, or HTTP/1.0 without Transfer-Encoding."
            )
        if self.version == "1.1" and b"host" not in by_name:
            raise malformed("the Host field is missing.")


def long_head(target: bytes, limits: Limits) -> RejectedRequest:
    """Return the rejection of a head that is too long; `target` is the part of the target received so far."""
    if len(target) > limits.target:
        detail = f"The target is longer than the limit of {limits.target} bytes. Send a shorter target."
        return RejectedRequest(HTTPStatus.REQUEST_URI_TOO_LONG, detail)
    detail = (
        f"The header fields exceed the limit of {limits.head} bytes or {limits.fields} fields. "
        "Send fewer or shorter fields."
    )
    return RejectedRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)


def long_body(longest: int) -> RejectedRequest:
    """Return the rejection of a body longer than `longest` bytes."""
    detail = f"The body is longer than the limit of {longest} bytes. Send a shorter body."
    return RejectedRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)


def malformed(reason: str) -> RejectedRequest:
    """Return the rejection of a request that violates HTTP/1.1; `reason` names the violation."""
    return RejectedRequest(HTTPStatus.BAD_REQUEST, f"The request violates HTTP/1.1 (RFC 9112): {reason}")


def parser_rejection(error: HttpParserError) -> RejectedRequest:
    """Return the reason why the parser stopped: a rejection by a callback, or the parser's own message."""
    rejection = error.__context__
    if isinstance(rejection, RejectedRequest):
        return rejection
    callback = isinstance(error, HttpParserCallbackError)
    return malformed("the target cannot be parsed." if callback else f"{str(error).rstrip('.')}.")
