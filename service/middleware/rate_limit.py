"""Rate limit: a token bucket for each caller, stored as a single number (GCRA).

The number is the time at which the caller's bucket will be full again. To bound the memory, the least recent caller is
evicted when there are more than `MAX_CALLERS`. Its bucket is normally full by then, and the bucket of a new caller is
full as well, so the eviction changes nothing. Each process counts separately.
"""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

MAX_CALLERS = 10_000
"""Maximum number of callers with a stored bucket. A caller is an API key, or an IP address on a server without keys."""


class RateLimit:
    """Limit of `rate` requests per second for each caller, with up to `burst` requests at once after a pause."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = monotonic) -> None:
        self._interval = 1 / rate
        self._slack = (burst - 1) / rate
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of callers with a stored bucket."""
        return len(self._full_at)

    def wait(self, caller: str) -> float:
        """Count a request and return 0 if it is allowed; otherwise return the seconds until one would be allowed."""
        now = self._clock()
        full_at = max(self._full_at.get(caller, now), now)
        if (wait := full_at - now - self._slack) > 1e-9:
            return wait
        self._full_at[caller] = full_at + self._interval
        self._full_at.move_to_end(caller)
        if len(self._full_at) > MAX_CALLERS:
            self._full_at.popitem(last=False)
        return 0.0
