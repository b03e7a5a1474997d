"""Configuration of a server and its connections: uvicorn's options, and the limits of rcml."""

import asyncio
import resource
from collections.abc import Callable
from typing import Any

import uvicorn

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
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.max_connections = max(1, min(limits.connections, files // 2))
