"""Fixtures of the index tests: a small shop, indexed once, and the servers that they use."""

from collections.abc import Iterator

import pytest

from indexes.index import Index

from .fakes import FakeShop, write_shop
from .milvus_server import server
from .postgres_server import Server, cluster


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def index(shop: FakeShop) -> Iterator[Index]:
    index = Index.open(shop.index)
    yield index
    index.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with cluster() as server:
        yield server


@pytest.fixture(scope="session")
def milvus_lite(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of a Milvus Lite file; Milvus Lite runs in this process."""
    return str(tmp_path_factory.mktemp("milvus") / "lite.db")


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a Milvus server in a separate process, and yield its address."""
    with server(tmp_path_factory.mktemp("milvus-server")) as running:
        yield running.uri
