"""Fast path: the interface through which a connection has a request answered without a task and the framework."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE


class FastAnswer(NamedTuple):
    """Response with status 200."""

    fields: bytes
    """Header fields, each with its line break."""
    content: bytes

    def response(self, default_headers: Iterable[tuple[bytes, bytes]], *, close: bool) -> bytes:
        """Return the bytes of the response with the header fields of the server; with `close` the connection ends."""
        return b"".join(
            [
                STATUS_LINE[200],
                *(b"%b: %b\r\n" % field for field in default_headers),
                self.fields,
                b"connection: close\r\n\r\n" if close else b"\r\n",
                self.content,
            ]
        )


Answered = Callable[[FastAnswer | None], None]
"""Function that is called with the answer to a request, or with None if the application must answer it."""


class FastPath(Protocol):
    """Way to answer some requests within the call that reads them. It is used on one event loop."""

    def take(self, scope: Scope, body: bytes | bytearray, answered: Answered) -> bool:
        """Take a complete request and return True, or return False if the application must answer it.

        If the request is taken, `answered` is called once: before this method returns, or in a later turn of the event
        loop. The application may then still have to answer.
        """
