"""Behind a proxy with a path prefix, every address that the server gives out begins with the prefix."""

from collections.abc import Iterator

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from service.http.limits import BodyLimits, without_prefix
from service.settings import ServeConfig
from tests.indexes.fakes import FakeShop
from tests.service.conftest import served

PICTURE = "/search/items/twin-1/image"


@pytest.fixture(scope="module")
def behind(shop: FakeShop) -> Iterator[TestClient]:
    with served(ServeConfig(index=shop.index, root_path="/search/")) as client:
        yield client


@pytest.mark.parametrize("kept", ["", "/search"], ids=["proxy removes the prefix", "proxy keeps the prefix"])
def test_addresses_begin_with_the_prefix(behind: TestClient, kept: str) -> None:
    assert behind.get(f"{kept}/items/twin-1").json()["image_url"] == PICTURE
    listed = behind.get(f"{kept}/items?limit=100").json()["items"]
    assert PICTURE in [item["image_url"] for item in listed]
    found = behind.post(
        f"{kept}/retrieve", json={"item_id": "twin-2", "relation": "same-item", "k": 1}
    ).json()
    assert found["results"][0]["item"]["image_url"] == PICTURE
    claim = {"item_a": "twin-1", "item_b": "twin-2"}
    assert behind.post(f"{kept}/relation-type", json=claim).json()["item_a"]["image_url"] == PICTURE
    assert behind.get(PICTURE.removeprefix("/search" if not kept else "")).status_code == 200
    assert behind.get(f"{kept}/openapi.json").json()["servers"] == [{"url": "/search"}]
    redirect = behind.post(f"{kept}/retrieve/", json={}, follow_redirects=False)
    assert (redirect.status_code, redirect.headers["location"]) == (307, "http://testserver/search/retrieve")


def test_addresses_without_a_prefix_are_unchanged(client: TestClient) -> None:
    assert client.get("/items/twin-1").json()["image_url"] == "/items/twin-1/image"
    assert "servers" not in client.get("/openapi.json").json()


@pytest.mark.parametrize(
    ("path", "rest"),
    [("/search/items", "/items"), ("/search", "/"), ("/items", "/items"), ("/searching", "/searching")],
)
def test_prefix_is_removed_only_as_whole_steps(path: str, rest: str) -> None:
    assert without_prefix(path, "/search") == rest


def test_limit_of_a_bulk_upload_holds_below_the_prefix() -> None:
    limits = BodyLimits(10, 20, 30, "/search")
    assert limits.longest("POST", "/search/items/bulk", "application/x-ndjson") == 30
    assert limits.longest("POST", "/items/bulk", "application/x-ndjson") == 30
    assert limits.longest("POST", "/search/retrieve", "application/json") == 10


@pytest.mark.parametrize("given", ["search", "https://shop.example/search", "/a?b", "/a b", "//host"])
def test_anything_but_a_path_is_refused(given: str) -> None:
    with pytest.raises(ValidationError, match="is not a path prefix"):
        ServeConfig.model_validate({"index": "index", "root_path": given})
