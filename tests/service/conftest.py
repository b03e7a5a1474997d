"""Fixtures that start the application on the fake shop with the fake encoder, as a server starts it."""

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.client import AsyncClient, Client
from service.engine.engine import Engine
from service.settings import ServeConfig
from tests.indexes.fakes import FakeEncoder, FakeShop, write_shop

Ask = Callable[..., Any]


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def config(shop: FakeShop) -> ServeConfig:
    return ServeConfig(index=shop.index)


@pytest.fixture(scope="session")
def engine(config: ServeConfig) -> Iterator[Engine]:
    engine = Engine.open(config, lambda *_: FakeEncoder())
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def client(config: ServeConfig) -> Iterator[TestClient]:
    with served(config) as client:
        yield client


@contextmanager
def served(config: ServeConfig, encoder: FakeEncoder | None = None) -> Iterator[TestClient]:
    """Start a separate application and yield a client for it once the application is ready."""
    app = create_app(config, lambda *_: encoder or FakeEncoder())
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until_ready(client)
        yield client


def wait_until_ready(client: TestClient) -> None:
    """Wait until the index is open; a background thread opens it, which can take long on a slow machine."""
    begun = time.monotonic()
    while (answer := client.get("/readyz")).status_code != 200:
        assert time.monotonic() - begun < 600, answer.text
        time.sleep(0.01)


def ask_sync(base_url: str, method: str, *arguments: Any, options: Any = None, **asked: Any) -> Any:
    with Client(base_url, **options or {}) as client:
        answer = getattr(client, method)(*arguments, **asked)
        return list(answer) if inspect.isgenerator(answer) else answer


def ask_async(base_url: str, method: str, *arguments: Any, options: Any = None, **asked: Any) -> Any:
    async def run() -> Any:
        async with AsyncClient(base_url, **options or {}) as client:
            answer = getattr(client, method)(*arguments, **asked)
            return [one async for one in answer] if inspect.isasyncgen(answer) else await answer

    return asyncio.run(run())


@pytest.fixture(params=[ask_sync, ask_async], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Return a function that calls a method of the sync or async client, given the URL, method and arguments."""
    asking: Ask = request.param
    return asking
