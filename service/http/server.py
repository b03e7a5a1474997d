"""HTTP server: uvicorn's server with limits on its connections and a sweep over them.

uvicorn's own limit on connections does not protect against slow clients: they can hold all connections, and uvicorn
then rejects everyone else. `Server` closes the oldest incomplete connections instead. It sweeps all connections four
times a second, so requests need no timers. `service/serve.py` starts the server.
"""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

import uvicorn

from service.shared.counters import Counter, SharedCounters

from .connection import Connection, connections_of
from .connection_config import ConnectionConfig
from .limits import Deadlines, Limits

MAX_ACCEPTS = 128
"""Connections that the server accepts in one turn of the event loop.

uvloop accepts one. A turn takes tens of milliseconds under overload, so that a thousand new clients would wait for
many seconds before their requests are read.
"""

TURN_S, MAX_TURNS = 0.001, 5
"""Seconds that a worker with more connections than the others leaves new ones to them, and how often in a row."""

ACCEPTS_OUT_OF_TURN = 8
"""Connections that such a worker then accepts, because the others may be busy."""

NO_FILE_S = 0.1
"""Seconds to wait before another connection is accepted if no file descriptor is free."""


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
        counters: SharedCounters | None = None,
        **options: Any,
    ) -> None:
        """Configure a server for `app`. `clock` returns the time in seconds; `options` are passed to uvicorn.

        A worker of a server with several has its `counters`.
        """
        self.settings = ConnectionConfig(
            app, Connection, limits, deadlines, log_level, clock, counters, **options
        )
        super().__init__(self.settings)
        self.counters = self.settings.counters
        self.deadlines = deadlines
        self.clock = clock
        self._duplicates: list[socket.socket] = []
        self._accepting: set[asyncio.Task[object]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the server and the sweep over its connections. `_accept_some` accepts from the sockets, not uvicorn."""
        await super().startup(None if sockets is None else [])
        self._sweeping = asyncio.create_task(self._sweep())
        loop = asyncio.get_running_loop()
        for listener in sockets or ():
            listener.listen(self.config.backlog)
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
        self._duplicates.clear()
        try:
            if not self._is_closed_to_new():
                await self._accept(sockets or [])
            if self._accepting:  # a connection that opened later would not be told to close
                await asyncio.wait(self._accepting)
            await super().shutdown(sockets)
        finally:
            self._sweeping.cancel()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.deadlines.sweep)
            # Data that arrived while the event loop was busy is not late. Let the loop read it before the sweep.
            await asyncio.sleep(0)
            now = self.clock()
            self.counters.set(Counter.BEAT, int(1000 * monotonic()))
            for connection in connections_of(self.server_state):
                connection.sweep(now)

    def _accept_some(self, listener: socket.socket, turns: int = 0) -> None:
        """Accept some of the connections that wait at a listener, and leave others to workers that have fewer.

        `turns` is the number of times in a row for which that was done.
        """
        in_turn = turns < MAX_TURNS
        for _ in range(MAX_ACCEPTS if in_turn else ACCEPTS_OUT_OF_TURN):
            if self._is_closed_to_new() or (in_turn and self._is_ahead()):
                self._pause(listener, TURN_S, turns + 1)
                return
            try:
                client, _ = listener.accept()
            except OSError as error:
                # No connection is waiting, the client left, or no file descriptor is free.
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._pause(listener, NO_FILE_S)
                return
            self.settings.accepted += 1
            self._count()
            task = asyncio.create_task(self.open(client))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    async def open(self, client: socket.socket) -> None:
        """Open the connection of a client that was accepted."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._connection, client)
        finally:
            self.settings.accepted -= 1
            self._count()

    def _count(self) -> None:
        self.settings.count(len(self.server_state.connections))

    def _pause(self, listener: socket.socket, seconds: float, turns: int = 0) -> None:
        """Accept nothing for a time."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(seconds, self._resume, listener, turns)

    def _resume(self, listener: socket.socket, turns: int) -> None:
        if listener in self._duplicates:
            asyncio.get_running_loop().add_reader(listener, self._accept_some, listener)
            self._accept_some(listener, turns)

    def _is_closed_to_new(self) -> bool:
        """Return whether another worker has an open index, but this one has not."""
        counters = self.counters
        return (
            counters.count > 1 and not counters.own(Counter.SERVING) and counters.total(Counter.SERVING) > 0
        )

    def _is_ahead(self) -> bool:
        """Return whether this worker has clearly more connections than the workers have on average."""
        serving = self.counters.total(Counter.SERVING)
        if serving < 2:
            return False
        average = self.counters.total(Counter.CONNECTIONS) / serving
        return self.counters.own(Counter.CONNECTIONS) > average + max(1, average / 16)

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
