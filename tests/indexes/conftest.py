"""Fixtures of the index tests: a small shop, indexed once, and the servers that they use."""

from collections.abc import Iterator

import pytest

from indexes.index import Index

from .fakes import FakeShop, write_shop
from .milvus_server import MilvusServer, server, standalone
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
def milvus_lite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run Milvus Lite as a server in a separate process, and yield its address."""
    with server(tmp_path_factory.mktemp("milvus-server")) as running:
        yield running.uri


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    """Run a whole Milvus, which a test may stop and start again."""
    with standalone(tmp_path_factory.mktemp("milvus-standalone")) as running:
        yield running


@pytest.fixture(scope="session")
def milvus_standalone(milvus: MilvusServer) -> str:
    """Return the address of a whole Milvus."""
    return milvus.uri


@pytest.fixture(scope="session", params=["lite", pytest.param("standalone", marks=pytest.mark.milvus)])
def milvus_server(request: pytest.FixtureRequest) -> str:
    """Return the address of a Milvus server."""
    names = {"lite": "milvus_lite_server", "standalone": "milvus_standalone"}
    uri: str = request.getfixturevalue(names[request.param])
    return uri
