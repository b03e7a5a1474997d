"""Everything that can be wrong with a request is answered with a problem document, and nothing with a 500."""

import json
from collections.abc import Iterator
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
from tests.indexes.milvus_server import server
from tests.service.conftest import served, wait_until_ready

GOOD = {"item_id": "red-mug", "relation": "gardeners"}
QUESTIONS = ["/retrieve", "/relation-type", "/validity"]
JSON = {"content-type": "application/json"}


class BrokenEncoder(FakeEncoder):
    """A bug."""

    def read_items(self, *items: object) -> Any:
        raise ZeroDivisionError


def send(client: TestClient, body: bytes, path: str = "/retrieve") -> dict[str, Any]:
    """The problem that a body is answered with, once it is seen to be one."""
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
            "relation cannot be a list of 1. Send text of 1 to 512 characters.",
        ),
        ({"K": 3}, "#/K", "K is not known here. Leave it out, or correct its name."),
        ({"a/b~": 3}, "#/a~1b~0", "a/b~ is not known here. Leave it out, or correct its name."),
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
def test_a_wrong_field_is_named_with_its_value_and_the_remedy(
    client: TestClient, change: dict[str, object], pointer: str, detail: str
) -> None:
    problem = send(client, json.dumps({**GOOD, **change}).encode())
    assert (problem["status"], problem["type"]) == (422, "urn:rcml:problem:invalid-request")
    assert problem["detail"].startswith(detail)
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert problem["instance"] == "/retrieve"


def test_a_missing_field_is_named_with_what_it_takes(client: TestClient) -> None:
    problem = send(client, b'{"item_a": "red-mug", "item_b": "bib"}', "/validity")
    assert problem["detail"] == (
        "relation is missing. Send text of 1 to 512 characters: ID of a relation from GET /relations."
    )


@pytest.mark.parametrize("similarity", ["II", "IT", "AVG"])
def test_a_text_has_no_picture_to_compare(client: TestClient, similarity: str) -> None:
    body = {"text": "mug", "relation": "gardeners", "similarity": similarity}
    problem = send(client, json.dumps(body).encode())
    assert problem["errors"][0]["pointer"] == "#/similarity"
    assert problem["errors"][0]["remedy"] == ("Send similarity TT or TI, add a picture, or omit similarity.")


@pytest.mark.parametrize("path", ["/relation-type", "/validity"])
def test_one_item_twice_is_no_pair(client: TestClient, path: str) -> None:
    body = {"item_a": "bib", "item_b": "bib", "relation": "gardeners"}
    if path == "/relation-type":
        del body["relation"]
    problem = send(client, json.dumps(body).encode(), path)
    assert (problem["status"], problem["errors"][0]["pointer"]) == (422, "#/item_b")


def test_the_relation_of_an_item_with_itself_cannot_be_valid_for_two(client: TestClient) -> None:
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
def test_an_unknown_item_is_a_404_that_names_it(client: TestClient, path: str, body: dict[str, str]) -> None:
    problem = send(client, json.dumps(body).encode(), path)
    assert (problem["status"], problem["type"]) == (404, "urn:rcml:problem:unknown-item")
    assert problem["detail"].startswith("No item has the id 'unicorn'.")


@pytest.mark.parametrize("query", [{"item_id": "bib"}, {"text": "a bib"}])
def test_an_unknown_relation_is_a_404_that_names_it_and_the_known_ones(
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
        (b'{"item_id": ', 400, "The body is not JSON: EOF while parsing a value at line 1 column 12."),
        (
            b'{"item_id": "\xff"}',
            400,
            "The body is not JSON: invalid unicode code point at line 1 column 14.",
        ),
        (
            b"[" * 100_000 + b"]" * 100_000,
            400,
            "The body is not JSON: recursion limit exceeded at line 1 column 202.",
        ),
        (
            b'{"k": ' + b"9" * 5000 + b"}",
            400,
            "The body is not JSON: number out of range at line 1 column 4308.",
        ),
        (
            b'{"k": ' + b"9" * 500 + b"}",
            422,
            "k must be at most 100; a number of more than 80 digits was sent.",
        ),
        (
            b'{"item_id": "\\ud800", "relation": "\\udfff"}',
            400,
            "The body is not JSON: unexpected end of hex escape at line 1 column 20.",
        ),
        (b'{"item_id": "red-mug", "relation": "gardeners", "k": NaN}', 422, "k cannot be NaN."),
        (b'{"item_id": "red-mug", "relation": "gardeners", "k": -Infinity}', 422, "k cannot be -Infinity."),
        (b'{"item_id": "red-mug", "relation": "gardeners", "k": 1e999}', 422, "k cannot be Infinity."),
    ],
)
def test_a_body_that_makes_no_sense_says_why(
    client: TestClient, body: bytes, status: int, detail: str
) -> None:
    problem = send(client, body)
    assert problem["status"] == status
    assert problem["detail"].startswith(detail)


