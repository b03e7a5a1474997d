"""Encoded bodies are refused with the name of the encoding, on every route with a body."""

import gzip
import json

import pytest
from starlette.testclient import TestClient

JSON, NDJSON = "application/json", "application/x-ndjson"
BODY = json.dumps({"item_id": "twin-1", "k": 1}).encode()


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/retrieve", JSON),
        ("POST", "/retrieve/batch", JSON),
        ("POST", "/validity", JSON),
        ("POST", "/relations", JSON),
        ("PUT", "/items/mug", JSON),
        ("PUT", "/items/mug", "multipart/form-data; boundary=b"),
        ("POST", "/items/bulk", NDJSON),
        ("POST", "/admin/reload", JSON),
    ],
)
@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br, gzip", "deflate"])
def test_encoded_body_is_refused_with_its_encoding(
    client: TestClient, method: str, path: str, kind: str, encoding: str
) -> None:
    headers = {"Content-Type": kind, "Content-Encoding": encoding}
    answer = client.request(method, path, content=gzip.compress(BODY), headers=headers)
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
    detail = answer.json()["detail"]
    assert f"has the Content-Encoding {encoding}, but" in detail
    assert "Send the body uncompressed" in detail


@pytest.mark.parametrize("encoding", ["identity", "IDENTITY", ""])
def test_body_without_encoding_is_taken(client: TestClient, encoding: str) -> None:
    headers = {"Content-Type": JSON, "Content-Encoding": encoding}
    answer = client.post("/retrieve", content=BODY, headers=headers)
    assert [result["item"]["item_id"] for result in answer.json()["results"]] == ["twin-2"]


def test_request_without_body_ignores_the_header(client: TestClient) -> None:
    assert client.get("/livez", headers={"Content-Encoding": "gzip"}).status_code == 200


@pytest.mark.parametrize("lines", [["identity", "gzip"], ["gzip", "identity"], ["", "br"]])
def test_an_encoding_in_another_header_line_is_found(client: TestClient, lines: list[str]) -> None:
    headers = [("Content-Type", JSON), *(("Content-Encoding", line) for line in lines)]
    answer = client.post("/retrieve", content=gzip.compress(BODY), headers=headers)
    [encoding] = {"gzip", "br"} & set(lines)
    assert answer.status_code == 415
    assert f"has the Content-Encoding {encoding}, but" in answer.json()["detail"]
