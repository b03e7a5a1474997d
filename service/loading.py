"""The engine on its way: opened in a thread, while the server already says that it is alive.

An index may take seconds to read and a network more to reach its device. Until then every question is
answered with 503, and `rcml serve` ends with the reason if the opening fails.
"""

import asyncio
from collections.abc import Callable
from typing import Annotated, TypedDict

from fastapi import Depends, Request

from model.errors import RcmlError

from .engine import Engine


class NotReadyError(RcmlError):
    """The engine is not open yet, or never will be."""


class Loading:
    """One attempt to open an engine."""

    def __init__(self, open_engine: Callable[[], Engine]) -> None:
        self._open_engine = open_engine
        self._engine: Engine | None = None
        self.failure: Exception | None = None

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
        """The opened engine.

        Raises:
            NotReadyError: it is not open.
        """
        if self._engine is not None:
            return self._engine
        if self.failure is not None:
            raise NotReadyError(f"The index could not be opened: {self.failure}")
        raise NotReadyError("The index is still being opened. Ask again in a second.")

    def close(self) -> None:
        """Close the engine if it was opened."""
        if self._engine is not None:
            self._engine.close()


class State(TypedDict):
    """What the lifespan of the app gives to its requests."""

    loading: Loading


async def _ready_engine(request: Request) -> Engine:
    loading: Loading = request.state.loading
    return loading.engine


ReadyEngine = Annotated[Engine, Depends(_ready_engine)]
"""A route's parameter: the opened engine, or the request ends in 503."""
