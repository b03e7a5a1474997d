"""Access log: every request has an ID in its response and its log line, and a failure is logged once under that ID."""

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
    """Encoder with a bug: it raises an unexpected exception."""

    def read_items(self, *items: object) -> Any:
        raise ZeroDivisionError("a secret of the server")


@pytest.fixture
def broken(config: ServeConfig) -> Iterator[TestClient]:
    with served(config, BrokenEncoder()) as client:
        yield client


def line_of(caplog: pytest.LogCaptureFixture, number: int = -1) -> dict[str, Any]:
    """Return the fields of a request's line in the access log."""
    lines = [record for record in caplog.records if record.name == "rcml.requests"]
    return dict(vars(lines[number])["fields"])


@pytest.mark.parametrize("asked", ["a", "A-z_0.9", "x" * 128])
def test_a_valid_request_id_is_kept(client: TestClient, asked: str) -> None:
    assert client.get("/livez", headers={"X-Request-Id": asked}).headers["x-request-id"] == asked


@pytest.mark.parametrize("asked", ["", "x" * 129, "two words", 'a"b', "a\tb", "\xe9"])
def test_an_id_that_could_forge_a_log_line_is_replaced(client: TestClient, asked: str) -> None:
    answer = client.get("/livez", headers=[(b"x-request-id", asked.encode("latin-1"))])
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_each_request_without_an_id_gets_a_unique_one(client: TestClient) -> None:
    assert len({client.get("/livez").headers["x-request-id"] for _ in range(20)}) == 20


def test_logs_method_route_status_size_and_duration(
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


def test_logs_a_truncated_path_and_the_kind_of_problem(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "rcml"):
        client.get("/items/" + "x" * 400)
    line = line_of(caplog)
    assert (line["path"], line["problem"]) == ("/items/" + "x" * 193, "unknown-item")


def test_logs_probes_only_at_debug_level(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "rcml"):
        client.get("/readyz")
    assert caplog.records == []
    with caplog.at_level(logging.DEBUG, "rcml"):
        client.get("/readyz")
    assert line_of(caplog)["route"] == "/readyz"


def test_a_failure_reveals_only_the_request_id_to_the_client(
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


def test_the_problem_document_of_a_client_error_has_no_request_id(client: TestClient) -> None:
    assert "request_id" not in client.get("/items/unicorn").json()


def run(app: RequestLog) -> list[Message]:
    """Send one request to a bare ASGI application and return the messages it sends."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/x", "headers": [], "rcml.key": "shop"}
    asyncio.run(app(scope, receive, send))
    return sent


def test_logs_the_key_name_from_the_scope(caplog: pytest.LogCaptureFixture) -> None:
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
def test_a_request_without_a_response_is_counted_and_not_in_flight(
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


def test_the_openapi_document_describes_the_request_id_of_a_failure(client: TestClient) -> None:
    problem = client.get("/openapi.json").json()["components"]["schemas"]["Problem"]
    assert "log" in problem["properties"]["request_id"]["description"]
    assert json.dumps(problem)
