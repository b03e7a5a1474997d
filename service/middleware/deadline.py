"""Deadline of requests: a request that takes too long is answered with 503, and its work is cancelled.

Otherwise the work would continue after the client has given up. Work in a thread cannot be cancelled: it runs to its
end, and its result is discarded.

A sweep every tenth of a second checks all waiting requests. The sweep was measured at 1.5 us of CPU per request. A
timer for each request (`asyncio.timeout`) took 4 to 9 us, at least as much as all other middlewares together.
"""

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.admission import SCOPE_BEGAN
from service.http.route_rules import rule_of
from service.problems.kinds import OVERDUE
from service.problems.response import problem_response

SLOW_ROUTE_DEADLINE_S = 600.0
"""Deadline in seconds of the slow routes of `service/http/route_rules.py`, such as bulk uploads and reloads."""

SWEEP_INTERVAL_S = 0.1
"""Seconds between two sweeps. A request exceeds its deadline by at most this time."""


@dataclass(eq=False, slots=True)
class _Waiting:
    """Request whose response has not started."""

    task: "asyncio.Task[Any]"
    due: float
    overdue: bool = False


class Deadline:
    """Pure ASGI middleware that returns 503 if the response has not started within `seconds`.

    A response that has started may take as long as it needs.
    """

    def __init__(self, app: ASGIApp, seconds: float, slow_seconds: float = SLOW_ROUTE_DEADLINE_S) -> None:
        self.app = app
        self.seconds = seconds
        self.slow_seconds = max(seconds, slow_seconds)
        self._waiting: set[_Waiting] = set()
        self._swept_by: asyncio.AbstractEventLoop | None = None

    @property
    def waiting(self) -> int:
        """Number of requests whose responses have not started."""
        return len(self._waiting)

    @property
    def sweeping(self) -> bool:
        """Whether a sweep is scheduled."""
        return self._swept_by is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; cancel it and return 503 if its deadline expires."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        task = asyncio.current_task()
        assert task is not None, "a server must run each request in an asyncio task"
        seconds = self.slow_seconds if rule_of(scope["method"], scope["path"]).slow else self.seconds
        # The time before the first byte was read counts, if the server knows it.
        now = monotonic()
        request = _Waiting(task, scope.get(SCOPE_BEGAN, now) + seconds)
        if request.due <= now:
            await self._answer_overdue(scope, receive, send, seconds)
            return
        self._wait(request)

        async def send_in_time(message: Message) -> None:
            if not request.overdue:  # otherwise this middleware sends the response
                self._waiting.discard(request)
                await send(message)

        try:
            await self.app(scope, receive, send_in_time)
        except asyncio.CancelledError:
            if not request.overdue:
                raise
        finally:
            self._waiting.discard(request)
        if request.overdue:
            if task.uncancel():  # the task was also cancelled from outside
                raise asyncio.CancelledError
            await self._answer_overdue(scope, receive, send, seconds)

    async def _answer_overdue(self, scope: Scope, receive: Receive, send: Send, seconds: float) -> None:
        detail = f"No response was ready within {seconds:g} s. Retry in a second, or send a smaller request."
        response = problem_response(OVERDUE, detail, scope["path"], headers={"Retry-After": "1"})
        await response(scope, receive, send)

    def _wait(self, request: _Waiting) -> None:
        self._waiting.add(request)
        loop = request.task.get_loop()
        if self._swept_by is not loop:
            self._swept_by = loop
            loop.call_later(SWEEP_INTERVAL_S, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = monotonic()
        for request in [request for request in self._waiting if request.due <= now]:
            request.overdue = True
            self._waiting.discard(request)
            request.task.cancel()
        if self._waiting:
            loop.call_later(SWEEP_INTERVAL_S, self._sweep, loop)
        else:
            self._swept_by = None
