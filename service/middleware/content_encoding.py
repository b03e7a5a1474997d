"""Encodings of request bodies: a body must arrive as it is, neither compressed nor encoded otherwise (RFC 9110, 8.4).

Otherwise a compressed body would be read as invalid JSON. The rejection names the encoding, and tells in the
`Accept-Encoding` header that only `identity` is accepted (RFC 9110, sections 12.5.3 and 15.5.16).
"""

from collections.abc import Iterable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems.field_messages import ECHO_LENGTH


class ContentEncoding:
    """Pure ASGI middleware that raises 415 if the application reads a body with a Content-Encoding."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and raise 415 once the application reads an encoded body."""
        encoding = _encoding(scope["headers"]) if scope["type"] == "http" else ""
        if not encoding:
            await self.app(scope, receive, send)
            return

        async def receive_refused() -> Message:
            raise HTTPException(
                415,
                f"The body has the Content-Encoding {encoding[:ECHO_LENGTH]}, but this server reads only bodies "
                "without one. Send the body uncompressed, and leave the header out.",
                # The body is not read, so no further request can follow on this connection.
                headers={"Accept-Encoding": "identity", "Connection": "close"},
            )

        await self.app(scope, receive_refused, send)


def _encoding(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the Content-Encoding of a request, from all its header lines; empty if the body is not encoded."""
    lines = [value.decode("latin-1") for name, value in headers if name == b"content-encoding"]
    if not lines:
        return ""
    encodings = [part.strip() for part in ",".join(lines).split(",")]
    return ", ".join(encoding for encoding in encodings if encoding.lower() not in ("", "identity"))
