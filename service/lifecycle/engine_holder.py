"""The engine on its way: opened in a thread, while the server already says that it is alive.

An index may take seconds to read and a network more to reach its device. Until then every question is
answered with 503, and `rcml serve` ends with the reason if the opening fails.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from service.engine.engine import Engine

if TYPE_CHECKING:
    pass
from service.errors import NotReadyError


class EngineHolder:
    """The engine that answers, once it is open; it may be replaced by another."""

    def __init__(self, open_engine: Callable[[], Engine]) -> None:
        self._open_engine = open_engine
        self._engine: Engine | None = None
        self._swapping = Lock()
        self.failure: Exception | None = None
        self._stopping = False

    async def run(self) -> None:
        """Open the engine; whatever goes wrong is kept in `failure` for the server to raise."""
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
        """The opened engine; whoever waits for anything before it is used again needs it `held`.

        Raises:
            NotReadyError: it is not open.
        """
        if self._engine is not None:
            return self._engine
        if self.failure is not None:
            raise NotReadyError(f"The index could not be opened: {self.failure}")
        raise NotReadyError("The index is still being opened. Ask again in a second.")

    def replace(self, engine: Engine) -> None:
        """Have later requests answered by `engine`; those under way keep the one they have."""
        with self._swapping:
            before, self._engine = self._engine, engine
        if before is not None:
            before.release()

    @contextmanager
    def held(self) -> Iterator[Engine]:
        """The opened engine, taken and kept open in one step, whatever thread replaces it meanwhile.

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
        """The opened engine, held, if more may be asked of it than what was already.

        Raises:
            NotReadyError: it is not open, one of its workers is wedged, or the server is stopping.
        """
        if self._stopping:
            raise NotReadyError("The server is stopping. Ask another, or this one when it is back.")
        with self.held() as engine:
            for pulse in engine.pulses:
                if (wedged := pulse.wedged) is not None:
                    raise NotReadyError(f"{wedged} Restart the server if that lasts.")
            yield engine

    def stop(self) -> None:
        """From now on it is not ready for more, but goes on with what it was asked."""
        self._stopping = True

    def close(self) -> None:
        """Close the engine if it was opened."""
        if self._engine is not None:
            self._engine.close()
