"""State that the lifespan of the app gives to its requests, and the engines that routes depend on."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Protocol, TypedDict

from fastapi import Depends, Request

from service.engine.engine import Engine
from service.settings import ServeConfig
from service.telemetry.prometheus import Metrics

from .engine_holder import EngineHolder
from .engine_swap import EngineLoader
from .relation_jobs import RelationJobs
from .shadow_run import Shadow


class Fetcher(Protocol):
    """Source of pictures by their URL; `model.data.image_fetcher.PictureFetcher` is one."""

    async def fetch(self, url: str) -> bytes:
        """Return the bytes at `url`."""


class State(TypedDict):
    """What all requests of the app share."""

    config: ServeConfig
    started: datetime
    engine_holder: EngineHolder
    engine_loader: EngineLoader
    fetcher: Fetcher
    metrics: Metrics
    relation_jobs: RelationJobs
    shadow: Shadow


async def _ready_engine(request: Request) -> AsyncIterator[Engine]:
    holder: EngineHolder = request.state.engine_holder
    with holder.held() as engine:
        yield engine


async def _fit_engine(request: Request) -> AsyncIterator[Engine]:
    holder: EngineHolder = request.state.engine_holder
    with holder.held_fit() as engine:
        yield engine


ReadyEngine = Annotated[Engine, Depends(_ready_engine)]
"""A route's parameter: the open engine, held until the answer is sent; without one the request ends in 503."""


FitEngine = Annotated[Engine, Depends(_fit_engine, scope="function")]
"""A route's parameter: the open engine if all its workers are well; otherwise the request ends in 503.

It is released when the route returns: an upload, which is read after that, keeps no replaced engine open.
"""
