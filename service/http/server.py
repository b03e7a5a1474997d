"""HTTP server: uvicorn's server with limits on its connections and a sweep over them.

uvicorn's own limit on connections does not protect against slow clients: they can hold all connections, and uvicorn
then rejects everyone else. `Server` closes the oldest incomplete connections instead. It sweeps all connections four
times a second, so requests need no timers. `service/serve.py` starts the server.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

import uvicorn

from .connection import Connection, connections_of
from .connection_config import ConnectionConfig
from .limits import Deadlines, Limits

MAX_ACCEPTS = 128
"""Connections that the server accepts in one turn of the event loop.

uvloop accepts one. A turn takes tens of milliseconds under overload, so that a thousand new clients would wait for
many seconds before their requests are read.
"""


class Server(uvicorn.Server):
    """uvicorn's server with limits on its connections.

    After SIGTERM, the server still answers every request that has reached this machine. It accepts the waiting
    connections, completes the requests in progress, and sends `Connection: close` with the next response on each
    keep-alive connection.
    """

    def __init__(
        self,
        app: Any,
        limits: Limits = Limits(),
        deadlines: Deadlines = Deadlines(),
        log_level: str = "info",
        clock: Callable[[], float] = monotonic,
        **options: Any,
    ) -> None:
        """Configure a server for `app`. `clock` returns the time in seconds; `options` are passed to uvicorn."""
        super().__init__(ConnectionConfig(app, Connection, limits, deadlines, log_level, clock, **options))
        self.deadlines = deadlines
        self.clock = clock
        self._duplicates: list[socket.socket] = []
        self._accepting: set[asyncio.Task[object]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the server and the sweep over its connections."""
        await super().startup(sockets)
        self._sweeping = asyncio.create_task(self._sweep())
        loop = asyncio.get_running_loop()
        for listener in sockets or ():
            duplicate = listener.dup()
            duplicate.setblocking(False)
            self._duplicates.append(duplicate)
            loop.add_reader(duplicate, self._accept_some, duplicate)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept the waiting connections, then shut down the server and stop the sweep."""
        loop = asyncio.get_running_loop()
        for duplicate in self._duplicates:
            loop.remove_reader(duplicate)
            duplicate.close()
        try:
            await self._accept(sockets or [])
            await super().shutdown(sockets)
        finally:
            self._sweeping.cancel()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.deadlines.sweep)
            # Data that arrived while the event loop was busy is not late. Let the loop read it before the sweep.
            await asyncio.sleep(0)
            now = self.clock()
            for connection in connections_of(self.server_state):
                connection.sweep(now)

    def _accept_some(self, listener: socket.socket) -> None:
        """Accept up to `MAX_ACCEPTS` of the connections that wait at a listener."""
        loop = asyncio.get_running_loop()
        for _ in range(MAX_ACCEPTS):
            try:
                client, _ = listener.accept()
            except OSError:  # no connection is waiting, the client left, or no file descriptor is free
                return
            task = loop.create_task(loop.connect_accepted_socket(self._connection, client))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    async def _accept(self, listeners: Iterable[socket.socket]) -> None:
        """Accept the connections that wait at the listeners.

        Closing the listeners would reset these connections and lose the requests already sent on them.
        """
        loop = asyncio.get_running_loop()
        for listener in listeners:
            listener.setblocking(False)
            waiting: list[socket.socket] = []
            try:
                while True:
                    waiting.append(listener.accept()[0])
            except OSError:  # no connection is waiting, the client left, or no file descriptor is free
                pass
            for client in waiting:
                await loop.connect_accepted_socket(self._connection, client)

    def _connection(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)
