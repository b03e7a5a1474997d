"""Access log: every request gets an id, is counted, and is logged when its answer has been sent.

The outermost middleware, so that requests that others refuse are logged too.
"""

import logging
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.route_rules import SCOPE_KEY_NAME
from service.problems.response import SCOPE_PROBLEM
from service.telemetry.logs import REQUEST_ID, log_request, logs_requests, request_id
from service.telemetry.prometheus import Metrics

REQUEST_ID_HEADER = "X-Request-Id"

LOGGED_PATH_CHARACTERS = 200
"""Characters of a path that are logged."""

STATUS_CLIENT_LEFT = 499
"""Status in logs and metrics if the client left before an answer was sent; nginx's convention."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET_ROUTES = frozenset({"/livez", "/readyz", "/metrics"})
_REQUEST_ID_HEADER = REQUEST_ID_HEADER.lower().encode()


class RequestLog:
    """Pure ASGI middleware; it changes nothing but to add the id's header to the answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = next((value for name, value in scope["headers"] if name == _REQUEST_ID_HEADER), None)
        request = request_id(None if asked is None else asked.decode("latin-1"))
        # Never reset: the server logs what goes wrong after this returns, in the same task.
        REQUEST_ID.set(request)
        header = (_REQUEST_ID_HEADER, request.encode())
        status, size = 0, 0

        async def observed_send(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), header]}
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            await send(message)

        self.metrics.began()
        start = perf_counter()
        try:
            await self.app(scope, receive, observed_send)
        except Exception:
            status = status or 500  # which ServerErrorMiddleware, the only one further out, answers
            raise
        finally:
            self._note(scope, status or STATUS_CLIENT_LEFT, perf_counter() - start, size)

    def _note(self, scope: Scope, status: int, seconds: float, size: int) -> None:
        route = template(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.metrics.answered(route, method, status, seconds)
        problem = scope.get(SCOPE_PROBLEM)
        if problem is not None:
            self.metrics.refused(problem)
        level = _level(route, status)
        if not logs_requests(level):
            return
        fields: dict[str, str | int | float] = {
            "method": method,
            "route": route,
            "path": scope["path"][:LOGGED_PATH_CHARACTERS],
            "status": status,
            "ms": round(seconds * 1000, 3),
            "bytes": size,
        }
        if (key := scope.get(SCOPE_KEY_NAME)) is not None:
            fields["key"] = key
        if problem is not None:
            fields["problem"] = problem
        log_request(level, f"{method} {route} {status}", fields)


def template(scope: Scope) -> str:
    """Return the route that answered, with its parameters in braces; `none` if the request came to no route."""
    if (route := scope.get("route")) is not None:
        return str(route.path_format)
    if "app_root_path" in scope:  # a mounted application
        return str(scope["root_path"].removeprefix(scope["app_root_path"])) + "/{path}"
    return "none"


def _level(route: str, status: int) -> int:
    if status == 500:
        return logging.ERROR
    if status > 500:
        return logging.WARNING
    return logging.DEBUG if route in _QUIET_ROUTES else logging.INFO
