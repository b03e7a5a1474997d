"""HEAD is answered like GET, without content."""

import pytest
from starlette.testclient import TestClient

from service.http.route_rules import ROUTE_RULES, methods_of

PATHS = [
    "/",
    "/docs",
    "/livez",
    "/readyz",
    "/info",
    "/items",
    "/items/lamp",
    "/items/twin-1",
    "/items/twin-1/image",
]
VARYING = {"x-request-id", "date"}


@pytest.mark.parametrize("path", [*PATHS, "/metrics", "/relations", "/openapi.json", "/no/such/route"])
def test_head_has_the_status_and_headers_of_get_without_content(client: TestClient, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    varying = VARYING | ({"content-length"} if path in ("/metrics", "/info") else set())
    assert {name: value for name, value in head.headers.items() if name not in varying} == {
        name: value for name, value in get.headers.items() if name not in varying
    }


@pytest.mark.parametrize("template", sorted(path for method, path in ROUTE_RULES if method == "GET"))
def test_every_route_with_get_answers_head(client: TestClient, template: str) -> None:
    names = {"{item_id}": "twin-1", "{relation_id}": "same-item", "{path}": "explorer/explorer.css"}
    path = template
    for parameter, value in names.items():
        path = path.replace(parameter, value)
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.status_code == (404 if template == "/admin/shadow" else 200)
    assert "HEAD" in methods_of(path)


def test_head_of_a_static_file_has_its_length(client: TestClient) -> None:
    path = "/static/explorer/explorer.js"
    assert client.head(path).headers["content-length"] == str(len(client.get(path).content))


def test_head_of_a_route_that_only_takes_post_is_refused(client: TestClient) -> None:
    answer = client.head("/retrieve")
    assert (answer.status_code, answer.headers["allow"], answer.content) == (405, "POST", b"")


def test_allowed_methods_name_head_beside_get() -> None:
    assert methods_of("/items/mug") == ["DELETE", "GET", "HEAD", "PUT"]
    assert methods_of("/retrieve") == ["POST"]


def test_head_is_counted_by_its_own_name(client: TestClient) -> None:
    client.head("/livez")
    assert 'rcml_requests_total{method="HEAD",route="/livez",status="200"}' in client.get("/metrics").text
