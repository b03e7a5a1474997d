"""Application factory: connects routes, middleware and shared state; contains no request logic."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.middleware.cors import CORSMiddleware

from model import __version__
from model.data.pictures.image_fetcher import PictureFetcher
from service.engine.engine import Engine, OpenEncoder
from service.engine.open_encoder import open_encoder
from service.http.admission import Admission
from service.http.limits import BodyLimits
from service.http.problem_handlers import install
from service.lifecycle.app_state import State
from service.lifecycle.engine_holder import EngineHolder
from service.lifecycle.engine_swap import EngineLoader
from service.lifecycle.membership import Membership
from service.lifecycle.one_server import CentralRequests, OneServer
from service.lifecycle.relation_jobs import RelationJobs
from service.lifecycle.shadow_run import Shadow
from service.middleware.api_keys import Keys
from service.middleware.auth import Auth, Guard
from service.middleware.body_limit import BodyLimit
from service.middleware.content_encoding import ContentEncoding
from service.middleware.deadline import Deadline
from service.middleware.head import Head
from service.middleware.key_watch import KeyWatch
from service.middleware.proxy import Proxy, TrustedProxies
from service.middleware.ranges import Ranges
from service.middleware.rate_limit import RateLimit
from service.middleware.request_log import RequestLog
from service.middleware.root_path import RootPath
from service.middleware.security_headers import SecurityHeaders
from service.requests.direct_routes import DirectRoutes
from service.requests.json_route import JsonRoute
from service.requests.table_fast_path import Rules, TableFastPath
from service.routes import (
    documentation,
    embeddings,
    explanations,
    explorer,
    health,
    item_changes,
    items,
    pairs,
    prometheus,
    relations,
    reload,
    retrieve,
    shadow,
)
from service.shared.counters import SharedCounters
from service.shared.worker import Worker
from service.telemetry.prometheus import Metrics
from service.telemetry.tracing import telemetry

from .settings import ServeConfig

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

STATIC_DIR = Path(__file__).parent / "static"

ROUTES = (
    retrieve,
    pairs,
    explanations,
    embeddings,
    items,
    item_changes,
    relations,
    reload,
    shadow,
    health,
    prometheus,
    explorer,
    documentation,
)
"""Route modules, in the order of the API documentation."""

_DESCRIPTION = """\
Relation-aware product retrieval: find the items of a catalogue that match an item under a natural-language relation.
The relations are learned from logs of what users do, such as purchases.

