"""Fixtures: the fake shop, and the metrics and label values of a server that has answered a request."""

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from service.http.route_rules import ROUTE_RULES
from service.problems import kinds
from service.settings import ServeConfig
from service.telemetry.prometheus import Stage
from tests.indexes.fakes import FakeShop, write_shop
from tests.service.conftest import served


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def server(shop: FakeShop) -> Iterator[TestClient]:
    with served(ServeConfig(index=shop.index)) as client:
        client.get("/items/unicorn")
        yield client


@pytest.fixture(scope="session")
def metrics(server: TestClient) -> set[str]:
    """Return the names of all samples of /metrics, and `up`, which Prometheus adds."""
    families = text_string_to_metric_families(server.get("/metrics").text)
    # A metric with labels has no samples before its first value.
    later = {"rcml_shadow_questions_total"}
    return {sample.name for family in families for sample in family.samples} | later | {"up"}


@pytest.fixture(scope="session")
def label_values() -> dict[str, set[str]]:
    """Return the values of the labels that come from a closed set."""
    return {
        "route": {path for _, path in ROUTE_RULES},
        "kind": {kind.name for kind in vars(kinds).values() if isinstance(kind, kinds.Kind) and kind.name},
        "stage": set(Stage),
        "status": {"200", "429", "500", "503"},
        "job": {"rcml", "rcml-toys"},
    }
