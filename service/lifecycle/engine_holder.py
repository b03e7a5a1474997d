"""The engine on its way: opened in a thread, while the server already says that it is alive.

An index may take seconds to read and a network more to reach its device. Until then every question is
answered with 503, and `rcml serve` ends with the reason if the opening fails.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Protocol, TypedDict

from fastapi import Depends, Request

from model.errors import RcmlError
from service.engine.engine import Engine
from service.settings import ServeConfig
from service.telemetry.prometheus import Metrics

if TYPE_CHECKING:
    from .relation_jobs import Additions
    from .reload import Candidates
    from .shadow import Shadow


class NotReadyError(RcmlError):
    """The engine is not open yet, or never will be; or no more should be asked of it."""


class Loading:
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


class Fetcher(Protocol):
    """What gets pictures by their URL; `model.data.image_fetcher.PictureFetcher` is one."""

    async def fetch(self, url: str) -> bytes:
        """The bytes at `url`."""


class State(TypedDict):
    """What the lifespan of the app gives to its requests."""

    config: ServeConfig
    started: datetime
    loading: Loading
    metrics: Metrics
    fetcher: Fetcher
    candidates: "Candidates"
    additions: "Additions"
    shadow: "Shadow"


async def _ready_engine(request: Request) -> AsyncIterator[Engine]:
    loading: Loading = request.state.loading
    with loading.held() as engine:
        yield engine


async def _fit_engine(request: Request) -> AsyncIterator[Engine]:
    loading: Loading = request.state.loading
    with loading.held_fit() as engine:
        yield engine


ReadyEngine = Annotated[Engine, Depends(_ready_engine)]
"""A route's parameter: the opened engine, which stays open until the answer is sent, or the request ends in 503."""

FitEngine = Annotated[Engine, Depends(_fit_engine, scope="function")]
"""The opened engine if all its workers are well, or the request ends in 503.

It is let go when the route returns, so that an upload, which is read after that, keeps none open that was replaced.
"""
