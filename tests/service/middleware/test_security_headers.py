"""Security headers of every response, the Content-Security-Policy of the two HTML pages, and CORS."""

import base64
import hashlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.settings import ServeConfig
from tests.indexes.fakes import FakeShop
from tests.service.conftest import served
from tests.service.problems.test_problem_documents import BrokenEncoder

READ = "read-key-read-key"
FRIEND = "https://shop.example"
ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
DATA = "default-src 'none'; frame-ancestors 'none'"


@pytest.fixture(scope="module")
def guarded(shop: FakeShop) -> Iterator[TestClient]:
    config = ServeConfig(index=shop.index, read_keys=(READ,), cors_origins=(FRIEND,))
    with served(config) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "status"),
    [("/items", 200), ("/items/bib/image", 200), ("/nothing", 404), ("/items/x", 404), ("/livez", 200)],
)
def test_a_response_forbids_a_browser_to_load_or_run_anything(
    client: TestClient, path: str, status: int
) -> None:
    response = client.get(path)
    assert response.status_code == status
    assert ALWAYS.items() <= response.headers.items()
    assert response.headers["content-security-policy"] == DATA


def test_a_500_response_has_the_same_headers(config: ServeConfig) -> None:
    with served(config, BrokenEncoder()) as client:
        response = client.post("/retrieve", json={"text": "mug", "relation": "gardeners"})
    assert response.status_code == 500
    assert (ALWAYS | {"content-security-policy": DATA}).items() <= response.headers.items()


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_has_one_policy_and_loads_only_from_this_server(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert ALWAYS.items() <= response.headers.items()
    [policy] = response.headers.get_list("content-security-policy")
    assert "script-src 'self'" in policy
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"https?:|\*|script-src[^;]*unsafe", policy)


def test_the_script_in_the_docs_page_is_allowed_by_its_hash(client: TestClient) -> None:
    response = client.get("/docs")
    [script] = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in response.headers["content-security-policy"]


def test_the_explorer_has_no_inline_script_or_style(
    client: TestClient,
) -> None:
    page = client.get("/").text
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=", page)


def test_shared_caches_store_no_response_to_a_request_with_a_key(guarded: TestClient) -> None:
    key = {"X-API-Key": READ}
    assert guarded.get("/items", headers=key).headers["cache-control"] == "no-store"
    assert guarded.get("/items/bib/image", headers=key).headers["cache-control"] == "private, max-age=3600"
    assert "cache-control" not in guarded.get("/livez").headers


def test_without_keys_any_cache_may_store_a_picture(client: TestClient) -> None:
    assert client.get("/items/bib/image").headers["cache-control"] == "public, max-age=3600"
    assert "cache-control" not in client.get("/items").headers


def preflight(client: TestClient, origin: str) -> Any:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key,content-type",
    }
    return client.options("/retrieve", headers={"Origin": origin, **asked})


def test_no_other_site_is_allowed_by_default(client: TestClient) -> None:
    for response in (preflight(client, FRIEND), client.get("/items", headers={"Origin": FRIEND})):
        assert not any(name.startswith("access-control") for name in response.headers)


def test_a_configured_site_may_send_requests_with_its_key(guarded: TestClient) -> None:
    allowed = preflight(guarded, FRIEND)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, FRIEND)
    answer = guarded.get("/items", headers={"Origin": FRIEND, "X-API-Key": READ})
    assert answer.headers["access-control-allow-origin"] == FRIEND
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


def test_a_configured_site_can_read_an_error_response(guarded: TestClient) -> None:
    refused = guarded.get("/items", headers={"Origin": FRIEND})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, FRIEND)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://shop.example", "https://shop.example.evil", "null"]
)
def test_sites_that_are_not_configured_get_no_access(guarded: TestClient, origin: str) -> None:
    assert preflight(guarded, origin).status_code == 400
    answer = guarded.get("/items", headers={"Origin": origin, "X-API-Key": READ})
    assert "access-control-allow-origin" not in answer.headers
