"""Limit on request bodies: a longer one is refused before more of it than the limit is in memory.

Starlette's own limit answers in plain text if a length is declared; ours becomes a problem document. `rcml serve`
refuses such a body before the application sees it (`connection.py`); this holds under any other server.
"""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.limits import BodyLimits


class BodyLimit:
    """Pure ASGI middleware: reading a body longer than `limits` allow, declared or not, raises 413."""

    def __init__(self, app: ASGIApp, limits: BodyLimits) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
    detail = f"The body is longer than the limit of {longest} bytes. Send a shorter one."
    # What is left of the body is not read, so nothing can follow it on this connection.
    return HTTPException(413, detail, headers={"Connection": "close"})
