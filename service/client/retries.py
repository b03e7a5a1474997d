"""When a call is sent again, and what is raised when it is not; it neither sends nor waits itself.

What was never sent is sent again. What may have been received is, if doing it twice does no more than once. Pauses
double from a quarter of a second and are drawn at random up to that ("full jitter", so that clients that failed
together do not come back together), and a server that says when to come back is not asked before. No attempt
begins after the policy's deadline: where the next pause would pass it, the last failure is raised at once.
"""

import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from .errors import ConnectionFailed
from .request import REQUEST_ID, Call, retry_after

_RETRIED_STATUSES = frozenset({429, 502, 503, 504})
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
"""Seconds, at most, before the second attempt, and before any."""


def new_request_id() -> str:
    """Make a name for a call that no other has."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Policy:
    """Timeouts and retries of a client.

    `timeout` is for one attempt's connecting, and for each wait for more of its answer; `deadline` for all attempts
    and the pauses between; both in seconds.
    """

    timeout: float
    retries: int
    deadline: float
    request_id: Callable[[], str] = new_request_id
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    draw: Callable[[], float] = field(default=random.random, repr=False)

    def pause(self, failures: int, asked: float | None) -> float:
        """Draw the seconds to wait after so many failures, if the server asked for `asked` seconds."""
        doubled = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (failures - 1))
        return (asked or 0.0) + self.draw() * doubled


class Attempts:
    """One call on its way, under one request id."""

    def __init__(self, call: Call[Any], policy: Policy) -> None:
        self._call = call
        self._policy = policy
        self._request_id = policy.request_id()
        self._due = policy.clock() + call.seconds(policy.deadline)
        self._failures = 0

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Build the request that is sent next."""
        call = self._call
        left = max(0.001, self._due - self._policy.clock())
        usual = self._policy.timeout
        connecting, answering = min(left, usual), min(left, call.seconds(usual))
        headers = {REQUEST_ID: self._request_id}
        if call.content is not None:
            headers["Content-Type"] = call.media_type
        return http.build_request(
            call.method,
            call.path,
            content=call.content,
            params=call.params,
            headers=headers,
            timeout=httpx.Timeout(answering, connect=connecting, pool=connecting),
        )

    def after_answer(self, response: httpx.Response) -> float | None:
        """Return the seconds until the call is sent again; None if this is the answer."""
        if response.status_code not in _RETRIED_STATUSES or not self._call.repeatable:
            return None
        return self._pause(retry_after(response))

    def after_failure(self, error: httpx.RequestError, url: httpx.URL) -> float:
        """Return the seconds until the call is sent again.

        Raises:
            ConnectionFailed: it is not.
        """
        again = self._call.repeatable or isinstance(error, _NEVER_SENT)
        pause = self._pause(None) if again else None
        if pause is None:
            where = f"{url.scheme}://{url.netloc.decode()}"
            times = "once" if self._failures <= 1 else f"{self._failures} times"
            raise ConnectionFailed(
                f"{self._call.method} {self._call.path} was sent to {where} {times}, and no answer came: "
                f"{error or type(error).__name__} (request {self._request_id}). Check that a server runs there."
            ) from error
        return pause

    def _pause(self, asked: float | None) -> float | None:
        self._failures += 1
        if self._failures > self._policy.retries:
            return None
        pause = self._policy.pause(self._failures, asked)
        return pause if self._policy.clock() + pause < self._due else None
