"""Security headers on every response, as defined in `http/browser_policy.py`.

Shared caches must not store a response to a request with an API key.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.browser_policy import SECURITY_HEADERS
from service.http.route_rules import SCOPE_KEY_NAME


class SecurityHeaders:
    """Pure ASGI middleware that adds the security headers to every response.

    A response that has a Content-Security-Policy keeps it. If `shared` is true, other sites may embed pictures.
    """

    def __init__(self, app: ASGIApp, shared: bool = False) -> None:
        self.app = app
        self.added = security_headers(shared)
        self.added_to_page = [field for field in self.added if field[0] != b"content-security-policy"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers to its response."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                page = b"content-security-policy" in dict(headers)
                headers += self.added_to_page if page else self.added
                if scope.get(SCOPE_KEY_NAME):
                    headers = private(headers)
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_with_headers)


def security_headers(shared: bool) -> list[tuple[bytes, bytes]]:
    """Return the security headers of a response that is not a page; see `SecurityHeaders`."""
    headers = SECURITY_HEADERS | ({"Cross-Origin-Resource-Policy": "cross-origin"} if shared else {})
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def private(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers with a Cache-Control that excludes shared caches.

    A response without Cache-Control gets `no-store`, which excludes all caches.
    """
    if not any(name == b"cache-control" for name, _ in headers):
        return [*headers, (b"cache-control", b"no-store")]
    return [
        (name, value.replace(b"public", b"private") if name == b"cache-control" else value)
        for name, value in headers
    ]
