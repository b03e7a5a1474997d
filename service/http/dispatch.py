"""Dispatch of the requests of a connection: who answers a request whose turn has come.

An overloaded server refuses it (`admission.py`), the fast path answers it within the call that reads it, without a task
and the framework, or the application answers it.
"""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import quote

import uvicorn
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.problems.kinds import OVERLOADED

from .admission import OVERLOAD_DETAIL, Admission, Entered, retry_after
from .connection_config import ConnectionConfig
from .raw_problem import raw_problem


class FastAnswer(NamedTuple):
    """Response with status 200."""

    fields: bytes
    """Header fields, each with its line break."""
    content: bytes

    def response(self, default_headers: Iterable[tuple[bytes, bytes]], *, close: bool) -> bytes:
        """Return the bytes of the response with the header fields of the server; with `close` the connection ends."""
        return b"".join(
            [
                STATUS_LINE[200],
                *(b"%b: %b\r\n" % field for field in default_headers),
                self.fields,
                b"connection: close\r\n\r\n" if close else b"\r\n",
                self.content,
            ]
        )


Answered = Callable[[FastAnswer | None], None]
"""Function that is called with the answer to a request, or with None if the application must answer it."""


class FastPath(Protocol):
    """Way to answer some requests within the call that reads them. It is used on one event loop."""

    def take(self, scope: Scope, body: bytes | bytearray, answered: Answered) -> bool:
        """Take a complete request and return True, or return False if the application must answer it.

        If the request is taken, `answered` is called once: before this method returns, or in a later turn of the event
        loop. The application may then still have to answer.
        """


class Dispatch(HttpToolsProtocol):
    """uvicorn's protocol, which asks `Admission` and the fast path before it starts the application."""

    __slots__ = (
        "_admission", "_begun", "_draining", "_fast_path", "_incomplete", "_refused", "_settings", "_whole", "clock",
        "limits",
    )  # fmt: skip

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        assert isinstance(config, ConnectionConfig)
        self.limits = config.limits
        self.clock = config.clock
        self._settings = config
        self._admission: Admission | None = app_state.get("admission")
        self._fast_path: FastPath | None = app_state.get("fast_path")
        self._begun: RequestResponseCycle | None = None  # request that is being answered
        self._draining = False  # whether the server is stopping
        self._refused = -inf  # time of the latest refusal for overload
        self._whole = False  # whether the latest request is passed on only once its body is complete
        # Whether it is the turn of the latest request, but its body is still to come.
        self._incomplete = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Pass a request on whose turn has come, or refuse it. A short body must be complete first."""
        if cycle.more_body and self._whole:  # a body is incomplete only on the latest request
            self._incomplete = True
            return
        if self._admission is not None and not cycle.more_body:
            scope = cycle.scope
            path = self.limits.bodies.route_path(scope["path"])
            entered = self._admission.enter(scope["method"], path, cycle.body)
            if isinstance(entered, float):
                since = self.clock() - self._refused
                self._admission.refuse(partial(self._refuse, cycle, path, entered), since)
                return
            if self._takes_fast_path(cycle, entered, app):
                return
            app = entered.application(app)
        self._begun = cycle
        super()._start_asgi_task(cycle, app)

    def _takes_fast_path(self, cycle: RequestResponseCycle, entered: Entered, app: Any) -> bool:
        """Let the fast path answer a request, now or soon, if it can.

        While the server is stopping, `_say_last` must first see a request to close the connection after its response.
        """
        if self._fast_path is None or entered.encodes or self._draining or self.flow.write_paused:
            return False
        self._begun = cycle
        answered = partial(self._answered_fast, cycle, entered, app)
        taken = self._fast_path.take(cast(Scope, cycle.scope), cycle.body, answered)
        if taken:  # the fast path has a queue of its own
            entered.begin()
        return taken

    def _answered_fast(
        self, cycle: RequestResponseCycle, entered: Entered, app: Any, answer: FastAnswer | None
    ) -> None:
        """Send an answer of the fast path, or pass the request on if there is none."""
        if answer is None:
            begun: Any = entered.application(app)
            super()._start_asgi_task(cycle, begun)
            return
        self._send_whole(
            cycle, answer.response(self.server_state.default_headers, close=not cycle.keep_alive)
        )

    def _send_whole(self, cycle: RequestResponseCycle, response: bytes) -> None:
        """Send a response that is complete, and go on with the next request of the connection."""
        cycle.on_response = _nothing  # otherwise the cycle and this connection would keep each other alive
        if cycle.disconnected or self.transport.is_closing():
            return
        self.transport.write(response)
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _refuse(self, cycle: RequestResponseCycle, path: str, wait: float) -> None:
        """Send the refusal of a complete request."""
        self._refused = self.clock()
        headers, content = self.server_state.default_headers, cycle.scope["method"] != "HEAD"
        after, close = retry_after(wait), not cycle.keep_alive
        problem = raw_problem(
            OVERLOADED, OVERLOAD_DETAIL, quote(path), headers, after, content=content, close=close
        )
        self._send_whole(cycle, problem)


def _nothing() -> None:
    pass
