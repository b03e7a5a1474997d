"""Retry policy: when a call is retried, and what is raised when it is not. This module neither sends nor waits.

A request that was never sent is retried. A request that the server may have received is retried only if it is
repeatable. The first pause is at most a quarter of a second, and each further failure doubles this maximum, up to 8
seconds. The actual pause is drawn at random between zero and the maximum ("full jitter"), so that clients that failed
together do not retry together. A retry never comes before the time in the server's `Retry-After` header. No attempt
begins after the policy's deadline: if the next pause would exceed it, the last failure is raised immediately.
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
"""Initial and final maximum length of a pause, in seconds.

Each failure doubles the maximum until it reaches the final value. The server's `Retry-After` is added to the pause.
"""


def new_request_id() -> str:
    """Return a new, unique request ID."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Policy:
    """Timeouts and retries of a client.

    `timeout` limits the time to connect and each wait for more of the response. `deadline` limits all attempts of a
    call together, including the pauses between them. Both are in seconds.
    """

    timeout: float
    retries: int
    deadline: float
    request_id: Callable[[], str] = new_request_id
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    draw: Callable[[], float] = field(default=random.random, repr=False)

    def pause(self, failures: int, asked: float | None) -> float:
        """Draw the pause in seconds after this many failures. `asked` is the server's `Retry-After`, if it sent one."""
        doubled = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (failures - 1))
        return (asked or 0.0) + self.draw() * doubled


class Attempts:
    """All attempts of one call, which share one request ID."""

    def __init__(self, call: Call[Any], policy: Policy) -> None:
        self._call = call
        self._policy = policy
        self._request_id = policy.request_id()
        self._due = policy.clock() + call.seconds(policy.deadline)
        self._failures = 0

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Build the request of the next attempt."""
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
        """Return the seconds until the next attempt, or None if this response is final."""
        if response.status_code not in _RETRIED_STATUSES or not self._call.repeatable:
            return None
        return self._pause(retry_after(response))

    def after_failure(self, error: httpx.RequestError, url: httpx.URL) -> float:
        """Return the seconds until the next attempt.

        Raises:
            ConnectionFailed: there is no further attempt.
        """
        again = self._call.repeatable or isinstance(error, _NEVER_SENT)
        pause = self._pause(None) if again else None
        if pause is None:
            where = f"{url.scheme}://{url.netloc.decode()}"
            times = "once" if self._failures <= 1 else f"{self._failures} times"
            raise ConnectionFailed(
                f"{self._call.method} {self._call.path} to {where} was attempted {times} without a response: "
                f"{error or type(error).__name__} (request {self._request_id}). Check that a server is running at this "
                "address."
            ) from error
        return pause

    def _pause(self, asked: float | None) -> float | None:
        self._failures += 1
        if self._failures > self._policy.retries:
            return None
        pause = self._policy.pause(self._failures, asked)
        return pause if self._policy.clock() + pause < self._due else None
