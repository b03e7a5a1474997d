"""Bound on large requests: the cost of all that are in progress, so that they cannot occupy the server for long."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.problems.errors import TooCostlyError

MAX_SMALL_COST = 10
"""Maximum cost of a small request, which is not counted."""

MAX_LARGE_COST = 1_000
"""Maximum cost of all large requests in progress. The largest batch costs 400, and takes about half a second."""


class WorkBound:
    """Sum of the costs of the large requests in progress; used from one event loop."""

    def __init__(self, limit: int = MAX_LARGE_COST) -> None:
        self.limit = limit
        self.cost = 0

    @contextmanager
    def working(self, cost: int) -> Iterator[None]:
        """Count a request of this cost within the context. A single large request is always accepted.

        Raises:
            TooCostlyError: Other large requests are in progress, and together they would exceed the limit.
        """
        if cost <= MAX_SMALL_COST:
            yield
            return
        if self.cost and self.cost + cost > self.limit:
            raise TooCostlyError(cost, self.cost, self.limit)
        self.cost += cost
        try:
            yield
        finally:
            self.cost -= cost
