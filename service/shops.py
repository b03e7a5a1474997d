"""Several shops in one server (`--shops`): each index in a folder is served under `/shops/NAME`.

Each shop is the whole application that a server of one index runs (`app.py`), with an engine, metrics and limits of its
own, and a path prefix as behind a reverse proxy. The shops share the process, so that a further shop takes the memory
of its vectors, but not of Python and FAISS again. Shops with the same checkpoint share its network.

The server itself answers `/livez` and `/readyz`. A shop that cannot be opened answers 503, and the others are served.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from model import __version__
from model.errors import InputError
from service.engine.engine import OpenEncoder
from service.engine.open_encoder import open_encoder
from service.http.admission import Admission
from service.http.dispatch import Answered, FastAnswer, FastPath
from service.http.limits import SHOP_NAME, SHOPS, shop_of, without_prefix
from service.http.openapi import problems
from service.http.problem_handlers import install
from service.lifecycle.engine_holder import EngineHolder
from service.middleware.api_keys import Keys
from service.middleware.auth import Auth, Guard, pass_decision
from service.middleware.head import Head
from service.middleware.proxy import Proxy, TrustedProxies
from service.middleware.request_log import RequestLog
from service.middleware.root_path import RootPath
from service.middleware.security_headers import SecurityHeaders
from service.problems.errors import NotReadyError
from service.problems.field_messages import ECHO_LENGTH
from service.problems.kinds import Kind
from service.problems.response import problem_response
from service.routes import health
from service.schemas.health import ReadyShops
from service.shared.counters import SharedCounters
from service.telemetry.prometheus import Metrics

from .app import create_app
from .settings import ServeConfig

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

_NOT_SHOPS = ("lost+found",)
"""Folders that a file system makes by itself."""

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

_UNKNOWN = (
    f"belongs to no shop of this server. The routes of a shop begin with {SHOPS}NAME, where NAME is the folder of its "
    "index. Restart the server to serve an index that was added."
)


def shop_configs(config: ServeConfig) -> dict[str, ServeConfig]:
    """Return the options of each shop by its name, in alphabetical order.

    Raises:
        InputError: `config.index` has no subfolder, or one whose name cannot be part of an address.
    """
    for option in ("checkpoint", "report"):
        if getattr(config, option) is not None:
            raise InputError(f"--{option} belongs to one index, so it cannot be used with --shops. Omit it.")
    try:
        folders = sorted(path for path in config.index.iterdir() if path.is_dir() and _may_be_shop(path))
    except OSError as error:
        raise InputError(
            f"{config.index} cannot be read: {error.strerror}. With --shops, --index is a folder of indexes."
        ) from None
    if not folders:
        raise InputError(
            f"{config.index} has no subfolders. With --shops, --index is a folder of indexes, one in each subfolder."
        )
    if (wrong := next((path for path in folders if not SHOP_NAME.fullmatch(path.name)), None)) is not None:
        raise InputError(
            f"The folder {wrong.name!r} in {config.index} cannot be the name of a shop. Use up to 64 letters, digits, "
            "dots, hyphens and underscores, and begin with a letter or a digit."
        )
    return {
        path.name: config.model_copy(
            update={"index": path, "root_path": f"{config.root_path}{SHOPS}{path.name}", "shops": False}
        )
        for path in folders
    }


def _may_be_shop(path: Path) -> bool:
    return not path.name.startswith(".") and path.name not in _NOT_SHOPS


class Shops:
    """ASGI application that passes each request to the shop that its path names, or to the server's own routes."""

    def __init__(
        self,
        config: ServeConfig,
        open_encoder: OpenEncoder = open_encoder,
        on_loaded: Callable[[str, EngineHolder], None] = lambda name, holder: None,
        tracer_provider: "TracerProvider | None" = None,
        counters: SharedCounters | None = None,
    ) -> None:
        """Create the application of every shop below `config.index`, in a server with `counters`.

        `on_loaded` is called with the name of each shop that is open or could not be opened.

        Raises:
            InputError: See `shop_configs`; or an API key is invalid, or a required API key is missing.
        """
        self._prefix = config.root_path
        self._shops: dict[str, FastAPI] = {}
        self._holders: dict[str, EngineHolder] = {}

        def note(name: str, holder: EngineHolder) -> None:
            self._holders[name] = holder
            on_loaded(name, holder)

        keys = Keys.open(config)
        for name, options in shop_configs(config).items():
            self._shops[name] = create_app(
                options,
                open_encoder,
                partial(note, name),
                tracer_provider,
                shop=name,
                keys=keys,
                counters=counters,
            )
        self._metrics = Metrics()
        self._own = _own_routes(config, keys, self._lifespan, self._readiness, self._metrics)

    def __len__(self) -> int:
        """Return the number of shops, including those that cannot be opened."""
        return len(self._shops)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request to a shop with the state of that shop, or to the server's own routes."""
        name = shop_of(scope["path"], self._prefix) if scope["type"] == "http" else ""
        app: ASGIApp = self._shops.get(name, self._own)
        if name in self._shops:
            scope = _of_shop(scope, self._prefix, state=dict(scope["state"]["shops"][name]))
        await app(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            shops: dict[str, Any] = {
                name: await stack.enter_async_context(shop.router.lifespan_context(shop))
                for name, shop in self._shops.items()
            }
            yield {
                "admission": Admission(on_refusals=self._metrics.refused_unseen),
                "fast_path": _FastPaths(
                    {name: one["fast_path"] for name, one in shops.items()}, self._prefix
                ),
                "shops": shops,
            }

    def _readiness(self) -> ReadyShops:
        """Return which shops are served and which are not.

        Raises:
            NotReadyError: A shop is still being opened, or no shop could be opened.
        """
        opening = [name for name in self._shops if name not in self._holders]
        if opening:
            raise NotReadyError(
                f"{len(opening)} of {len(self._shops)} shops are still being opened. Retry in a second."
            )
        served = [name for name, holder in self._holders.items() if holder.ready]
        if not served:
            raise NotReadyError("None of the shops could be opened. The log has the reason for each.")
        return ReadyShops(shops=sorted(served), failed=sorted(set(self._shops) - set(served)))


def _of_shop(scope: Scope, prefix: str, **more: Any) -> Scope:
    """Return the scope for a shop, which removes its whole prefix; a proxy may have removed a part of it."""
    return {**scope, "path": prefix + without_prefix(scope["path"], prefix), **more}


class _FastPaths:
    """Fast paths of all shops; see `service.http.dispatch.FastPath`."""

    def __init__(self, by_shop: Mapping[str, FastPath | None], prefix: str) -> None:
        self._by_shop = by_shop
        self._prefix = prefix

    def take(self, scope: Scope, body: bytes | bytearray, answered: Answered) -> bool:
        """Let the fast path of the shop take the request; see `FastPath.take`."""
        fast_path = self._by_shop.get(shop_of(scope["path"], self._prefix))
        if fast_path is None:
            return False
        inner = _of_shop(scope, self._prefix)

        def answered_by_shop(answer: FastAnswer | None) -> None:
            if answer is None:
                pass_decision(inner, scope)
            answered(answer)

        taken = fast_path.take(inner, body, answered_by_shop)
        if not taken:
            pass_decision(inner, scope)
        return taken


def _own_routes(
    config: ServeConfig,
    keys: Keys,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]],
    readiness: Callable[[], ReadyShops],
    metrics: Metrics,
) -> FastAPI:
    """Return the application that answers all paths outside of the shops."""
    app = FastAPI(title="rcml", version=__version__, openapi_url=None, lifespan=lifespan)
    app.add_middleware(Head)
    if not keys:  # with keys, anyone may see what these routes tell
        hosts = (config.host, *config.allowed_hosts)
        app.add_middleware(Auth, guard=Guard(keys, hosts=hosts, origins=config.cors_origins))
    app.add_middleware(SecurityHeaders, shared=False)
    app.add_middleware(RequestLog, metrics=metrics)
    app.add_middleware(RootPath, prefix=config.root_path)
    app.add_middleware(Proxy, trusted=TrustedProxies(config.trusted_proxies))
    install(app)
    app.get("/livez")(health.livez)

    @app.get("/readyz", responses=problems(503))
    async def readyz() -> ReadyShops:
        return readiness()

    @app.api_route("/{path:path}", methods=_METHODS)
    async def unknown(request: Request) -> Response:
        path = request.scope["path"]
        return problem_response(Kind.of(HTTPStatus.NOT_FOUND), f"{path[:ECHO_LENGTH]} {_UNKNOWN}", path)

    return app
