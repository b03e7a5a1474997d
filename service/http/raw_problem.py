"""Problem documents as bytes of an HTTP/1.1 response, for requests that the application never sees.

A response is made from parts that are prepared once for each problem, because an overloaded server sends thousands a
second.
"""

from collections.abc import Iterable
from functools import lru_cache

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.problems.kinds import Kind
from service.problems.response import MEDIA_TYPE

_INSTANCE = "INSTANCE"


def raw_problem(
    kind: Kind,
    detail: str,
    instance: str,
    default_headers: Iterable[tuple[bytes, bytes]],
    retry_after: int | None = None,
    *,
    content: bool = True,
    close: bool = True,
) -> bytes:
    """Return the response with a problem about the path `instance`, in which all characters are quoted.

    `retry_after` is in seconds. Without `content` the response answers HEAD; with `close` the connection ends.
    """
    head, body_start, body_end = _parts(kind, detail)
    body = b"%b%b%b" % (body_start, instance.encode(), body_end)
    return b"".join(
        [
            head,
            *(b"%b: %b\r\n" % field for field in default_headers),
            b"content-length: %d\r\n" % len(body),
            b"" if retry_after is None else b"retry-after: %d\r\n" % retry_after,
            b"connection: close\r\n\r\n" if close else b"\r\n",
            body if content else b"",
        ]
    )


@lru_cache
def _parts(kind: Kind, detail: str) -> tuple[bytes, bytes, bytes]:
    """Return the status line with the media type, and the document before and after the path."""
    document = kind.problem(detail, _INSTANCE).model_dump_json(exclude_none=True)
    before, _, after = document.rpartition(_INSTANCE)
    head = b"%bcontent-type: %b\r\n" % (STATUS_LINE[kind.status], MEDIA_TYPE.encode())
    return head, before.encode(), after.encode()
