"""Every request has an id, in its answer and in every line of log about it; a failure is logged once, under that id."""

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from service.middleware.request_log import RequestLog
from service.settings import ServeConfig
from service.telemetry.logs import REQUEST_ID
from service.telemetry.prometheus import Metrics
from tests.indexes.fakes import FakeEncoder
from tests.service.conftest import served


class BrokenEncoder(FakeEncoder):
    """A bug."""

    def read_items(self, *items: object) -> Any:
        raise ZeroDivisionError("a secret of the server")


@pytest.fixture
def broken(config: ServeConfig) -> Iterator[TestClient]:
    with served(config, BrokenEncoder()) as client:
        yield client


def line_of(caplog: pytest.LogCaptureFixture, number: int = -1) -> dict[str, Any]:
    """What the log holds of a request."""
    lines = [record for record in caplog.records if record.name == "rcml.requests"]
    return dict(vars(lines[number])["fields"])


@pytest.mark.parametrize("asked", ["a", "A-z_0.9", "x" * 128])
def test_a_well_formed_id_is_taken_over(client: TestClient, asked: str) -> None:
    assert client.get("/livez", headers={"X-Request-Id": asked}).headers["x-request-id"] == asked


@pytest.mark.parametrize("asked", ["", "x" * 129, "two words", 'a"b', "a\tb", "\xe9"])
def test_an_id_that_could_forge_a_line_is_replaced(client: TestClient, asked: str) -> None:
    answer = client.get("/livez", headers=[(b"x-request-id", asked.encode("latin-1"))])
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_without_one_every_request_has_its_own(client: TestClient) -> None:
    assert len({client.get("/livez").headers["x-request-id"] for _ in range(20)}) == 20


def test_a_request_is_logged_with_what_it_was_and_what_it_took(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "rcml"):
        answer = client.get("/items/a%2Fb%3Fc%23d%20e?secret=1")
    line = line_of(caplog)
    assert 0 < line.pop("ms") < 10_000
    assert line == {
        "method": "GET",
        "route": "/items/{item_id}",
        "path": "/items/a/b?c#d e",
        "status": 200,
        "bytes": len(answer.content),
    }


def test_a_long_path_is_cut_and_a_refusal_names_its_kind(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "rcml"):
        client.get("/items/" + "x" * 400)
    line = line_of(caplog)
    assert (line["path"], line["problem"]) == ("/items/" + "x" * 193, "unknown-item")


def test_probes_are_logged_for_those_alone_who_debug(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "rcml"):
        client.get("/readyz")
    assert caplog.records == []
    with caplog.at_level(logging.DEBUG, "rcml"):
        client.get("/readyz")
    assert line_of(caplog)["route"] == "/readyz"


def test_a_failure_tells_the_client_nothing_but_the_id(
    broken: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = broken.post(
        "/retrieve", json={"text": "mug", "relation": "gardeners"}, headers={"X-Request-Id": "r-1"}
    )
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "r-1"
    assert "secret" not in answer.text
    assert "Error" not in answer.text.replace("Server Error", "")
    assert (line_of(caplog)["status"], caplog.records[-1].levelname) == (500, "ERROR")


def test_a_refusal_needs_no_id_in_its_problem(client: TestClient) -> None:
    assert "request_id" not in client.get("/items/unicorn").json()


def run(app: RequestLog) -> list[Message]:
    """One request to a bare application, as a server would make it."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/x", "headers": [], "rcml.key": "shop"}
    asyncio.run(app(scope, receive, send))
    return sent


def test_the_name_of_the_key_that_the_guard_left_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        assert REQUEST_ID.get() is not None
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body", "body": b"12"})
        await send({"type": "http.response.body", "body": b"3"})

    with caplog.at_level(logging.INFO, "rcml"):
        sent = run(RequestLog(answer, Metrics()))
    line = line_of(caplog)
    assert (line["key"], line["status"], line["bytes"], line["route"]) == ("shop", 204, 3, "none")
    assert [name for name, _ in sent[0]["headers"]] == [b"x-request-id"]


@pytest.mark.parametrize(("error", "status"), [(asyncio.CancelledError, "499"), (ValueError, "500")])
def test_a_request_without_an_answer_is_counted_and_no_longer_in_flight(
    error: type[BaseException], status: str
) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    metrics = Metrics()
    with pytest.raises(error):
        run(RequestLog(fail, metrics))
    text = metrics.exposition("")[0].decode()
    assert f'rcml_requests_total{{method="GET",route="none",status="{status}"}} 1.0' in text
    assert "rcml_requests_in_flight 0.0" in text


def test_the_openapi_document_says_what_a_failure_holds(client: TestClient) -> None:
    problem = client.get("/openapi.json").json()["components"]["schemas"]["Problem"]
    assert "log" in problem["properties"]["request_id"]["description"]
    assert json.dumps(problem)
