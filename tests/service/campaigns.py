"""Helpers for tests that send broken requests: the application without a server, and checks of every response."""

import asyncio
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from starlette.types import Message, Scope

from service.app import create_app
from service.http.admission import SCOPE_BEGAN
from service.problems.response import MEDIA_TYPE
from service.schemas.problem import Problem
from service.settings import ServeConfig
from tests.indexes.fakes import FakeEncoder, FakeShop

KEY = "key-of-the-campaigns-0123456789"
HEADERS = {"Authorization": f"Bearer {KEY}"}

PIECE_BYTES = 2**16
"""Bytes of a body that a server passes on at a time."""

_SECRETS = re.compile(
    r"Traceback|File \\?\"|\.py\b|site-packages|pydantic|starlette|fastapi|indexes\.|service\.|"
    + "|".join(
        re.escape(str(path)) for path in (Path(__file__).parents[2], sys.prefix, tempfile.gettempdir())
    )
)


@dataclass(frozen=True)
class Answer:
    """Response to a request."""

    status: int
    media_type: str
    body: bytes


def assert_sound(answer: Answer) -> None:
    """Assert that the response is neither a server error nor a 429, and that a problem document leaks no internals."""
    assert answer.status < 500, answer
    assert answer.status != 429, answer
    if answer.status >= 400:
        assert answer.media_type == MEDIA_TYPE, answer
        assert Problem.model_validate_json(answer.body).status == answer.status
        assert not _SECRETS.search(answer.body.decode()), answer
        assert len(answer.body) < 20_000, answer


@dataclass(frozen=True)
class Direct:
    """Application that is called directly, without a server or a client."""

    app: FastAPI
    state: dict[str, Any]

    def scope(self, method: str, path: str, body: bytes = b"", media_type: str = "application/json") -> Scope:
        """Return the scope of a request, as the server passes it on."""
        length = {"content-length": str(len(body))} if body else {}
        headers = {"host": "127.0.0.1", "content-type": media_type, **length, **HEADERS}
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": quote(path).encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": dict(self.state),
            SCOPE_BEGAN: time.monotonic(),
        }

    async def ask(
        self, method: str, path: str, body: bytes = b"", media_type: str = "application/json"
    ) -> Answer:
        """Return the response, even if the application raises an exception after it has sent a 500."""
        scope = self.scope(method, path, body, media_type)
        starts = iter(range(0, max(len(body), 1), PIECE_BYTES))
        sent: list[Message] = []

        async def receive() -> Message:
            start = next(starts, None)
            if start is not None:
                await asyncio.sleep(0)  # the next piece arrives after another look at the sockets
                end = start + PIECE_BYTES
                return {"type": "http.request", "body": body[start:end], "more_body": end < len(body)}
            await asyncio.Event().wait()  # the client never disconnects
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        try:
            await self.app(scope, receive, send)
        except Exception:
            assert sent, "the application must send a response before it raises"
            assert sent[0]["status"] == 500
        fields = dict(sent[0]["headers"])
        content = b"".join(message["body"] for message in sent[1:])
        return Answer(sent[0]["status"], fields.get(b"content-type", b"").decode(), content)


def application(
    shop: FakeShop, folder: Path, most_bytes: int = 2**20, encoder: FakeEncoder | None = None
) -> FastAPI:
    """Create the application on a copy of the shop's index, so that tests may change the index."""
    shutil.copytree(shop.index, folder / "index", dirs_exist_ok=True)
    config = ServeConfig(
        index=folder / "index", checkpoint=shop.checkpoint, admin_keys=KEY, max_body_bytes=most_bytes
    )
    return create_app(config, lambda *_: encoder or FakeEncoder())


@asynccontextmanager
async def directly(app: FastAPI) -> AsyncIterator[Direct]:
    """Start the application, yield it once it is ready, and shut it down at the end."""
    async with app.router.lifespan_context(app) as state:
        direct = Direct(app, dict(state or {}))
        if "engine_holder" in direct.state:
            while (await direct.ask("GET", "/readyz")).status != 200:
                await asyncio.sleep(0.01)
        yield direct
