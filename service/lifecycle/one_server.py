"""Middleware that makes the workers of a server look like one process.

Before each request, the worker serves the version that is decided (`membership.py`) and reads the changes that other
workers have acknowledged (`service/engine/shared_changes.py`). A central request is about something that only one
worker has, such as the jobs that add relations: another worker forwards it to that worker, through their parent.
"""

from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.errors import RcmlError
from service.http.problem_handlers import error_response
from service.http.route_rules import SCOPE_KEY_NAME, rule_of
from service.problems.errors import NotReadyError
from service.problems.response import SCOPE_PROBLEM
from service.shared.channel import Frame

from .engine_holder import EngineHolder
from .membership import Membership

ALWAYS_ANSWERED = "/livez"
"""Path of the only request that waits for nothing."""


class CentralRequests:
    """Answers of this worker to the requests that other workers forward to it."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None
        """`OneServer` and everything within it; it sets itself."""
        self.state: dict[str, Any] = {}
        """State of the application; its lifespan sets it."""
        self.outer: Any = None
        """Whole application; its lifespan sets it."""

    async def answer(self, request: Frame) -> Frame:
        """Return the response to a forwarded request."""
        sent: list[Message] = []
        received: list[Message] = [
            {"type": "http.request", "body": request["body"].encode("latin-1"), "more_body": False}
        ]

        async def receive() -> Message:
            return received.pop() if received else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        scope: Scope = {
            **request["scope"],
            "type": "http",
            "asgi": {"version": "3.0"},
            "raw_path": request["scope"]["raw_path"].encode("latin-1"),
            "query_string": request["scope"]["query_string"].encode("latin-1"),
            "headers": [
                (name.encode("latin-1"), value.encode("latin-1")) for name, value in request["headers"]
            ],
            "app": self.outer,
            "state": dict(self.state),
        }
        assert self.app is not None, "a request was forwarded, so the application has started"
        await self.app(scope, receive, send)
        return {
            "status": sent[0]["status"],
            "headers": [
                [name.decode("latin-1"), value.decode("latin-1")] for name, value in sent[0]["headers"]
            ],
            "body": b"".join(message.get("body", b"") for message in sent[1:]).decode("latin-1"),
            "route": getattr(scope.get("route"), "path_format", None),
            "problem": scope.get(SCOPE_PROBLEM),
        }


class _ForwardedRoute:
    """Route that matched in another worker, for the access log."""

    def __init__(self, path_format: str) -> None:
        self.path_format = path_format


class OneServer:
    """Pure ASGI middleware of a server with several workers, around everything that uses the engine."""

    def __init__(self, app: ASGIApp, central: CentralRequests) -> None:
        self.app = app
        central.app = self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Bring this worker up to date and pass the request on, or forward it to the worker that leads."""
        if scope["type"] != "http" or scope["path"] == ALWAYS_ANSWERED:
            await self.app(scope, receive, send)
            return
        membership: Membership = scope["state"]["membership"]
        holder: EngineHolder = scope["state"]["engine_holder"]
        membership.adopt()
        if holder.ready:
            try:
                if rule_of(scope["method"], scope["path"]).central and not membership.leads:
                    await _forward(scope, receive, send, membership)
                    return
                if holder.engine.changes.behind:
                    with holder.held() as engine:
                        await engine.changes.catch_up()
            except RcmlError as error:
                await error_response(Request(scope), error)(scope, receive, send)
                return
        await self.app(scope, receive, send)


async def _forward(scope: Scope, receive: Receive, send: Send, membership: Membership) -> None:
    """Send the answer of the leading worker.

    Raises:
        NotReadyError: No worker leads, or the leading worker has ended.
        RuntimeError: The leading worker has a bug, and its log has the traceback.
    """
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    kept = ("method", "scheme", "path", "root_path", "http_version", "client", "server", SCOPE_KEY_NAME)
    answer = await membership.ask(
        "central",
        request={
            "scope": {
                **{name: scope[name] for name in kept if name in scope},
                "raw_path": scope["raw_path"].decode("latin-1"),
                "query_string": scope["query_string"].decode("latin-1"),
            },
            "headers": [
                [name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]
            ],
            "body": body.decode("latin-1"),
        },
    )
    if "bug" in answer:
        raise RuntimeError(f"The worker that answers {scope['path']} failed: {answer['bug']}")
    if "status" not in answer:
        raise NotReadyError("The worker that adds relations is being replaced. Retry in a second.")
    if answer["route"] is not None:
        scope["route"] = _ForwardedRoute(answer["route"])
    if answer["problem"] is not None:
        scope[SCOPE_PROBLEM] = answer["problem"]
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer["headers"]]
    await send({"type": "http.response.start", "status": answer["status"], "headers": headers})
    await send({"type": "http.response.body", "body": answer["body"].encode("latin-1")})
