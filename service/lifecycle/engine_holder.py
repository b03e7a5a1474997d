"""Holder of the serving engine.

A thread opens the engine after the server has started, and a reload replaces it.

Reading an index may take seconds, and moving the network to its device may take longer. Until both are done, requests
that need the engine are rejected with 503. If opening fails, `rcml serve` exits with the reason.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from service.engine.engine import Engine
from service.problems.errors import NotReadyError


class EngineHolder:
    """Holder of the serving engine. The engine is opened once and may be replaced later."""

    def __init__(self, open_engine: Callable[[], Engine]) -> None:
        self._open_engine = open_engine
        self._engine: Engine | None = None
        self._swapping = Lock()
        self.failure: Exception | None = None
        self._stopping = False

    async def run(self) -> None:
        """Open the engine. An exception is stored in `failure`, and the server raises it."""
        try:
            self._engine = await asyncio.to_thread(self._open_engine)
        except Exception as error:
            self.failure = error

    @property
    def stopping(self) -> bool:
        """Whether new work is rejected, because the server is stopping."""
        return self._stopping

    @property
    def ready(self) -> bool:
        """Whether the engine is open."""
        return self._engine is not None

    @property
    def engine(self) -> Engine:
        """The open engine. A caller that awaits anything while it uses the engine must hold it with `held`.

        Raises:
            NotReadyError: the engine is not open.
        """
        if self._engine is not None:
            return self._engine
        if self.failure is not None:
            raise NotReadyError(f"The index could not be opened: {self.failure}")
        raise NotReadyError("The index is still being opened. Retry in a second.")

    def replace(self, engine: Engine) -> None:
        """Serve later requests with `engine`. Requests in progress keep the engine that they hold."""
        with self._swapping:
            before, self._engine = self._engine, engine
        if before is not None:
            before.release()

    @contextmanager
    def held(self) -> Iterator[Engine]:
        """Hold the open engine within the `with` block. No other thread can replace it before it is held.

        Raises:
            NotReadyError: the engine is not open.
        """
        with self._swapping:
            engine = self.engine
            engine.hold()
        try:
            yield engine
        finally:
            engine.release()

    @contextmanager
    def held_fit(self) -> Iterator[Engine]:
        """Hold the open engine as `held` does, but only if it can accept new work.

        Raises:
            NotReadyError: the engine is not open, one of its workers is stuck, or the server is stopping.
        """
        if self._stopping:
            raise NotReadyError(
                "The server is stopping. Send the request to another server, or retry after a restart."
            )
        with self.held() as engine:
            for heartbeat in engine.heartbeats:
                if (reason := heartbeat.stuck_reason) is not None:
                    raise NotReadyError(reason)
            yield engine

    def stop(self) -> None:
        """Reject new work from now on. Requests that were already accepted are completed."""
        self._stopping = True

    def close(self) -> None:
        """Close the engine, if it was opened."""
        if self._engine is not None:
            self._engine.close()
