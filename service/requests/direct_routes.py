"""Direct way to the JSON routes: requests with JSON for a fixed path skip the framework's routing.

To find a route, FastAPI asks the router of every module, and then enters five contexts for dependencies that no JSON
route has. This takes longer than most answers. The direct way calls the same handler (`JsonRoute.get_route_handler`)
and answers errors with the same functions, so both ways give the same responses. All other requests, such as uploads,
other methods and traced requests, take the usual way.
"""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.problem_handlers import answer_error

from .json_route import JsonRoute

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class DirectRoutes:
    """Pure ASGI middleware that answers JSON requests for `routes` without the framework."""

    def __init__(self, app: ASGIApp, routes: Iterable[JsonRoute]) -> None:
        self.app = app
        self._routes: dict[str, tuple[JsonRoute, Handler]] = {
            route.path: (route, route.get_route_handler())
            for route in routes
            if route.methods == {"POST"} and not route.param_convertors
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on to the application."""
        found = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if found is None or not _is_direct(scope):
            await self.app(scope, receive, send)
            return
        route, handle = found
        scope["route"], scope["endpoint"], scope["path_params"] = route, route.endpoint, {}
        request = Request(scope, receive, send)
        try:
            response = await handle(request)
        except Exception as error:
            response = await answer_error(request, error)
        await response(scope, receive, send)


def _is_direct(scope: Scope) -> bool:
    """Return whether a request is a POST with a JSON body, and is not traced by the framework."""
    if scope["method"] != "POST" or "fastapi.telemetry" in scope or scope["root_path"]:
        return False
    for name, value in scope["headers"]:
        if name == b"content-type":
            return bool(value == b"application/json")
    return False
