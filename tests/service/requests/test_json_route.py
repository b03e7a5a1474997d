"""Bodies that begin with a byte order mark, as editors on Windows write them."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.testclient import TestClient

from service.problems.response import STATUS_CLIENT_LEFT
from service.requests import json_route
from service.requests.json_route import read
from service.schemas.item_changes import BulkLine
from service.schemas.retrieve import RetrieveRequest
from service.settings import ServeConfig
from tests.indexes.changes import copied
from tests.indexes.fakes import FakeShop
from tests.service.conftest import served

BOM = b"\xef\xbb\xbf"
JSON = {"Content-Type": "application/json"}


def test_mark_before_a_json_body_is_ignored(client: TestClient) -> None:
    answer = client.post("/retrieve", content=BOM + b'{"item_id": "twin-1", "k": 1}', headers=JSON)
    assert [result["item"]["item_id"] for result in answer.json()["results"]] == ["twin-2"]


def test_mark_before_any_line_is_ignored() -> None:
    assert read(BulkLine, BOM + b'{"delete": "mug"}').delete == "mug"


def test_mark_before_lines_is_ignored_and_a_line_of_it_alone_is_empty(shop: FakeShop, tmp_path: Path) -> None:
    body = BOM + b'{"delete": "none-1"}\n' + BOM + b'\n{"delete": "none-2"}\n'
    with served(ServeConfig(index=copied(shop, tmp_path))) as client:
        answer = client.post("/items/bulk", content=body, headers={"Content-Type": "application/x-ndjson"})
    replies = [json.loads(line) for line in answer.text.splitlines()]
    assert [(one["line"], one["item_id"], one["status"]) for one in replies] == [
        (1, "none-1", 204),
        (3, "none-2", 204),
    ]


def test_mark_before_the_json_of_an_upload_is_ignored(client: TestClient) -> None:
    question = {"question": "\ufeff" + '{"k": 0}'}
    answer = client.post("/retrieve", data=question, files={"picture": b"no picture"})
    assert "k must be at least 1" in answer.json()["detail"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_is_told(encoding: str) -> None:
    with pytest.raises(RequestValidationError) as refused:
        read(BulkLine, ("\ufeff" + '{"delete": "mug"}').encode(encoding))
    assert refused.value.errors()[0]["ctx"]["error"] == "it is encoded in UTF-16. Send it in UTF-8"


def test_mark_alone_is_a_missing_body() -> None:
    with pytest.raises(RequestValidationError) as refused:
        read(BulkLine, BOM)
    assert refused.value.errors()[0]["type"] == "missing"


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", "multipart/form-data; boundary=x"])
def test_client_that_leaves_within_its_body_is_no_error(client: TestClient, media_type: str) -> None:
    scope = {
        **{"type": "http", "http_version": "1.1", "scheme": "http", "root_path": "", "query_string": b""},
        **{"method": "POST", "path": "/retrieve", "raw_path": b"/retrieve", "client": ("testclient", 1)},
        "headers": [(b"host", b"testserver"), (b"content-type", media_type.encode())],
        "state": dict(client.app_state),
    }
    arriving: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"--x", "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return arriving.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    assert client.portal is not None
    client.portal.call(client.app, scope, receive, send)
    assert [one["status"] for one in sent if "status" in one] == [STATUS_CLIENT_LEFT]


UNKNOWN = ",".join(f'"u{number}":{number}' for number in range(50_000))


def errors_of(model: type[BaseModel], body: str) -> list[dict[str, Any]]:
    with pytest.raises(RequestValidationError) as refused:
        read(model, body.encode())
    return [*refused.value.errors()]


def test_body_of_many_unknown_fields_is_rejected_with_its_first_fields() -> None:
    errors = errors_of(RetrieveRequest, f'{{"item_id":"twin-1",{UNKNOWN}}}')
    assert len(errors) == json_route.MAX_REPORTED_ERRORS
    assert {one["type"] for one in errors} == {"extra_forbidden"}
    assert [one["loc"] for one in errors[:2]] == [("body", "u0"), ("body", "u1")]


def test_message_for_many_unknown_fields_is_that_for_one(client: TestClient) -> None:
    detail = client.post("/retrieve", content=f'{{"item_id":"twin-1",{UNKNOWN}}}', headers=JSON).json()[
        "detail"
    ]
    assert detail.startswith(
        "u0 is not a known field. Remove it, or correct its name. u1 is not a known field."
    )


@pytest.mark.parametrize(
    "deeper", [UNKNOWN, f'"filter":{{{UNKNOWN}}}', f'"attributes":{{"a":{{{UNKNOWN}}}}}']
)
def test_many_errors_deeper_in_a_body_are_told_at_once(client: TestClient, deeper: str) -> None:
    content = f'{{"questions":[{{"item_id":"twin-1",{deeper}}}]}}'
    answer = client.post("/retrieve/batch", content=content, headers=JSON)
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) <= 2
