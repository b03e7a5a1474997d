"""Wires the HTTP application together; decides nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from model import __version__

from .body_limit import BodyLimit
from .engine import Engine, OpenEncoder, open_encoder
from .loading import Loading, State
from .problems import install
from .routes import documentation, explorer, health, items, questions, relations
from .settings import ServeConfig

STATIC = Path(__file__).parent / "static"

_DESCRIPTION = """\
Items, and the natural-language relations between them that were learnt from what people bought.

Scores are cosine similarities, from -1 to 1; larger is better. Whatever is refused is answered with a problem
document (RFC 9457) that names the field, the value and the remedy.
"""

_TAGS = [
    {"name": "questions", "description": "What the service is for."},
    {"name": "catalogue", "description": "What can be asked about."},
    {"name": "health", "description": "For orchestrators and load balancers."},
]


def create_app(
    config: ServeConfig,
    open_encoder: OpenEncoder = open_encoder,
    on_loaded: Callable[[Loading], None] = lambda loading: None,
) -> FastAPI:
    """The application that answers about `config.index`.

    The index and the encoder are opened when it starts. `on_loaded` is called when that succeeded or failed.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        loading = Loading(partial(Engine.open, config, open_encoder))
        opening = asyncio.create_task(loading.run())
        opening.add_done_callback(lambda _: on_loaded(loading))
        yield {"loading": loading}
        await opening
        loading.close()

    app = FastAPI(
        title="rcml",
        version=__version__,
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        openapi_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(BodyLimit, most=config.max_body_bytes)
    install(app)
    for noun in (questions, items, relations, health, explorer, documentation):
        app.include_router(noun.router)
    app.mount("/static", StaticFiles(directory=STATIC))
    return app
