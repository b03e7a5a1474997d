"""Bodies that begin with a byte order mark, as editors on Windows write them."""

import json

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.testclient import TestClient

from service.requests.json_route import read
from service.schemas.item_changes import BulkLine

BOM = b"\xef\xbb\xbf"
JSON = {"Content-Type": "application/json"}


def test_mark_before_a_json_body_is_ignored(client: TestClient) -> None:
    answer = client.post("/retrieve", content=BOM + b'{"item_id": "twin-1", "k": 1}', headers=JSON)
    assert [result["item"]["item_id"] for result in answer.json()["results"]] == ["twin-2"]


def test_mark_before_any_line_is_ignored() -> None:
    assert read(BulkLine, BOM + b'{"delete": "mug"}').delete == "mug"


def test_mark_before_lines_is_ignored_and_a_line_of_it_alone_is_empty(client: TestClient) -> None:
    body = BOM + b'{"delete": "none-1"}\n' + BOM + b'\n{"delete": "none-2"}\n'
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
