"""Rate limit: a token bucket for each caller, stored as a single number (GCRA).

A request takes one token before its body is read. If its cost turns out to be larger, the rest is taken afterwards, and
the bucket may owe tokens. A caller whose bucket owes tokens must wait until they have been paid back. A request that
costs more than a whole bucket is therefore possible, but not more often than the rate allows.

The number is the time at which the caller's bucket will be full again. To bound the memory, the least recent caller is
evicted when there are more than `MAX_CALLERS`. Its bucket is normally full by then, and the bucket of a new caller is
full as well, so the eviction changes nothing. The workers of a server share the buckets
(`service/shared/bucket_table.py`); a server of one process keeps them in a dictionary, which is faster.
"""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from service.problems.errors import RateLimitError
from service.shared.bucket_table import BucketTable

MAX_CALLERS = 10_000
"""Maximum number of callers with a stored bucket. A caller is an API key, or an IP address on a server without keys."""


class RateLimit:
    """Limit of `rate` per second on the cost of each caller's requests, with up to `burst` at once after a pause."""

    def __init__(
        self,
        rate: float,
        burst: int,
        clock: Callable[[], float] = monotonic,
        table: BucketTable | None = None,
    ) -> None:
        """Start with full buckets, or with those in `table`, which other workers use as well."""
        self.rate, self.burst = rate, burst
        self._table = table
        self._interval = 1 / rate
        self._slack = (burst - 1) / rate
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of callers with a stored bucket."""
        return len(self._full_at)

    def wait(self, caller: str) -> float:
        """Take the token of a request and return 0 if there is one; otherwise return the seconds until there is one."""
        return self._take(caller, 1, 0)

    def charge(self, caller: str, cost: int) -> None:
        """Take the rest of the tokens of a request of this cost; `wait` has taken the first.

        Raises:
            RateLimitError: Another request of the caller has used up the tokens since.
        """
        if wait := self._take(caller, cost - 1, 1):
            raise RateLimitError(cost, self.rate, self.burst, wait)

    def _take(self, caller: str, tokens: int, taken: int) -> float:
        """Take tokens if the bucket had at least one before the `taken` ones; see `wait`."""
        now = self._clock()
        if self._table is not None:
            with self._table.held(caller) as bucket:
                wait, bucket.full_at = self._after(bucket.full_at, now, tokens, taken)
            return wait
        wait, full_at = self._after(self._full_at.get(caller, now), now, tokens, taken)
        if not wait:
            self._full_at[caller] = full_at
            self._full_at.move_to_end(caller)
            if len(self._full_at) > MAX_CALLERS:
                self._full_at.popitem(last=False)
        return wait

    def _after(self, full_at: float, now: float, tokens: int, taken: int) -> tuple[float, float]:
        """Return the seconds to wait, and when the bucket will be full; it is unchanged if the caller must wait."""
        due = max(full_at, now)
        if (wait := due - taken * self._interval - now - self._slack) > 1e-9:
            return wait, full_at
        return 0.0, due + tokens * self._interval
