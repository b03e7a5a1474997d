"""Server with two workers that the tests of a module share."""

from collections.abc import Iterator

import httpx
import pytest

from tests.indexes.fakes import FakeShop
from tests.service.shops import write_shops

from .worker_server import WorkerServer, clients, running


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    return write_shops(tmp_path_factory.mktemp("shops"))


@pytest.fixture(scope="module")
def server(shops: FakeShop, request: pytest.FixtureRequest) -> Iterator[WorkerServer]:
    """Yield a server whose network runs in each worker, or in a process of its own if the module sets `OPEN`."""
    with running(shops.index, "workers=2", f"open={getattr(request.module, 'OPEN', 'accented')}") as server:
        yield server


@pytest.fixture
def both(server: WorkerServer) -> Iterator[list[httpx.Client]]:
    """Yield a client of each worker."""
    found = clients(server)
    yield [found[0], found[1]]
    for client in found.values():
        client.close()
