"""Ranges: a valid one is answered with 206, an unsatisfiable one with a problem, and an invalid one is ignored."""

import pytest
from starlette.testclient import TestClient

from service.middleware.ranges import MAX_RANGES, is_valid

SCRIPT = "/static/explorer/explorer.js"
PICTURE = "/items/twin-1/image"


@pytest.mark.parametrize("path", [SCRIPT, PICTURE, "/"])
def test_a_range_behind_the_end_is_answered_with_a_problem(client: TestClient, path: str) -> None:
    answer = client.get(path, headers={"Range": "bytes=99999999-"})
    assert answer.status_code == 416
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["content-range"] == f"bytes */{len(client.get(path).content)}"
    assert answer.json()["instance"] == path
    assert "bytes=99999999-" in answer.json()["detail"]


@pytest.mark.parametrize("path", [SCRIPT, PICTURE])
def test_a_valid_range_is_answered_with_its_bytes(client: TestClient, path: str) -> None:
    answer = client.get(path, headers={"Range": "bytes=2-5"})
    assert (answer.status_code, answer.content) == (206, client.get(path).content[2:6])


@pytest.mark.parametrize(
    "value",
    [
        "bytes=a-b",
        "bytes=5-2",
        "items=0-1",
        "bytes=",
        "bytes",
        "bytes=-",
        "bytes=0-1," * 50,
        "bytes=٣-٤",
    ],
)
@pytest.mark.parametrize("path", [SCRIPT, PICTURE])
def test_an_invalid_range_is_ignored(client: TestClient, path: str, value: str) -> None:
    answer = client.get(path, headers={b"Range": value.encode()})
    assert (answer.status_code, answer.content) == (200, client.get(path).content)


def test_a_range_of_head_is_ignored(client: TestClient) -> None:
    answer = client.head(SCRIPT, headers={"Range": "bytes=99999999-"})
    assert answer.status_code == 200


def test_the_number_of_ranges_is_limited() -> None:
    assert is_valid(b"bytes=" + b",".join([b"0-0"] * MAX_RANGES))
    assert not is_valid(b"bytes=" + b",".join([b"0-0"] * (MAX_RANGES + 1)))
