"""Deadline of requests: one that took too long is answered with 503, and the work for it is stopped.

The work would otherwise go on after its client has given up. What runs in a thread
cannot be stopped: it ends by itself, and its result is dropped.

One sweep a tenth of a second looks at all requests that wait. That was measured at 1.5 us of CPU a request, where a
timer for each (`asyncio.timeout`) took 4 to 9: as much as all the other guards together, or more.
"""

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.route_rules import rule_of
from service.problems.kinds import OVERDUE
from service.problems.response import problem_response

SLOW_ROUTE_DEADLINE_S = 600.0
"""Seconds that the slow routes of `service/http/route_rules.py` may take: bulk uploads, reloads."""

SWEEP_INTERVAL_S = 0.1
"""Seconds between two sweeps, and so the most by which a deadline may be overrun."""


@dataclass(eq=False, slots=True)
class _Waiting:
    """A request whose answer has not begun."""

    task: "asyncio.Task[Any]"
    due: float
    overdue: bool = False


class Deadline:
    """Pure ASGI middleware: 503 unless the answer has begun after `seconds`; what has begun may go on."""

    def __init__(self, app: ASGIApp, seconds: float, slow_seconds: float = SLOW_ROUTE_DEADLINE_S) -> None:
        self.app = app
        self.seconds = seconds
        self.slow_seconds = max(seconds, slow_seconds)
        self._waiting: set[_Waiting] = set()
        self._swept_by: asyncio.AbstractEventLoop | None = None

    @property
    def waiting(self) -> int:
        """Requests whose answers have not begun."""
        return len(self._waiting)

    @property
    def sweeping(self) -> bool:
        """Whether late requests are looked for."""
        return self._swept_by is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        task = asyncio.current_task()
        assert task is not None, "a server answers in tasks"
        seconds = self.slow_seconds if rule_of(scope["method"], scope["path"]).slow else self.seconds
        request = _Waiting(task, monotonic() + seconds)
        self._wait(request)

        async def send_in_time(message: Message) -> None:
            if not request.overdue:  # else the answer is ours
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
            if task.uncancel():  # someone else wants it stopped too
                raise asyncio.CancelledError
            detail = f"No answer was ready within {seconds:g} s. Ask again in a second, or ask for less."
            headers = {"Retry-After": "1"}
            await problem_response(OVERDUE, detail, scope["path"], headers=headers)(scope, receive, send)

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
