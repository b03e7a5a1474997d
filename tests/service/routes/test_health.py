"""Health endpoints: a server is live immediately, is ready when its index is open, and reports a failure to open it."""

import platform
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from threading import Event

from starlette.testclient import TestClient

from model import __version__
from service.app import create_app
from service.lifecycle.engine_holder import EngineHolder
from service.settings import ServeConfig
from tests.indexes.fakes import ITEMS, FakeEncoder, FakeShop
from tests.service.conftest import wait_until_ready


def test_ready_reports_index_and_device(client: TestClient) -> None:
    answer = client.get("/readyz").json()
    assert (answer["status"], answer["items"], answer["relations"]) == ("ready", len(ITEMS), 4)
    assert answer["device"] == "cpu"
    assert len(answer["index"]) == len(answer["checkpoint"]) == 64


def test_live_but_not_ready_while_the_index_opens(config: ServeConfig) -> None:
    go_on = Event()

    def open_slowly(*_: object) -> FakeEncoder:
        assert go_on.wait(600)
        return FakeEncoder()

    with TestClient(create_app(config, open_slowly)) as client:
        assert client.get("/livez").json() == {"status": "live"}
        for response in (client.get("/readyz"), client.get("/relations")):
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert response.json()["type"] == "urn:rcml:problem:not-ready"
        assert client.get("/openapi.json").status_code == 200
        go_on.set()
        wait_until_ready(client)


def test_reports_an_index_that_cannot_be_opened_and_is_never_ready(shop: FakeShop) -> None:
    outcome: list[EngineHolder] = []
    app = create_app(ServeConfig(index=shop.checkpoint), lambda *_: FakeEncoder(), outcome.append)
    with TestClient(app) as client:
        while not outcome:
            time.sleep(0.02)
        response = client.get("/readyz")
    assert response.status_code == 503
    assert "is a checkpoint, but an index is required" in response.json()["detail"]
    assert "is a checkpoint, but an index is required" in str(outcome[0].failure)


def test_stopping_server_is_not_ready_but_finishes_its_requests(config: ServeConfig) -> None:
    loaded: list[EngineHolder] = []
    with TestClient(create_app(config, lambda *_: FakeEncoder(), loaded.append)) as client:
        wait_until_ready(client)
        loaded[0].stop()
        response = client.get("/readyz")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.json()["detail"].startswith("The server is stopping.")
        assert client.get("/livez").status_code == client.get("/items/red-mug").status_code == 200


def test_info_reports_versions_and_digests(client: TestClient) -> None:
    info, ready = client.get("/info").json(), client.get("/readyz").json()
    started = datetime.fromisoformat(info.pop("started"))
    assert 0 <= info.pop("uptime_s") < 86_400
    assert timedelta() <= datetime.now(UTC) - started < timedelta(days=1)
    versions = info.pop("versions")
    assert (versions["rcml"], versions["python"]) == (__version__, platform.python_version())
    assert versions["fastapi"] == version("fastapi")
    assert versions["faiss"] == version("faiss-cpu")
    assert info == {
        "index": ready["index"],
        "generation": "generation-000001",
        "checkpoint": ready["checkpoint"],
        "items": len(ITEMS),
        "relations": 4,
        "overlay_changes": 0,
        "device": "cpu",
        "vectors": "vectors are searched on the CPU: FAISS is installed without GPU support",
        "precision": "auto",
        "engine": "auto",
        "towers": "fp32 by torch",
    }
