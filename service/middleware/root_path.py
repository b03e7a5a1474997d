"""Prefix under which a reverse proxy publishes the server, such as `/search` (`--root-path`).

Some proxies remove the prefix before they pass a request on, others keep it. Both are understood: the rest of the
application sees paths without the prefix. Addresses that the server gives out begin with it. The prefix alone leads to
the explorer at the prefix with a slash.
"""

from urllib.parse import urlsplit, urlunsplit

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.limits import without_prefix


class RootPath:
    """Pure ASGI middleware that removes the prefix from paths, and adds it to the `Location` of responses."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app = app
        self.prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or not self.prefix:
            await self.app(scope, receive, send)
            return
        if scope["path"] == self.prefix:  # the links of the page are relative to the prefix with its slash
            query = scope["query_string"].decode("latin-1")
            await RedirectResponse(f"{self.prefix}/{query and f'?{query}'}")(scope, receive, send)
            return

        async def send_located(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [
                    (name, self._located(value) if name == b"location" else value)
                    for name, value in message.get("headers", ())
                ]
                message = {**message, "headers": headers}
            await send(message)

        await self.app({**scope, "path": without_prefix(scope["path"], self.prefix)}, receive, send_located)

    def _located(self, location: bytes) -> bytes:
        parts = urlsplit(location.decode("latin-1"))
        return urlunsplit(parts._replace(path=self.prefix + parts.path)).encode("latin-1")
