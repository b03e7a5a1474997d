"""Direct way to the JSON routes: requests with JSON for a fixed path skip the framework's routing.

To find a route, FastAPI asks the router of every module, and then enters five contexts for dependencies that no JSON
route has. This takes longer than most answers. The direct way calls the same handler (`JsonRoute.get_route_handler`)
and answers errors with the same functions, so both ways give the same responses. All other requests, such as uploads,
other methods and traced requests, take the usual way.

The middlewares inside this one (`app.py`) change nothing for a request that takes the direct way: it is no HEAD, asks
for no range, and has a body without an encoding that is declared to be short enough.
"""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.problem_handlers import answer_error

from .json_route import JsonRoute

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_FRAMING = frozenset({b"content-encoding", b"transfer-encoding"})


class DirectRoutes:
    """Pure ASGI middleware that answers JSON requests for `routes` of up to `max_body_bytes` without the framework."""

    def __init__(self, app: ASGIApp, routes: Iterable[JsonRoute], max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self._routes: dict[str, tuple[JsonRoute, Handler]] = {
            route.path: (route, route.get_route_handler())
            for route in routes
            if route.methods == {"POST"} and not route.param_convertors
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on to the application."""
        found = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        length = None if found is None else plain_length(scope)
        if found is None or length is None or length > self.max_body_bytes:
            await self.app(scope, receive, send)
            return
        route, handle = found
        scope["route"], scope["endpoint"], scope["path_params"] = route, route.endpoint, {}
        try:
            response = await handle(Request(scope, receive, send))
        except Exception as error:
            response = await answer_error(Request(scope, receive, send), error)
        await response(scope, receive, send)


def plain_length(scope: Scope) -> int | None:
    """Return the declared length of a plain JSON body of an untraced POST; None for any other request."""
    if scope["method"] != "POST" or "fastapi.telemetry" in scope or scope["root_path"]:
        return None
    media_type = length = b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            media_type = media_type or value
        elif name == b"content-length":
            length = value
        elif name in _FRAMING:
            return None
    if media_type != b"application/json" or not length.isdigit():
        return None
    return int(length)  # the server delivers as many bytes as were declared (RFC 9112, section 6.3)
