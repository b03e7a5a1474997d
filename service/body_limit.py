"""Refuses request bodies beyond a limit, before more of them than that is in memory.

Starlette's own limit answers in plain text where a length is declared; ours becomes a problem document.
"""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """Pure ASGI middleware: reading a body longer than `most` bytes, declared or not, raises 413."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self.most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        size = 0

        async def receive_limited() -> Message:
            nonlocal size
            if declared.isdecimal() and int(declared) > self.most:
                raise self._refusal()
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.most:
                raise self._refusal()
            return message

        await self.app(scope, receive_limited, send)

    def _refusal(self) -> HTTPException:
        detail = f"The body is longer than the limit of {self.most} bytes. Send a shorter one."
        # What is left of the body is not read, so nothing can follow it on this connection.
        return HTTPException(413, detail, headers={"Connection": "close"})
