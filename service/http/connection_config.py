"""Configuration of a server and its connections: uvicorn's options, the limits of rcml, and their common count."""

import asyncio
import resource
from collections.abc import Callable
from typing import Any

import uvicorn

from service.shared.counters import Counter, SharedCounters

from .discard_turns import DiscardTurns
from .kernel import Looks
from .limits import Deadlines, Limits


class ConnectionConfig(uvicorn.Config):
    """Options of uvicorn and limits of rcml, available to every connection."""

    def __init__(
        self,
        app: Any,
        protocol: type[asyncio.Protocol],
        limits: Limits,
        deadlines: Deadlines,
        log_level: str,
        clock: Callable[[], float],
        counters: SharedCounters | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            app,
            http=protocol,
            ws="none",
            log_level=log_level,
            access_log=False,
            server_header=False,
            # `middleware/proxy.py` reads the headers of proxies, and trusts only those that the operator names.
            proxy_headers=False,
            timeout_graceful_shutdown=deadlines.grace,
            **options,
        )
        self.limits = limits
        self.deadlines = deadlines
        self.clock = clock
        self.counters = counters or SharedCounters.alone()
        self.discards = DiscardTurns()
        self.looks = Looks()
        self.accepted = 0
        """Number of connections that were accepted and are not open yet."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._max_own = max(1, files // 2)

    def count(self, connections: int) -> int:
        """Tell the other workers how many connections of this process are open.

        Return how many of them must be closed to meet the limits; not positive if none.
        """
        self.counters.set(Counter.CONNECTIONS, connections + self.accepted)
        everywhere = connections + self.counters.others(Counter.CONNECTIONS)
        return max(everywhere - self.limits.connections, connections - self._max_own)
