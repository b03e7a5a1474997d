"""Bound on large requests: the cost of all that are in progress, so that they cannot occupy the server for long."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.problems.errors import TooCostlyError
from service.shared.counters import Counter, SharedCounters

MAX_SMALL_COST = 10
"""Maximum cost of a small request, which is not counted."""

MAX_LARGE_COST = 1_000
"""Maximum cost of all large requests in progress. The largest batch costs 400, and takes about half a second."""


class WorkBound:
    """Sum of the costs of the large requests in progress in all workers; used from one event loop."""

    def __init__(self, limit: int = MAX_LARGE_COST, counters: SharedCounters | None = None) -> None:
        self.limit = limit
        self._counters = counters or SharedCounters.alone()

    @property
    def cost(self) -> int:
        """Cost of the large requests in progress."""
        return self._counters.total(Counter.COST)

    @contextmanager
    def working(self, cost: int, counted: int = 0) -> Iterator[int]:
        """Count a request of this cost within the context. A single large request is always accepted.

        `counted` is the part of the cost of the same request that is counted already, such as that of its long body.

        Yields:
            What is counted of `cost`: nothing of a small one.

        Raises:
            TooCostlyError: Other large requests are in progress, and together they would exceed the limit.
        """
        if cost <= MAX_SMALL_COST:
            yield 0
            return
        # Count first: of two workers that ask at the same time, one at least then sees the other.
        self._counters.add(Counter.COST, cost)
        try:
            others = self.cost - cost - counted
            if others > 0 and others + counted + cost > self.limit:
                raise TooCostlyError(counted + cost, others, self.limit)
            yield cost
        finally:
            self._counters.add(Counter.COST, -cost)
