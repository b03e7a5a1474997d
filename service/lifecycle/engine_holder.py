"""Holder of the engine that answers: opened in a thread while the server is alive already, and replaced on reload.

An index may take seconds to read and a network more to reach its device. Until then every question is
answered with 503, and `rcml serve` ends with the reason if the opening fails.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from service.engine.engine import Engine
from service.problems.errors import NotReadyError


class EngineHolder:
    """The engine that answers, once it is open; it may be replaced by another."""

    def __init__(self, open_engine: Callable[[], Engine]) -> None:
        self._open_engine = open_engine
        self._engine: Engine | None = None
        self._swapping = Lock()
        self.failure: Exception | None = None
        self._stopping = False

    async def run(self) -> None:
        """Open the engine; what goes wrong is kept in `failure` for the server to raise."""
        try:
            self._engine = await asyncio.to_thread(self._open_engine)
        except Exception as error:
            self.failure = error

    @property
    def ready(self) -> bool:
        """Whether the engine is open."""
        return self._engine is not None

    @property
    def engine(self) -> Engine:
        """The opened engine; a caller that awaits anything while using it needs it `held`.

        Raises:
            NotReadyError: it is not open.
        """
        if self._engine is not None:
            return self._engine
        if self.failure is not None:
            raise NotReadyError(f"The index could not be opened: {self.failure}")
        raise NotReadyError("The index is still being opened. Ask again in a second.")

    def replace(self, engine: Engine) -> None:
        """Have later requests answered by `engine`; those in progress keep the one they have."""
        with self._swapping:
            before, self._engine = self._engine, engine
        if before is not None:
            before.release()

    @contextmanager
    def held(self) -> Iterator[Engine]:
        """Take the opened engine and keep it open, in one step, even if another thread replaces it meanwhile.

        Raises:
            NotReadyError: it is not open.
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
        """Take the opened engine, as `held` does, if it should get more work.

        Raises:
            NotReadyError: it is not open, one of its workers is stuck, or the server is stopping.
        """
        if self._stopping:
            raise NotReadyError("The server is stopping. Ask another, or this one when it is back.")
        with self.held() as engine:
            for heartbeat in engine.heartbeats:
                if (reason := heartbeat.stuck_reason) is not None:
                    raise NotReadyError(f"{reason} Restart the server if that lasts.")
            yield engine

    def stop(self) -> None:
        """Take no more work from now on, but finish what was accepted."""
        self._stopping = True

    def close(self) -> None:
        """Close the engine if it was opened."""
        if self._engine is not None:
            self._engine.close()