def test_a_long_value_is_not_repeated_in_full(client: TestClient) -> None:
    problem = send(client, json.dumps({**GOOD, "item_id": "x" * 100_000}).encode())
    assert len(json.dumps(problem)) < 1000


def test_a_long_name_is_not_repeated_in_full(client: TestClient) -> None:
    problem = send(client, json.dumps({**GOOD, "x" * 100_000: 1}).encode())
    assert problem["detail"] == f"{'x' * 80}… is not known here. Leave it out, or correct its name."
    assert problem["errors"][0]["pointer"] == "#/" + "x" * 80


def test_what_may_be_of_several_types_is_refused_once(client: TestClient) -> None:
    problem = send(client, json.dumps({**GOOD, "filter": {"price": {"any_of": [None]}}}).encode())
    assert problem["detail"] == (
        "filter.price.any_of.0 cannot be null. Send text or true or false or a number."
    )
    assert [error["pointer"] for error in problem["errors"]] == ["#/filter/price/any_of/0"]


@pytest.mark.parametrize(
    ("item", "similarity", "lacks"),
    [({"text": "mug"}, "II", "picture"), ({"picture": {"url": "https://a/b.png"}}, "TT", "text")],
)
def test_a_pair_is_not_compared_by_what_a_new_item_lacks(
    client: TestClient, item: dict[str, Any], similarity: str, lacks: str
) -> None:
    body = {"item_a": "bib", "item_b": item, "similarity": similarity}
    problem = send(client, json.dumps(body).encode(), "/relation-type")
    assert problem["detail"] == (
        f"similarity {similarity} needs the {lacks} of item_b, but item_b has none. "
        f"Add a {lacks} to item_b, or omit similarity."
    )


def test_a_thousand_wrong_fields_get_a_short_answer(client: TestClient) -> None:
    problem = send(client, json.dumps({str(number): 0 for number in range(1000)}).encode())
    assert len(problem["errors"]) == 20


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "text/json"])
def test_a_body_that_is_not_declared_json_is_a_415_with_the_header_to_send(
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
def test_ten_megabytes_are_refused_with_the_limit_named(client: TestClient, content: Any) -> None:
    problem = problem_of(client.post("/retrieve", content=content, headers=JSON))
    assert problem["status"] == 413
    assert "1048576 bytes" in problem["detail"]


def test_a_body_at_the_limit_is_read(client: TestClient) -> None:
    body = json.dumps(GOOD).encode()
    assert client.post("/retrieve", content=body.ljust(2**20), headers=JSON).status_code == 200
    assert client.post("/retrieve", content=body.ljust(2**20 + 1), headers=JSON).status_code == 413


def test_a_path_that_is_not_there_is_a_404(client: TestClient) -> None:
    problem = problem_of(client.get("/nothing here/é"))
    assert (problem["status"], problem["type"]) == (404, "about:blank")
    assert problem["instance"] == "/nothing%20here/%C3%A9"


def test_a_method_that_a_path_does_not_take_is_a_405_that_says_which_it_takes(client: TestClient) -> None:
    response = client.get("/retrieve")
    assert (problem_of(response)["status"], response.headers["allow"]) == (405, "POST")
    assert client.post("/items/bib").headers["allow"] == "DELETE, GET, PUT"
    assert client.put("/relations").headers["allow"] == "GET, POST"


def test_a_bug_of_ours_is_a_500_that_tells_no_secrets(config: ServeConfig) -> None:
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
def test_no_json_whatever_makes_the_server_fail(client: TestClient, body: object) -> None:
    for path in QUESTIONS:
        response = client.post(path, content=json.dumps(body), headers=JSON)
        assert response.status_code < 500
        if response.status_code >= 400:
            problem_of(response)


def test_an_index_whose_server_is_away_is_a_503_that_tells_no_secrets(
    shop: FakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("indexes.vectors.milvus_collections.REQUEST_TIMEOUT_S", 2.0)
    with server(tmp_path) as milvus:
        config = ServeConfig(index=placed(shop, tmp_path, vectors=milvus.uri))
        with TestClient(create_app(config, lambda *_: FakeEncoder())) as client:
            wait_until_ready(client)
            assert client.post("/retrieve", json=GOOD | {"similarity": "TT"}).status_code == 200
            milvus.stop()
            answer = client.post("/retrieve", json=GOOD | {"similarity": "TT"})
            problem = problem_of(answer)
    assert (problem["status"], answer.headers["retry-after"]) == (503, "1")
    assert problem["detail"] == "A part of the index cannot be reached now. Ask again in a second."
    assert f"Milvus at {milvus.uri} is unavailable" in caplog.text
