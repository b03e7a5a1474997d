"""Rate limit: a token bucket for each caller, in the form that keeps one number (GCRA).

The number is when the caller's bucket will be full again. A full bucket is like that of a new caller, so forgetting
the callers not heard of for longest keeps the memory bounded. Each process counts for itself.
"""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

MAX_CALLERS = 10_000
"""Callers whose buckets are kept: a key is one, and without keys an address."""


class RateLimit:
    """`rate` requests a second for each caller, and `burst` at once after a pause."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = monotonic) -> None:
        self._interval = 1 / rate
        self._slack = (burst - 1) / rate
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of callers whose buckets are kept."""
        return len(self._full_at)

    def wait(self, caller: str) -> float:
        """Count a request; returns 0 if it is granted, else the seconds until one would be."""
        now = self._clock()
        full_at = max(self._full_at.get(caller, now), now)
        if (wait := full_at - now - self._slack) > 1e-9:
            return wait
        self._full_at[caller] = full_at + self._interval
        self._full_at.move_to_end(caller)
        if len(self._full_at) > MAX_CALLERS:
            self._full_at.popitem(last=False)
        return 0.0