Scores are cosine similarities from -1 to 1; larger is better. The response to a rejected request is a problem document
(RFC 9457) that names the field, the value and the remedy.
"""

_TAGS = [
    {
        "name": "questions",
        "description": "Retrieval, relation types, relation validity, explanations and embeddings.",
    },
    {"name": "catalogue", "description": "The items and relations that requests can name."},
    {"name": "operation", "description": "Index reloads and shadow runs; these require an admin key."},
    {"name": "health", "description": "Health checks for orchestrators and load balancers, and metrics."},
]


def body_limits(config: ServeConfig) -> BodyLimits:
    """Return the body size limits that `config` sets; the application and the server both apply them."""
    return BodyLimits(
        config.max_body_bytes,
        config.max_upload_bytes,
        config.max_bulk_bytes,
        config.root_path,
        config.shops,
    )


def create_app(
    config: ServeConfig,
    open_encoder: OpenEncoder = open_encoder,
    on_loaded: Callable[[EngineHolder], None] = lambda holder: None,
    tracer_provider: "TracerProvider | None" = None,
    shop: str = "",
    keys: Keys | None = None,
    worker: Worker | None = None,
    counters: SharedCounters | None = None,
) -> FastAPI:
    """Create the application that serves `config.index`.

    The index and the encoder are opened at startup. `on_loaded` is called when they are open or could not be opened.
    Spans are sent through `tracer_provider`, if one is given. Of the keys that are for certain shops, only those for
    `shop` are accepted. `keys` are those of `config`, if the caller has opened them. `worker` is this process, if the
    server has several; `counters` are those of its server otherwise.

    Raises:
        InputError: an API key is invalid, or a required API key is missing.
    """
    keys = Keys.open(config) if keys is None else keys
    rules = _rules(config, keys, shop, worker)
    tracer = tracer_provider.get_tracer("rcml", __version__) if tracer_provider else None
    metrics = Metrics(tracer, counters) if worker is None else Metrics(tracer, worker.counters, worker.folder)
    central = CentralRequests()
    app = FastAPI(
        title="rcml",
        version=__version__,
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        openapi_url=None,
        lifespan=_lifespan(config, open_encoder, on_loaded, metrics, keys, rules, central, worker),
        telemetry=telemetry(tracer_provider),
    )
    _add_middlewares(app, config, rules, metrics, worker, central)
    install(app)
    for module in ROUTES:
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=STATIC_DIR))
    return app


def _lifespan(
    config: ServeConfig,
    open_encoder: OpenEncoder,
    on_loaded: Callable[[EngineHolder], None],
    metrics: Metrics,
    keys: Keys,
    rules: Rules,
    central: CentralRequests,
    worker: Worker | None,
) -> Callable[[FastAPI], AbstractAsyncContextManager[State]]:
    """Return the lifespan that opens and closes the state shared by all requests; parameters as in `create_app`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        counters = None if worker is None else worker.counters
        open_engine = partial(Engine.open, config, open_encoder, counters=counters)
        holder = EngineHolder(open_engine)
        loader = EngineLoader(config, open_encoder, holder, counters)
        membership = (
            None
            if worker is None
            else Membership(worker, holder, loader, open_engine, central.answer, config.shutdown_seconds)
        )
        metrics.read_engine(
            index=lambda: holder.engine.index if holder.ready else None,
            queue_length=lambda: len(holder.engine.network) if holder.ready else 0,
            longest_call=lambda: holder.engine.network.longest_s if holder.ready else 0.0,
        )
        opening = asyncio.create_task(holder.run() if membership is None else membership.run(metrics))
        opening.add_done_callback(lambda _: on_loaded(holder))
        watching = asyncio.create_task(KeyWatch(keys, config, metrics.key_file_read).run())
        jobs, shadowing = RelationJobs(holder), Shadow(loader, metrics, config.workers)
        # A traced request has spans, which only the framework opens.
        fast = None if metrics.traced else TableFastPath(rules, holder, shadowing, metrics, membership)
        async with PictureFetcher() as fetcher:
            state: State = {
                "admission": _admission(holder, metrics),
                "config": config,
                "started": datetime.now(UTC) if worker is None else worker.started,
                "engine_holder": holder,
                "fast_path": fast,
                "swapper": membership or loader,
                "fetcher": fetcher,
                "membership": membership,
                "metrics": metrics,
                "relation_jobs": jobs,
                "shadow": shadowing,
            }
            central.outer, central.state = app, {**state}
            yield state
        watching.cancel()
        holder.stop()
        if membership is not None:
            await membership.close()
        await opening
        for background in (jobs, shadowing, loader):
            await background.close()
        holder.close()

    return lifespan


def _admission(holder: EngineHolder, metrics: Metrics) -> Admission:
    """Return the admission of requests for the network of the engine."""
    return Admission(
        network_wait=lambda more: holder.engine.network.expected_wait(more) if holder.ready else 0.0,
        on_refusals=metrics.refused_unseen,
    )


def _rules(config: ServeConfig, keys: Keys, shop: str, worker: Worker | None) -> Rules:
    """Return the rules that middlewares and the fast path apply; parameters as in `create_app`."""
    rate_limit = (
        RateLimit(config.rate_limit, config.rate_burst, table=None if worker is None else worker.buckets)
        if config.rate_limit
        else None
    )
    hosts = (config.host, *config.allowed_hosts)
    return Rules(
        Guard(keys, rate_limit, hosts, config.cors_origins, shop),
        TrustedProxies(config.trusted_proxies),
        config.deadline,
        config.root_path,
        bool(config.cors_origins),
    )


def _add_middlewares(
    app: FastAPI,
    config: ServeConfig,
    rules: Rules,
    metrics: Metrics,
    worker: Worker | None,
    central: CentralRequests,
) -> None:
    """Add all middleware; the last one added is the outermost, so requests pass through this list bottom to top."""
    app.add_middleware(Head)
    app.add_middleware(Ranges)
    app.add_middleware(ContentEncoding)
    app.add_middleware(BodyLimit, limits=body_limits(config))
    routes = (route for module in ROUTES for route in module.router.routes if isinstance(route, JsonRoute))
    app.add_middleware(DirectRoutes, routes=tuple(routes), max_body_bytes=config.max_body_bytes)
    if worker is not None:  # outside the direct routes, which do not reach the middlewares within them
        app.add_middleware(OneServer, central=central)
    app.add_middleware(Deadline, seconds=rules.deadline)
    app.add_middleware(Auth, guard=rules.guard)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "X-API-Key"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(SecurityHeaders, shared=rules.shared)
    app.add_middleware(RequestLog, metrics=metrics)
    if config.root_path:
        app.add_middleware(RootPath, prefix=config.root_path)
    if config.trusted_proxies:
        app.add_middleware(Proxy, trusted=rules.trusted)
