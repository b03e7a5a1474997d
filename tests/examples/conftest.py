"""Fixtures of the tests of the examples: a server of the demo's index, and a client of it."""

from collections.abc import Iterator

import pytest

from rcml import Client
from service.settings import ServeConfig
from tests.conftest import Road
from tests.service.servers import served

SHOP_ORIGIN = "http://shop.example"
"""Origin of the shop's own pages, which the server allows."""


@pytest.fixture(scope="session")
def url(road: Road) -> Iterator[str]:
    """Serve the index; questions about catalogue items do not need the network, which a fake replaces."""
    with served(ServeConfig(index=road.folder / "index", cors_origins=(SHOP_ORIGIN,))) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client
