"""Endpoints that read the catalogue."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from indexes.builder.build import build
from indexes.config import BuildConfig
from indexes.storage import catalogue
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from service.settings import ServeConfig
from tests.indexes.fakes import (
    ITEMS,
    FakeEncoder,
    FakeShop,
    ids,
    write_checkpoint,
    write_prepared,
)
from tests.service.conftest import served


def test_cursor_pages_through_the_whole_catalogue(client: TestClient) -> None:
    found, cursor = [], 0
    while cursor is not None:
        page = client.get("/items", params={"limit": 5, "cursor": cursor}).json()
        found += [item["item_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        assert page["total"] == len(ITEMS)
    assert found == ids()


@pytest.mark.parametrize("cursor", [12, 10**9])
def test_cursor_beyond_the_end_returns_an_empty_page(client: TestClient, cursor: int) -> None:
    page = client.get("/items", params={"cursor": cursor}).json()
    assert (page["items"], page["next_cursor"]) == ([], None)


@pytest.mark.parametrize("row", range(len(ITEMS)))
def test_returns_every_item_despite_special_characters_in_its_id(
    client: TestClient, shop: FakeShop, row: int
) -> None:
    summary = client.get("/items", params={"limit": 1, "cursor": row}).json()["items"][0]
    detail = client.get(summary["image_url"].removesuffix("/image"))
    picture = client.get(summary["image_url"])
    assert detail.json() == {
        **summary,
        "description": ITEMS[row].description,
        "attributes": ITEMS[row].attributes,
    }
    assert picture.content == (shop.generation / ITEMS[row].picture).read_bytes()


def test_picture_has_its_media_type_and_is_cacheable(client: TestClient) -> None:
    response = client.get("/items/red-mug/image")
    assert response.headers["content-type"] == "image/png"
    assert response.headers["cache-control"] == "public, max-age=3600"
    assert Image.open(BytesIO(response.content)).size == (8, 8)


def test_does_not_resend_a_cached_picture(client: TestClient) -> None:
    tag = client.get("/items/red-mug/image").headers["etag"]
    again = client.get("/items/red-mug/image", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/items/unicorn", "/items/unicorn/image"])
def test_returns_404_that_names_an_unknown_item(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert response.json()["type"] == "urn:rcml:problem:unknown-item"
    assert "'unicorn'" in response.json()["detail"]


def test_rejection_of_a_limit_names_the_parameter_and_the_range(client: TestClient) -> None:
    problem = client.get("/items", params={"limit": 101}).json()
    assert problem["errors"] == [
        {
            "parameter": "limit",
            "value": '"101"',
            "message": 'limit must be at most 100; "101" was sent.',
            "remedy": "Send a whole number from 1 to 100.",
        }
    ]


def test_text_only_item_has_no_picture(tmp_path: Path) -> None:
    words_alone = replace(ITEMS[0], picture="")
    write_prepared(tmp_path / "prepared", [words_alone, *ITEMS[1:]])
    write_checkpoint(tmp_path / "checkpoint")
    config = BuildConfig(
        checkpoint=tmp_path / "checkpoint", prepared=tmp_path / "prepared", out=tmp_path / "index"
    )
    build(config, FakeEncoder(), Checkpoint.open(config.checkpoint), Prepared.open(config.prepared))
    with served(ServeConfig(index=config.out)) as client:
        assert client.get("/items/red-mug").json()["image_url"] is None
        assert client.get("/items?limit=1").json()["items"][0]["image_url"] is None
        refused = [
            client.get("/items/red-mug/image"),
            client.post(
                "/retrieve", json={"item_id": "red-mug", "relation": "gardeners", "similarity": "II"}
            ),
        ]
        for response in refused:
            assert response.status_code == 404
            assert response.json()["type"] == "urn:rcml:problem:no-picture"
            assert "Use similarity TT, TI or AVG" in response.json()["detail"]
        answer = client.post("/retrieve", json={"item_id": "red-mug", "relation": "gardeners", "k": 3})
        assert len(answer.json()["results"]) == 3


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"words": "striped"}, ["red-mug", "blue-mug", "bib"]),
        ({"words": "STRIPED m", "limit": 1}, ["red-mug"]),
        ({"category": "Tools"}, ["twin-1", "twin-2", "twin-3", "trowel"]),
        ({"category": "Tools", "words": "green", "cursor": 3}, ["twin-2", "twin-3"]),
        ({"words": ""}, []),
    ],
)
def test_lists_items_by_words_and_category(
    client: TestClient, asked: dict[str, str | int], expected: list[str]
) -> None:
    page = client.get("/items", params=asked).json()
    assert [item["item_id"] for item in page["items"]] == expected
    assert page["total"] == len(ITEMS)
    assert (page["next_cursor"] is not None) == (asked.get("limit") == 1)


@pytest.mark.parametrize(
    ("query", "parameter", "times"),
    [
        ("words=a&words=b", "words", 2),
        ("limit=1&cursor=2&limit=2&limit=3", "limit", 3),
        ("category=&category=", "category", 2),
    ],
)
def test_repeated_parameter_is_rejected(client: TestClient, query: str, parameter: str, times: int) -> None:
    refused = client.get(f"/items?{query}")
    assert refused.status_code == 422
    assert refused.json()["detail"] == f"{parameter} was sent {times} times. Send {parameter} once."
    assert refused.json()["errors"][0]["parameter"] == parameter


def test_repeated_parameter_that_the_route_does_not_have_is_ignored_like_a_single_one(
    client: TestClient,
) -> None:
    assert client.get("/items?colour=red&colour=blue&limit=1").status_code == 200
    assert client.get("/categories?limit=1&limit=1").status_code == 422


def test_lists_categories_with_their_numbers_of_items(client: TestClient) -> None:
    listed = client.get("/categories", params={"limit": 2}).json()
    assert listed == {
        "categories": [{"category": "Garden", "items": 4}, {"category": "Tools", "items": 4}],
        "total": 7,
    }


def test_index_of_an_earlier_version_is_not_searched_by_words(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "has_word_index", lambda _: False)
    refused = client.get("/items", params={"words": "mug"})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:rcml:problem:no-word-index")
    assert "compact the index after a change" in refused.json()["detail"]
    assert len(client.get("/items", params={"category": "Kitchen"}).json()["items"]) == 3
