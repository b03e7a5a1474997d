"""Item changes over HTTP: an acknowledged change is durable and immediately visible; an invalid one has no effect."""

import json
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from indexes.index import Index
from model.data.item_input import decoded
from model.errors import FetchError, StorageError
from model.similarity import View
from service.app import create_app
from service.settings import ServeConfig
from tests.indexes.fakes import FakeEncoder, FakeShop, write_shop
from tests.service.conftest import served, wait_until_ready

LAMP = {"title": "Red silk lamp", "categories": ["Office"], "attributes": {"price": 8.5, "sale": True}}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    return write_shop(tmp_path_factory.mktemp("changed"), token_store=True)


@pytest.fixture(scope="module")
def changing(own: FakeShop) -> Iterator[TestClient]:
    with served(ServeConfig(index=own.index)) as client:
        yield client


def picture(colour: str, format: str = "PNG", size: tuple[int, int] = (8, 8), **options: Any) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, format, **options)
    return file.getvalue()


def in_base64(content: bytes) -> dict[str, str]:
    return {"base64": b64encode(content).decode()}


def catalogue(client: TestClient) -> list[str]:
    return [item["item_id"] for item in client.get("/items?limit=100").json()["items"]]


@pytest.mark.parametrize("item_id", ["lamp", "a/new lamp?", "lampe-ü"])
def test_created_item_is_returned_and_found_until_deleted(changing: TestClient, item_id: str) -> None:
    path = f"/items/{item_id.replace('?', '%3F')}"
    answer = changing.put(path, json=LAMP)
    assert answer.status_code == 201
    assert answer.json()["created"] is True
    assert answer.json()["item"] == {"item_id": item_id, "description": "", "image_url": None, **LAMP}
    assert changing.get(path).json() == answer.json()["item"]
    asked = {"text": "Red silk lamp. Office", "relation": "gardeners", "k": 1}
    found = changing.post("/retrieve", json=asked).json()
    assert found["results"][0]["item"]["item_id"] == item_id
    assert found["version"] == answer.json()["version"]
    assert changing.put(path, json=LAMP).status_code == 200
    assert changing.delete(path).status_code == 204
    assert changing.get(path).status_code == 404
    assert changing.post("/retrieve", json=asked).json()["results"][0]["item"]["item_id"] != item_id


@pytest.mark.parametrize("item_id", ["raced", "raced/too"])
def test_exactly_one_of_16_concurrent_requests_creates_an_item(changing: TestClient, item_id: str) -> None:
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda _: changing.put(f"/items/{item_id}", json=LAMP), range(16)))
    assert sorted(answer.status_code for answer in answers) == [*[200] * 15, 201]
    assert [answer.json()["created"] for answer in answers].count(True) == 1
    changing.delete(f"/items/{item_id}")


def test_exactly_one_of_8_concurrent_uploads_creates_each_item(changing: TestClient) -> None:
    ids = [f"bulk-{n}" for n in range(20)]
    body = "\n".join(json.dumps({"upsert": {"item_id": item_id, **LAMP}}) for item_id in ids)
    headers = {"Content-Type": "application/x-ndjson"}
    with ThreadPoolExecutor(8) as clients:
        answers = list(
            clients.map(
                lambda _: changing.post("/items/bulk", content=body, headers=headers).text.splitlines(),
                range(8),
            )
        )
    for number, item_id in enumerate(ids):
        replies = [json.loads(lines[number]) for lines in answers]
        assert {reply["item_id"] for reply in replies} == {item_id}
        assert sorted(reply["status"] for reply in replies) == [*[200] * 7, 201]
        changing.delete(f"/items/{item_id}")


def test_deleting_a_missing_item_succeeds(changing: TestClient) -> None:
    before = catalogue(changing)
    for _ in range(2):
        response = changing.delete("/items/unicorn")
        assert (response.status_code, response.content) == (204, b"")
    assert catalogue(changing) == before


def test_upsert_replaces_the_whole_item(changing: TestClient) -> None:
    changing.put("/items/whole", json={**LAMP, "description": "Glows.", "picture": in_base64(picture("red"))})
    answer = changing.put("/items/whole", json={"title": " Bare bulb "}).json()
    assert answer["created"] is False
    assert answer["item"] == {
        "item_id": "whole",
        "title": "Bare bulb",
        "description": "",
        "categories": [],
        "attributes": {},
        "image_url": None,
    }
    assert changing.get("/items/whole/image").status_code == 404
    changing.delete("/items/whole")


