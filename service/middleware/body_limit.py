"""Limit on request bodies: a longer body is rejected before more than the limit is held in memory.

If the Content-Length header exceeds the limit, Starlette's own middleware returns plain text. This middleware always
returns a problem document. Under `rcml serve`, `connection.py` rejects a body that is too long before it reaches the
application. This middleware enforces the limit under any other server.
"""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.limits import BodyLimits


class BodyLimit:
    """Pure ASGI middleware that raises 413 if the application reads a body longer than `limits` allow."""

    def __init__(self, app: ASGIApp, limits: BodyLimits) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and raise 413 once the application reads too much of its body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        longest, declared = self.limits.body, ""
        for name, value in scope["headers"]:
            if name == b"content-length":
                declared = value.decode("latin-1")
            elif name == b"content-type":
                longest = self.limits.longest(scope["method"], scope["path"], value.decode("latin-1"))
        size = 0

        async def receive_limited() -> Message:
            nonlocal size
            if declared.isdecimal() and int(declared) > longest:
                raise _too_long(longest)
            message = await receive()
            size += len(message.get("body", b""))
            if size > longest:
                raise _too_long(longest)
            return message

        await self.app(scope, receive_limited, send)


def _too_long(longest: int) -> HTTPException:
    detail = f"The body is longer than the limit of {longest} bytes. Send a shorter body."
    # The rest of the body is not read, so no further request can follow on this connection.
    return HTTPException(413, detail, headers={"Connection": "close"})
