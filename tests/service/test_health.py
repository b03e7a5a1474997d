"""Alive at once, ready when the index is open, and honest when it never will be."""

import time
from threading import Event

from starlette.testclient import TestClient

from service.app import create_app
from service.loading import Loading
from service.settings import ServeConfig
from tests.indexes.fakes import ITEMS, FakeEncoder, FakeShop

from .conftest import wait_until_ready


def test_ready_says_what_is_served_and_where_texts_are_encoded(client: TestClient) -> None:
    answer = client.get("/readyz").json()
    assert (answer["status"], answer["items"], answer["relations"]) == ("ready", len(ITEMS), 4)
    assert answer["device"] == "cpu"
    assert len(answer["index"]) == len(answer["checkpoint"]) == 64


def test_alive_but_not_ready_while_the_index_is_being_opened(config: ServeConfig) -> None:
    go_on = Event()

    def open_slowly(*_: object) -> FakeEncoder:
        assert go_on.wait(10)
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


def test_an_index_that_cannot_be_opened_is_reported_and_never_ready(shop: FakeShop) -> None:
    outcome: list[Loading] = []
    app = create_app(ServeConfig(index=shop.checkpoint), lambda *_: FakeEncoder(), outcome.append)
    with TestClient(app) as client:
        while not outcome:
            time.sleep(0.02)
        response = client.get("/readyz")
    assert response.status_code == 503
    assert "is a checkpoint, where" in response.json()["detail"]
    assert "is a checkpoint, where" in str(outcome[0].failure)