def test_vectors_and_tokens_come_from_the_stored_text_and_picture(
    changing: TestClient, own: FakeShop
) -> None:
    sent = {**LAMP, "description": "Glows.", "picture": in_base64(picture("navy", "JPEG"))}
    changing.put("/items/seen", json=sent)
    index = Index.open(own.index)
    snapshot = index.snapshot
    row = snapshot.row("seen")
    kept = changing.get("/items/seen/image").content
    assert snapshot.get("seen").text == "Red silk lamp.\nOffice"
    encoding = FakeEncoder().read_items(["Red silk lamp.\nOffice"], [decoded(kept)], tokens=True)()
    for view in View:
        for relation in range(len(index.relations)):
            expected = encoding.view(view)[0, relation].astype(np.float16).astype(np.float32)
            assert snapshot.vectors(relation, view, [row])[0].tolist() == expected.tolist()
    assert encoding.tokens is not None
    assert snapshot.tokens([row]).text.states.tolist() == encoding.tokens.text.states.tolist()
    assert snapshot.tokens([row]).image.states.tolist() == encoding.tokens.image.states.tolist()
    index.close()
    changing.delete("/items/seen")


def test_scales_and_reencodes_an_uploaded_picture_without_its_metadata(changing: TestClient) -> None:
    exif = Image.Exif()
    exif[270] = "secret place"
    sent = picture("green", "JPEG", (1_000, 500), exif=exif, comment=b"secret name")
    assert b"secret" in sent
    changing.put("/items/scaled", json={**LAMP, "picture": in_base64(sent)})
    kept = changing.get("/items/scaled/image")
    assert kept.headers["content-type"] == "image/jpeg"
    assert b"secret" not in kept.content
    assert Image.open(BytesIO(kept.content)).size == (64, 32)
    changing.delete("/items/scaled")


def test_stores_a_lossless_picture_losslessly(changing: TestClient) -> None:
    changing.put("/items/lossless", json={**LAMP, "picture": in_base64(picture("#123456"))})
    kept = changing.get("/items/lossless/image")
    assert kept.headers["content-type"] == "image/png"
    assert Image.open(BytesIO(kept.content)).getpixel((0, 0)) == (0x12, 0x34, 0x56)
    changing.delete("/items/lossless")


def test_accepts_a_picture_uploaded_as_a_file(changing: TestClient) -> None:
    answer = changing.put(
        "/items/uploaded", data={"item": json.dumps(LAMP)}, files={"picture": ("x.png", picture("red"))}
    )
    assert answer.status_code == 201
    assert Image.open(BytesIO(changing.get("/items/uploaded/image").content)).getpixel((0, 0)) == (255, 0, 0)
    changing.delete("/items/uploaded")


def test_rejects_an_upload_without_the_item_part(changing: TestClient) -> None:
    answer = changing.put(
        "/items/u", data={"question": json.dumps(LAMP)}, files={"picture": ("x.png", picture("red"))}
    )
    assert answer.status_code == 400
    assert answer.json()["detail"] == (
        "A multipart body must have two parts: item (JSON) and picture (a file). Send both."
    )


class OneShop:
    """Picture fetcher that serves a single picture."""

    async def fetch(self, url: str) -> bytes:
        if url != "https://shop.example/red.png":
            raise FetchError(f"The picture at {url} could not be fetched. Send another.")
        return picture("red")


def test_fetches_a_picture_from_its_url(changing: TestClient) -> None:
    changing.app_state["fetcher"] = OneShop()
    path = "/items/fetched"
    refused = changing.put(path, json={**LAMP, "picture": {"url": "https://shop.example/blue.png"}})
    assert (refused.status_code, refused.json()["title"]) == (422, "Picture not fetched")
    assert changing.get(path).status_code == 404
    assert changing.put(path, json={**LAMP, "picture": {"url": "https://shop.example/red.png"}}).is_success
    assert changing.get(f"{path}/image").is_success
    changing.delete(path)


