"""Admission of requests: an overloaded server refuses a request before the application sees it.

A refusal by a route costs almost as much as a cheap answer: a task, all middlewares, routing and validation. Under ten
times the capacity, refusals would then take the processor from the network, and requests would wait in the buffers of
the kernel. `Connection` therefore asks `Admission` as soon as it has a request, and writes a prepared response.

There are two bounds. A request that needs the network is refused if the network's queue would refuse its job; the
queue itself (`service/engine/batcher.py`) knows the expected wait. Any request is refused if many others are waiting
for the event loop. Requests on which the operation of the server depends (`RouteRule.urgent`) are always admitted.

Refusals are sent together, up to `REFUSAL_DELAY_S` later. A client that ignores `Retry-After` and asks again at once
waits for up to `REPEATED_DELAY_S`; many such clients would otherwise keep the event loop busy with refusals.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from math import ceil, inf
from random import randrange

from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems.kinds import OVERLOADED

from .request_head import RejectedRequest
from .route_rules import Encodes, rule_of

SCOPE_BEGAN = "rcml.began"
"""Scope entry with the time at which the first byte of the request arrived, in seconds of the server's clock."""

MAX_ENTERING = 256
"""Maximum number of admitted requests that wait for their first turn on the event loop."""

REFUSAL_DELAY_S = 0.03
"""Maximum time in seconds that a refusal is held, so that one wake-up of the event loop sends many."""

REPEATED_DELAY_S = 0.25
"""The same if the client asks again within `HASTE_S` of a refusal."""

HASTE_S = 0.05
"""Time in seconds after a refusal within which a client asks again only if it ignores `Retry-After`.

A proxy may soon use the same connection for another client. That is why the time is short.
"""

RETRY_SPREAD_S = 3
"""Number of different values of `Retry-After`, so that the clients do not all return in the same second."""

REPORT_INTERVAL_S = 1.0
"""Time in seconds between two lines of the log about refused requests."""

OVERLOAD_DETAIL = "The server is overloaded and cannot answer this request in time. Retry in a few seconds."

_NEW_ITEM_FIELDS = re.compile(rb'"(?:text|picture|description)"')
"""JSON fields that need the network. The search for them is quick and may err, as the queue has a bound of its own."""


class Admission:
    """Decision about each request of a server, and the refusals that are to be sent. Used on one event loop."""

    def __init__(
        self,
        network_wait: Callable[[int], float] = lambda more: 0.0,
        on_refusals: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Create an admission with the bound of the network.

        `network_wait` returns the seconds that a job would wait behind the queued jobs and the given number of others,
        or 0 if the job would be accepted. `on_refusals` is told how many requests were refused.
        """
        self._network_wait = network_wait
        self._on_refusals = on_refusals
        self._entering = 0
        self._encoding = 0
        self._held: dict[float, list[Callable[[], None]]] = {}
        self._unreported = 0

    @property
    def entering(self) -> int:
        """Number of admitted requests that wait for their first turn on the event loop."""
        return self._entering

    def enter(self, method: str, path: str, body: bytes | bytearray) -> "Entered | float":
        """Admit a complete request, or refuse it. A refusal is the number of seconds that the request would wait."""
        rule = rule_of(method, path)
        encodes = rule.encodes is Encodes.ALWAYS or (
            rule.encodes is Encodes.NEW_ITEMS and _NEW_ITEM_FIELDS.search(body) is not None
        )
        if not rule.urgent and (wait := self._wait(encodes)):
            return wait
        self._entering += 1
        self._encoding += encodes
        return Entered(self, encodes)

    def begin(self, encodes: bool) -> None:
        """Count an admitted request as begun."""
        self._entering -= 1
        self._encoding -= encodes

    def check(self, method: str, path: str) -> None:
        """Refuse a request whose body is long or of unknown length before the body is read.

        A long body is normally a picture, so the request is taken to need the network if it may need it.

        Raises:
            RejectedRequest: The server is overloaded.
        """
        rule = rule_of(method, path)
        if not rule.urgent and (wait := self._wait(rule.encodes is not Encodes.NOTHING)):
            self.refuse(lambda: None)
            raise RejectedRequest(OVERLOADED.status, OVERLOAD_DETAIL, OVERLOADED, retry_after(wait))

    def _wait(self, encodes: bool) -> float:
        if self._entering >= MAX_ENTERING:
            return 1.0
        return self._network_wait(self._encoding) if encodes else 0.0

    def refuse(self, send: Callable[[], None], since: float = inf) -> None:
        """Count a refusal, and call `send` soon, which sends it.

        `since` is the time since the client was refused before, in seconds.
        """
        delay = REPEATED_DELAY_S if since < HASTE_S else REFUSAL_DELAY_S
        loop = asyncio.get_running_loop()
        if delay not in self._held:
            self._held[delay] = []
            loop.call_later(delay, self._send_held, delay)
        if not self._unreported:
            loop.call_later(REPORT_INTERVAL_S, self._report)
        self._held[delay].append(send)
        self._unreported += 1

    def _send_held(self, delay: float) -> None:
        held = self._held.pop(delay)
        self._on_refusals(len(held))
        for send in held:
            send()

    def _report(self) -> None:
        logging.getLogger("uvicorn.error").warning(
            "Refused %d requests in %g s, because the server is overloaded.",
            self._unreported,
            REPORT_INTERVAL_S,
        )
        self._unreported = 0


class Entered:
    """Admitted request that waits for its first turn on the event loop. It must begin."""

    __slots__ = ("_admission", "_waits", "encodes")

    def __init__(self, admission: Admission, encodes: bool) -> None:
        self._admission = admission
        self.encodes = encodes
        """Whether it needs the network."""
        self._waits = True

    def begin(self) -> None:
        """End the wait, if it has not ended."""
        if self._waits:
            self._waits = False
            self._admission.begin(self.encodes)

    def application(self, app: ASGIApp) -> ASGIApp:
        """Return an application that ends the wait and answers the request as `app` does."""

        async def begun(scope: Scope, receive: Receive, send: Send) -> None:
            self.begin()
            await app(scope, receive, send)

        return begun


def retry_after(wait: float) -> int:
    """Return the seconds after which a refused client should ask again: the expected wait and a random part."""
    return max(1, ceil(wait)) + randrange(RETRY_SPREAD_S)
