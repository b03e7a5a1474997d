"""Direct way to the JSON routes: requests with JSON for a fixed path skip the framework's routing.

To find a route, FastAPI asks the router of every module, and then enters five contexts for dependencies that no JSON
route has. This takes longer than most answers. The direct way calls the same handler (`JsonRoute.get_route_handler`)
and answers errors with the same functions, so both ways give the same responses. All other requests, such as uploads,
other methods and traced requests, take the usual way.

The middlewares inside this one (`app.py`) change nothing for a request that takes the direct way: it is no HEAD, asks
for no range, and has a body without an encoding that is declared to be short enough.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.problem_handlers import answer_error
from service.lifecycle.app_state import State

from .json_route import JsonRoute

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

ShortWay = Callable[[State, bytes], Awaitable[bytes | None]]
"""Function that answers a body with the bytes of the JSON, or returns None so that the route answers."""

MAX_SHORT_BYTES = 1_024
"""Maximum size of a body that a short way may answer. The route decides whether a longer one is read at all."""

_FRAMING = frozenset({b"content-encoding", b"transfer-encoding"})


class DirectRoutes:
    """Pure ASGI middleware that answers JSON requests for `routes` of up to `max_body_bytes` without the framework.

    The functions in `short_ways` may answer the body of a request for their path, with status 200, before it is parsed;
    they get only bodies of up to `MAX_SHORT_BYTES`.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Iterable[JsonRoute],
        max_body_bytes: int,
        short_ways: Mapping[str, ShortWay] = MappingProxyType({}),
    ) -> None:
        self.app = app
        self.short_ways = short_ways
        self.max_body_bytes = max_body_bytes
        self._routes: dict[str, tuple[JsonRoute, Handler]] = {
            route.path: (route, route.get_route_handler())
            for route in routes
            if route.methods == {"POST"} and not route.param_convertors
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on to the application."""
        found = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        length = None if found is None else self._direct_length(scope)
        if found is None or length is None:
            await self.app(scope, receive, send)
            return
        route, handle = found
        scope["route"], scope["endpoint"], scope["path_params"] = route, route.endpoint, {}
        try:
            short_way = self.short_ways.get(scope["path"]) if length <= MAX_SHORT_BYTES else None
            response: ASGIApp = await _response(short_way, handle, scope, receive, send)
        except Exception as error:
            response = await answer_error(Request(scope, receive, send), error)
        await response(scope, receive, send)

    def _direct_length(self, scope: Scope) -> int | None:
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
        # The server delivers as many bytes as were declared (RFC 9112, section 6.3).
        return int(length) if int(length) <= self.max_body_bytes else None


async def _response(
    short_way: ShortWay | None, handle: Handler, scope: Scope, receive: Receive, send: Send
) -> ASGIApp:
    """Return the response of the short way if there is one and it answers, otherwise that of the route."""
    if short_way is not None:
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            content = await short_way(scope["state"], message.get("body", b""))
            if content is not None:
                return partial(_send_json, content)
        receive = _after(message, receive)
    return await handle(Request(scope, receive, send))


async def _send_json(content: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a response with JSON and the headers of Starlette's `Response`."""
    headers = [(b"content-length", b"%d" % len(content)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _after(message: Message, receive: Receive) -> Receive:
    """Return a function that receives `message` again, and then the further messages."""
    first: list[Message] = [message]

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again
