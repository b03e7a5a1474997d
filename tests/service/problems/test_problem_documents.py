"""Tests that every invalid request gets a problem document and never a 500."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.app import create_app
from service.problems.response import MEDIA_TYPE
from service.schemas.problem import Problem
from service.settings import ServeConfig
from tests.indexes.changes import placed
from tests.indexes.fakes import FakeEncoder, FakeShop
from tests.indexes.milvus_server import MilvusServer, server, standalone
from tests.service.conftest import served, wait_until_ready

GOOD = {"item_id": "red-mug", "relation": "gardeners"}
QUESTIONS = ["/retrieve", "/relation-type", "/validity"]
JSON = {"content-type": "application/json"}


class BrokenEncoder(FakeEncoder):
    """An encoder with a bug."""

    def read_items(self, *items: object) -> Any:
        raise ZeroDivisionError


def send(client: TestClient, body: bytes, path: str = "/retrieve") -> dict[str, Any]:
    """Post a body and return the problem document of the response."""
    return problem_of(client.post(path, content=body, headers=JSON))


def problem_of(response: Any) -> dict[str, Any]:
    assert response.headers["content-type"] == MEDIA_TYPE
    problem: dict[str, Any] = response.json()
    assert Problem.model_validate(problem).status == response.status_code
    return problem


@pytest.mark.parametrize(
    ("change", "pointer", "detail"),
    [
        ({"k": 0}, "#/k", "k must be at least 1; 0 was sent. Send a whole number from 1 to 100."),
        (
            {"k": 10**9},
            "#/k",
            "k must be at most 100; 1000000000 was sent. Send a whole number from 1 to 100.",
        ),
        ({"k": "5"}, "#/k", 'k cannot be "5". Send a whole number from 1 to 100.'),
        ({"k": 5.5}, "#/k", "k cannot be 5.5. Send a whole number from 1 to 100."),
        ({"k": True}, "#/k", "k cannot be true. Send a whole number from 1 to 100."),
        ({"k": None}, "#/k", "k cannot be null. Send a whole number from 1 to 100."),
        (
            {"similarity": "avg"},
            "#/similarity",
            'similarity cannot be "avg". Send one of TT, II, TI, IT, AVG.',
        ),
        ({"relation": 5}, "#/relation", "relation cannot be 5. Send text of 1 to 512 characters."),
        (
            {"relation": ["a"]},
            "#/relation",
            "relation cannot be a list of length 1. Send text of 1 to 512 characters.",
        ),
        ({"K": 3}, "#/K", "K is not a known field. Remove it, or correct its name."),
        ({"a/b~": 3}, "#/a~1b~0", "a/b~ is not a known field. Remove it, or correct its name."),
        (
            {"text": "mug"},
            "#",
            "A request needs exactly one query: item_id, item_ids, or a new item (text, picture or both); several were "
            "sent. Send item_id for",
        ),
        (
            {"item_id": ""},
            "#/item_id",
            'item_id must have 1 or more characters; "" was sent. Send text of 1 to',
        ),
    ],
)
def test_names_an_invalid_field_with_its_value_and_the_remedy(
    client: TestClient, change: dict[str, object], pointer: str, detail: str
) -> None:
    problem = send(client, json.dumps({**GOOD, **change}).encode())
    assert (problem["status"], problem["type"]) == (422, "urn:rcml:problem:invalid-request")
    assert problem["detail"].startswith(detail)
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert problem["instance"] == "/retrieve"


def test_names_a_missing_field_with_its_accepted_values(client: TestClient) -> None:
    problem = send(client, b'{"item_a": "red-mug", "item_b": "bib"}', "/validity")
    assert problem["detail"] == (
        "relation is missing. Send text of 1 to 512 characters: ID of a relation from GET /relations."
    )


@pytest.mark.parametrize("similarity", ["II", "IT", "AVG"])
def test_rejects_an_image_similarity_for_a_text_only_query(client: TestClient, similarity: str) -> None:
    body = {"text": "mug", "relation": "gardeners", "similarity": similarity}
    problem = send(client, json.dumps(body).encode())
    assert problem["errors"][0]["pointer"] == "#/similarity"
    assert problem["errors"][0]["remedy"] == (
        "Send similarity TT or TI, include the picture, or omit similarity."
    )


@pytest.mark.parametrize("path", ["/relation-type", "/validity"])
def test_rejects_a_pair_of_identical_items(client: TestClient, path: str) -> None:
    body = {"item_a": "bib", "item_b": "bib", "relation": "gardeners"}
    if path == "/relation-type":
        del body["relation"]
    problem = send(client, json.dumps(body).encode(), path)
    assert (problem["status"], problem["errors"][0]["pointer"]) == (422, "#/item_b")


def test_rejects_the_intra_sample_relation_for_two_different_items(client: TestClient) -> None:
    problem = send(client, b'{"item_a": "bib", "item_b": "cot", "relation": "same-item"}', "/validity")
    assert problem["status"] == 422
    assert problem["errors"][0]["remedy"] == "Send one of gardeners, worn together / office, new-parents."


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/retrieve", {"item_id": "unicorn", "relation": "gardeners"}),
        ("/relation-type", {"item_a": "bib", "item_b": "unicorn"}),
        ("/validity", {"item_a": "unicorn", "item_b": "bib", "relation": "gardeners"}),
    ],
)
def test_unknown_item_is_a_404_that_names_the_item(
    client: TestClient, path: str, body: dict[str, str]
) -> None:
    problem = send(client, json.dumps(body).encode(), path)
    assert (problem["status"], problem["type"]) == (404, "urn:rcml:problem:unknown-item")
    assert problem["detail"].startswith("No item has the ID 'unicorn'.")


@pytest.mark.parametrize("query", [{"item_id": "bib"}, {"text": "a bib"}])
def test_unknown_relation_is_a_404_that_lists_the_known_relations(
    client: TestClient, query: dict[str, str]
) -> None:
    problem = send(client, json.dumps({**query, "relation": "sailors"}).encode())
    assert (problem["status"], problem["type"]) == (404, "urn:rcml:problem:unknown-relation")
    assert "'sailors'" in problem["detail"]
    assert problem["known"] == ["same-item", "gardeners", "worn together / office", "new-parents"]


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"", 422, "The body is missing. Send a JSON object."),
        (b"[]", 422, "The body cannot be []. Send a JSON object."),
        (b"null", 422, "The body cannot be null. Send a JSON object."),
        (b'{"item_id": ', 400, "The body is not valid JSON: EOF while parsing a value at line 1 column 12."),
        (
            b'{"item_id": "\xff"}',
            400,
            "The body is not valid JSON: invalid unicode code point at line 1 column 14.",
        ),
        (
            b"[" * 100_000 + b"]" * 100_000,
            400,
            "The body is not valid JSON: recursion limit exceeded at line 1 column 202.",
        ),
        (
            b'{"k": ' + b"9" * 5000 + b"}",
            400,
            "The body is not valid JSON: number out of range at line 1 column 4308.",
        ),
        (
            b'{"k": ' + b"9" * 500 + b"}",
            422,
            "k must be at most 100; a number with more than 80 digits was sent.",
        ),
        (
            b'{"item_id": "\\ud800", "relation": "\\udfff"}',
            400,
            "The body is not valid JSON: unexpected end of hex escape at line 1 column 20.",
        ),
        (b'{"item_id": "red-mug", "relation": "gardeners", "k": NaN}', 422, "k cannot be NaN."),
        (b'{"item_id": "red-mug", "relation": "gardeners", "k": -Infinity}', 422, "k cannot be -Infinity."),
        (b'{"item_id": "red-mug", "relation": "gardeners", "k": 1e999}', 422, "k cannot be Infinity."),
    ],
)
def test_detail_states_why_a_body_is_invalid(
    client: TestClient, body: bytes, status: int, detail: str
) -> None:
    problem = send(client, body)
    assert problem["status"] == status
    assert problem["detail"].startswith(detail)


def test_shortens_a_long_value(client: TestClient) -> None:
    problem = send(client, json.dumps({**GOOD, "item_id": "x" * 100_000}).encode())
    assert len(json.dumps(problem)) < 1000


def test_shortens_a_long_field_name(client: TestClient) -> None:
    problem = send(client, json.dumps({**GOOD, "x" * 100_000: 1}).encode())
    assert problem["detail"] == f"{'x' * 80}… is not a known field. Remove it, or correct its name."
    assert problem["errors"][0]["pointer"] == "#/" + "x" * 80


def test_reports_one_error_for_a_field_of_several_types(client: TestClient) -> None:
    problem = send(client, json.dumps({**GOOD, "filter": {"price": {"any_of": [None]}}}).encode())
    assert problem["detail"] == (
        "filter.price.any_of.0 cannot be null. Send text or true or false or a number."
    )
    assert [error["pointer"] for error in problem["errors"]] == ["#/filter/price/any_of/0"]


@pytest.mark.parametrize(
    ("item", "similarity", "lacks"),
    [({"text": "mug"}, "II", "picture"), ({"picture": {"url": "https://a/b.png"}}, "TT", "text")],
)
def test_rejects_a_similarity_that_needs_a_part_the_new_item_lacks(
    client: TestClient, item: dict[str, Any], similarity: str, lacks: str
) -> None:
    body = {"item_a": "bib", "item_b": item, "similarity": similarity}
    problem = send(client, json.dumps(body).encode(), "/relation-type")
    assert problem["detail"] == (
        f"similarity {similarity} needs the {lacks} of item_b, but item_b has none. "
        f"Send the {lacks} of item_b, or omit similarity."
    )


def test_limits_the_errors_reported_for_a_thousand_unknown_fields(client: TestClient) -> None:
    problem = send(client, json.dumps({str(number): 0 for number in range(1000)}).encode())
    assert len(problem["errors"]) == 20


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "text/json"])
def test_body_not_declared_as_json_is_a_415_that_names_the_header_to_send(
    client: TestClient, kind: str
) -> None:
    response = client.post("/retrieve", content=json.dumps(GOOD), headers={"content-type": kind})
    problem = problem_of(response)
    assert problem["status"] == 415
    assert kind in problem["detail"]
    assert "Content-Type: application/json" in problem["detail"]


def chunks(size: int) -> Iterator[bytes]:
    yield from (b"x" * 65_536 for _ in range(size // 65_536))


@pytest.mark.parametrize("content", [b"x" * 10_000_000, chunks(10_000_000)], ids=["declared", "chunked"])
def test_rejects_a_ten_megabyte_body_and_names_the_limit(client: TestClient, content: Any) -> None:
    problem = problem_of(client.post("/retrieve", content=content, headers=JSON))
    assert problem["status"] == 413
    assert "1048576 bytes" in problem["detail"]


def test_accepts_a_body_at_the_size_limit(client: TestClient) -> None:
    body = json.dumps(GOOD).encode()
    assert client.post("/retrieve", content=body.ljust(2**20), headers=JSON).status_code == 200
    assert client.post("/retrieve", content=body.ljust(2**20 + 1), headers=JSON).status_code == 413


def test_unknown_path_is_a_404(client: TestClient) -> None:
    problem = problem_of(client.get("/nothing here/é"))
    assert (problem["status"], problem["type"]) == (404, "about:blank")
    assert problem["instance"] == "/nothing%20here/%C3%A9"


def test_unsupported_method_is_a_405_that_lists_the_allowed_methods(client: TestClient) -> None:
    response = client.get("/retrieve")
    assert (problem_of(response)["status"], response.headers["allow"]) == (405, "POST")
    assert client.post("/items/bib").headers["allow"] == "DELETE, GET, HEAD, PUT"
    assert client.put("/relations").headers["allow"] == "GET, HEAD, POST"


def test_bug_is_a_500_without_internal_details(config: ServeConfig) -> None:
    with served(config, BrokenEncoder()) as client:
        problem = send(client, b'{"text": "mug", "relation": "gardeners"}')
    assert problem["status"] == 500
    assert "ZeroDivisionError" not in json.dumps(problem)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["bib", "gardeners", "TT"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(["item_id", "item_a", "item_b", "text", "relation", "k", "similarity"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=anything | st.dictionaries(fields, anything, max_size=5))
def test_no_json_body_causes_a_server_error(client: TestClient, body: object) -> None:
    for path in QUESTIONS:
        response = client.post(path, content=json.dumps(body), headers=JSON)
        assert response.status_code < 500
        if response.status_code >= 400:
            problem_of(response)


def persisted(ask: Callable[[], Any]) -> Any:
    """Retry a request while the response is 503, because the server of the vectors reconnects."""
    while (response := ask()).status_code == 503:
        time.sleep(0.1)
    return response


@pytest.mark.parametrize("run", [server, pytest.param(standalone, marks=pytest.mark.milvus)])
def test_unreachable_vector_server_is_a_503_without_internal_details(
    shop: FakeShop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    run: Callable[[Path], AbstractContextManager[MilvusServer]],
) -> None:
    monkeypatch.setattr("indexes.vectors.milvus.milvus_collections.REQUEST_TIMEOUT_S", 2.0)
    with run(tmp_path) as milvus:
        config = ServeConfig(index=placed(shop, tmp_path, vectors=milvus.uri))
        with TestClient(create_app(config, lambda *_: FakeEncoder())) as client:
            wait_until_ready(client)
            assert client.post("/retrieve", json=GOOD | {"similarity": "TT"}).status_code == 200
            milvus.stop()
            answer = client.post("/retrieve", json=GOOD | {"similarity": "TT"})
            problem, unready = problem_of(answer), problem_of(client.get("/readyz"))
            assert client.get("/livez").status_code == 200
            milvus.start()
            assert persisted(lambda: client.get("/readyz")).status_code == 200
            assert (
                persisted(lambda: client.post("/retrieve", json=GOOD | {"similarity": "TT"})).status_code
                == 200
            )
    assert unready["detail"] == problem["detail"]
    assert (problem["status"], answer.headers["retry-after"]) == (503, "1")
    assert problem["detail"].startswith("A part of the index cannot be read or written. Retry in one second.")
    assert f"Milvus at {milvus.uri} is unavailable" in caplog.text
