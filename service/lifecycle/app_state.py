"""What the lifespan of the app gives to its requests, and the engines that routes depend on."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Protocol, TypedDict

from fastapi import Depends, Request

from service.engine.engine import Engine
from service.settings import ServeConfig
from service.telemetry.prometheus import Metrics

if TYPE_CHECKING:
    from .relation_jobs import RelationJobs
    from .reload import EngineLoader
    from .shadow import Shadow
from .engine_holder import EngineHolder


class Fetcher(Protocol):
    """What gets pictures by their URL; `model.data.image_fetcher.PictureFetcher` is one."""

    async def fetch(self, url: str) -> bytes:
        """The bytes at `url`."""


class State(TypedDict):
    """What the lifespan of the app gives to its requests."""

    config: ServeConfig
    started: datetime
    loading: EngineHolder
    metrics: Metrics
    fetcher: Fetcher
    candidates: "EngineLoader"
    additions: "RelationJobs"
    shadow: "Shadow"


async def _ready_engine(request: Request) -> AsyncIterator[Engine]:
    loading: EngineHolder = request.state.loading
    with loading.held() as engine:
        yield engine


async def _fit_engine(request: Request) -> AsyncIterator[Engine]:
    loading: EngineHolder = request.state.loading
    with loading.held_fit() as engine:
        yield engine


ReadyEngine = Annotated[Engine, Depends(_ready_engine)]
"""A route's parameter: the opened engine, which stays open until the answer is sent, or the request ends in 503."""


FitEngine = Annotated[Engine, Depends(_fit_engine, scope="function")]
"""The opened engine if all its workers are well, or the request ends in 503.

It is let go when the route returns, so that an upload, which is read after that, keeps none open that was replaced.
"""
