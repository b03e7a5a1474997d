"""HEAD requests: every route that supports GET answers HEAD with the same status and headers (RFC 9110, 9.1, 9.3.2).

Monitors, CDNs and `curl -I` send HEAD. FastAPI adds it to no route.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Head:
    """Pure ASGI middleware that passes HEAD on as GET, and leaves out the content of the response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        as_get = {**scope, "method": "GET"}
        try:
            await self.app(as_get, receive, send_head)
        finally:
            # The route that was found, for the access log. The server reads the method after the response.
            scope.update({**as_get, "method": "HEAD"})
