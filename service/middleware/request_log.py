"""Access log: every request gets a request ID, is counted, and is logged after its response has been sent.

Only Starlette's ServerErrorMiddleware is outside this middleware, so the log includes the requests that the other
middlewares reject.
"""

import logging
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.route_rules import SCOPE_KEY_NAME
from service.problems.response import SCOPE_PROBLEM, STATUS_CLIENT_LEFT
from service.telemetry.logs import REQUEST_ID, log_request, logs_requests, request_id
from service.telemetry.prometheus import Metrics

REQUEST_ID_HEADER = "X-Request-Id"

LOGGED_PATH_CHARACTERS = 200
"""Maximum number of characters of a path in the access log."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET_ROUTES = frozenset({"/livez", "/readyz", "/metrics"})
_REQUEST_ID_HEADER = REQUEST_ID_HEADER.lower().encode()


class RequestLog:
    """Pure ASGI middleware that logs and counts requests, and adds the request ID header to the response."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and log and count it when it ends."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = asked_request_id(scope)
        # The ID is never reset, because the server may log an error in the same task after this method returns.
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
            status = status or 500  # sent by ServerErrorMiddleware, the only middleware outside this one
            raise
        finally:
            note_answered(self.metrics, scope, status or STATUS_CLIENT_LEFT, perf_counter() - start, size)


def asked_request_id(scope: Scope) -> str:
    """Return the ID of a request: the one that the client sent if it is well-formed, or a new one."""
    for name, value in scope["headers"]:
        if name == _REQUEST_ID_HEADER:
            return request_id(value.decode("latin-1"))
    return request_id(None)


def note_answered(metrics: Metrics, scope: Scope, status: int, seconds: float, size: int) -> None:
    """Count and log a request that was answered with `size` bytes of content, this many seconds after it arrived."""
    route = template(scope)
    method = scope["method"] if scope["method"] in _METHODS else "other"
    metrics.answered(route, method, status, seconds)
    problem = scope.get(SCOPE_PROBLEM)
    if problem is not None:
        metrics.refused(problem)
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
    """Return the path template of the matched route, with parameters in braces, or `none` if no route matched."""
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
