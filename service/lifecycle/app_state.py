"""State that the app shares with its requests, and the dependencies through which routes obtain an engine."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Protocol, TypedDict

from fastapi import Depends, Request

from service.engine.engine import Engine
from service.http.admission import Admission
from service.http.dispatch import FastPath
from service.settings import ServeConfig
from service.telemetry.prometheus import Metrics

from .engine_holder import EngineHolder
from .engine_swap import Swapper
from .membership import Membership
from .relation_jobs import RelationJobs
from .shadow_run import Shadow


class Fetcher(Protocol):
    """A source of pictures by URL, such as `model.data.pictures.image_fetcher.PictureFetcher`."""

    async def fetch(self, url: str) -> bytes:
        """Return the bytes at `url`."""


class State(TypedDict):
    """State shared by all requests of the app."""

    admission: Admission
    config: ServeConfig
    started: datetime
    engine_holder: EngineHolder
    fast_path: FastPath | None
    swapper: Swapper
    fetcher: Fetcher
    membership: Membership | None
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
"""Route parameter: the open engine, held until the response is sent.

Until the engine is open, requests are rejected with 503.
"""


FitEngine = Annotated[Engine, Depends(_fit_engine, scope="function")]
"""Route parameter: the open engine if it accepts new work; otherwise the request is rejected with 503.

The engine accepts no new work while a worker is stuck or the server is stopping. The engine is released when the route
returns. The body of a bulk upload is read only afterwards, so a long upload does not keep a replaced engine open.
"""