@pytest.mark.parametrize(
    ("change", "pointer", "said"),
    [
        ({"title": ""}, "#/title", "Item 'x' has no text in the fields that the model reads: title"),
        ({"title": 7}, "#/title", "title cannot be 7."),
        (
            {"title": "  "},
            "#/title",
            "Item 'x' has no text in the fields that the model reads: title, categories.",
        ),
        ({"item_id": "x"}, "#/item_id", "item_id is not a known field."),
        ({"categories": "Office"}, "#/categories", 'categories cannot be "Office".'),
        ({"categories": [""]}, "#/categories/0", "categories.0 must have 1 or more characters"),
        ({"picture": {}}, "#/picture", "A picture needs exactly one of base64 and url"),
        ({"attributes": {"image": "x"}}, "#/attributes", "An attribute cannot have the name 'image'."),
        ({"attributes": {"a": 2**63}}, "#/attributes/a", "An attribute cannot have this value."),
        ({"attributes": {"a": "x" * 2001}}, "#/attributes/a", "An attribute cannot have this value."),
    ],
)
def test_invalid_item_is_rejected_and_changes_nothing(
    changing: TestClient, change: dict[str, Any], pointer: str, said: str
) -> None:
    before = catalogue(changing)
    response = changing.put("/items/x", json={"title": "A lamp", **change})
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == pointer
    assert response.json()["detail"].startswith(said)
    assert catalogue(changing) == before


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400"])
def test_rejects_a_number_that_is_not_finite(changing: TestClient, number: str) -> None:
    body = f'{{"title": "x", "attributes": {{"price": {number}}}}}'
    response = changing.put("/items/x", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert changing.get("/items/x").status_code == 404


@pytest.mark.parametrize("sent", [b"GIF89a", picture("red")[:60], b"", picture("red", "GIF")])
def test_broken_picture_leaves_the_item_unchanged(changing: TestClient, sent: bytes) -> None:
    before = changing.get("/items/cot").json()
    response = changing.put("/items/cot", json={**LAMP, "picture": in_base64(sent)})
    assert response.status_code == 422
    assert changing.get("/items/cot").json() == before


@pytest.mark.parametrize("item_id", ["tab%09tab", "x" * 513])
def test_rejects_an_invalid_item_id(changing: TestClient, item_id: str) -> None:
    problem = changing.put(f"/items/{item_id}", json=LAMP)
    assert problem.status_code == 422
    assert problem.json()["errors"][0]["parameter"] == "item_id"


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_does_not_acknowledge_a_change_that_cannot_be_stored(
    changing: TestClient, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def full(*_: object) -> None:
        raise StorageError("/secret/path: no space left on device.")

    before = changing.get("/items/cot").json()
    with monkeypatch.context() as patch:
        patch.setattr(Index, "apply", full)
        response = changing.request(method, "/items/cot", json=LAMP)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert "secret" not in response.text
    assert changing.get("/items/cot").json() == before


def test_acknowledged_change_survives_a_restart(tmp_path: Path) -> None:
    shop = write_shop(tmp_path)
    for title in ("Red lamp", "Blue lamp"):
        app = create_app(ServeConfig(index=shop.index), lambda *_: FakeEncoder())
        with TestClient(app) as client:
            wait_until_ready(client)
            client.put("/items/lamp", json={"title": title, "picture": in_base64(picture("red"))})
            client.delete("/items/bib")
        index = Index.open(shop.index)
        assert index.snapshot.get("lamp").title == title
        assert "bib" not in index.snapshot
        index.close()


def test_documented_examples_of_changes_succeed(changing: TestClient) -> None:
    paths = changing.get("/openapi.json").json()["paths"]
    described = paths["/items/{item_id}"]
    [parameter] = described["put"]["parameters"]
    [example] = described["put"]["requestBody"]["content"]["application/json"]["examples"].values()
    path = f"/items/{parameter['example']}"
    assert changing.put(path, json=example["value"]).status_code == 201
    [parameter] = described["delete"]["parameters"]
    assert changing.delete(f"/items/{parameter['example']}").status_code == 204
    [(kind, content)] = paths["/items/bulk"]["post"]["requestBody"]["content"].items()
    answer = changing.post("/items/bulk", content=content["example"], headers={"Content-Type": kind})
    assert [json.loads(line)["status"] for line in answer.text.splitlines()] == [204, 204]
