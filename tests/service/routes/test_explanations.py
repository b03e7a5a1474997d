"""What a relation looks at, over HTTP: as the encoder says, with the cosines of the index."""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from threading import Lock
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from indexes.index import Index
from indexes.journal.journal import Change
from indexes.reader import Reader
from model.embeddings.attention_map import Attention
from model.embeddings.free_text import FreeTextRelation
from model.embeddings.heat_map import heat_map
from model.similarity import Similarity, View
from service.engine.engine import Engine
from service.settings import ServeConfig
from tests.indexes.changes import SAILORS, WORDED, add
from tests.indexes.fakes import ITEMS, RELATIONS, FakeEncoder, FakeShop, write_shop
from tests.service.conftest import served

WORDS = "Bought by people who drink striped tea."


class JealousEncoder(FakeEncoder):
    """Fails when two threads use it at once."""

    def __init__(self) -> None:
        self.lock = Lock()

    def explain(
        self, text: str | None, picture: Image.Image | None, relation: str | FreeTextRelation
    ) -> Attention:
        assert self.lock.acquire(blocking=False), "two threads use it at once"
        try:
            return super().explain(text, picture, relation)
        finally:
            self.lock.release()


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    shop = write_shop(tmp_path_factory.mktemp("worded"), token_store=True)
    index = Index.open(shop.index)
    add(index)
    index.close()
    return shop


@pytest.fixture(scope="module")
def asked(worded: FakeShop) -> Iterator[TestClient]:
    with served(ServeConfig(index=worded.index), JealousEncoder()) as client:
        client.put("/items/words", json={"title": "Words alone"})
        client.put("/items/new", json={"title": "New one", "picture": picture("red")})
        yield client


def picture(colour: str, size: tuple[int, int] = (8, 8)) -> dict[str, str]:
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return {"base64": b64encode(file.getvalue()).decode()}


def explain(client: TestClient, **question: object) -> Any:
    response = client.post("/explain", json=question)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize(
    ("relation", "seen"),
    [
        ("gardeners", "gardeners"),
        ("sailors", WORDED[SAILORS.relation_id]),
        ({"description": WORDS}, FakeEncoder().read_relation(WORDS)),
    ],
)
def test_words_and_patches_are_weighed_as_the_encoder_weighs_them(
    asked: TestClient, relation: object, seen: str | FreeTextRelation
) -> None:
    answer = explain(asked, item_a="bib", item_b="cot", relation=relation)
    for side, row in (("item_a", 11), ("item_b", 7)):
        expected = FakeEncoder().explain(ITEMS[row].text, Image.new("RGB", (8, 8)), seen)
        assert expected.text is not None
        text = answer[side]["text"]
        assert text["text"] == ITEMS[row].text
        assert [(one["text"], one["start"], one["end"]) for one in text["words"]] == [
            (word.text, word.start, word.end) for word in expected.text.words
        ]
        assert [one["weight"] for one in text["words"]] == pytest.approx(
            [word.weight for word in expected.text.words], abs=1e-3
        )
        assert sum(one["weight"] for one in text["words"]) + text["summary"] == pytest.approx(1)
        assert answer[side]["image"] == {
            **{"grid": [[1.0]], "summary": 0.0},
            **{"left": 0.0, "top": 0.0, "right": 1.0, "bottom": 1.0},
        }
        assert answer[side]["item"]["item_id"] == ITEMS[row].item_id


@pytest.mark.parametrize("relation", [one.relation_id for one in RELATIONS])
def test_the_cosines_are_those_of_the_index(asked: TestClient, worded: FakeShop, relation: str) -> None:
    answer = explain(asked, item_a="bib", item_b="cot", relation=relation)
    expected = {one.value: worded.cosine("bib", "cot", relation, one) for one in Similarity}
    assert answer["cosines"] == pytest.approx(expected, abs=1e-5)
    assert answer["score"] == answer["cosines"]["AVG"]
    assert answer["similarity"] == "AVG"


def test_what_one_of_the_two_lacks_is_not_compared(asked: TestClient) -> None:
    answer = explain(asked, item_a="words", item_b={"text": "A mug"}, relation="gardeners")
    assert (answer["item_a"]["image"], answer["item_b"]["image"]) == (None, None)
    assert {name for name, cosine in answer["cosines"].items() if cosine is None} == {"II", "TI", "IT"}
    assert (answer["similarity"], answer["score"]) == ("TT", answer["cosines"]["TT"])
    pictured = explain(asked, item_a={"picture": picture("red")}, item_b="cot", relation="gardeners")
    assert pictured["item_a"]["text"] is None
    assert pictured["item_a"]["item"] == {"text": None, "picture": True}
    assert (pictured["similarity"], pictured["cosines"]["TT"]) == ("II", None)
    assert pictured["score"] == pictured["cosines"]["II"]


def test_the_score_is_that_of_retrieve(asked: TestClient) -> None:
    new = {"text": "Green striped cot", "picture": picture("green")}
    score = explain(asked, item_a=new, item_b="cot", relation="gardeners")["score"]
    body = {**new, "relation": "gardeners", "include": ["cot"], "k": 1}
    [found] = asked.post("/retrieve", json=body).json()["results"]
    assert score == pytest.approx(found["score"], abs=1e-5)


def test_a_picture_put_in_since_is_looked_at_too(asked: TestClient) -> None:
    assert explain(asked, item_a="new", item_b="cot", relation="gardeners")["item_a"]["image"] is not None


def test_a_heat_map_is_that_of_the_picture_and_the_weights(asked: TestClient, worded: FakeShop) -> None:
    response = asked.post("/explain/heat-map", json={"item": "cot", "relation": "gardeners"})
    assert response.headers["content-type"] == "image/png"
    with Image.open(worded.prepared / ITEMS[7].picture) as shown:
        attention = FakeEncoder().explain(None, shown, "gardeners")
        assert attention.image is not None
        assert response.content == heat_map(shown, attention.image)


def test_a_heat_map_of_a_new_item_has_the_shape_of_its_picture(asked: TestClient) -> None:
    item = {"picture": picture("green", (640, 320))}
    for relation in ("gardeners", {"description": WORDS}, "sailors"):
        response = asked.post("/explain/heat-map", json={"item": item, "relation": relation})
        assert Image.open(BytesIO(response.content)).size == (512, 256)


@pytest.mark.parametrize("item", ["words", {"text": "A mug"}])
def test_an_item_of_words_alone_has_no_heat_map(asked: TestClient, item: object) -> None:
    response = asked.post("/explain/heat-map", json={"item": item, "relation": "gardeners"})
    assert response.status_code == 404
    assert response.json()["type"] == "urn:rcml:problem:no-picture"
    assert response.json()["detail"].endswith("POST /explain tells what is looked at in those.")


@pytest.mark.parametrize(
    ("path", "change", "status", "said"),
    [
        ("/explain", {"item_a": "unicorn"}, 404, "No item has the id 'unicorn'."),
        ("/explain", {"relation": "sailing"}, 404, "No relation has the id 'sailing'."),
        ("/explain", {"item_b": "bib"}, 422, "item_b is the same item as item_a"),
        ("/explain", {"item_b": 7}, 422, "item_b cannot be 7."),
        ("/explain", {"item_a": {"picture": {"base64": "Zm9v"}}}, 422, "The picture cannot be decoded"),
        ("/explain/heat-map", {"item": "unicorn"}, 404, "No item has the id 'unicorn'."),
        ("/explain/heat-map", {"relation": "sailing"}, 404, "No relation has the id 'sailing'."),
        ("/explain/heat-map", {"item": 7}, 422, "item cannot be 7."),
    ],
)
def test_what_is_refused_is_named(
    asked: TestClient, path: str, change: dict[str, object], status: int, said: str
) -> None:
    pair = {"item_a": "bib", "item_b": "cot"} if path == "/explain" else {"item": "bib"}
    response = asked.post(path, json={**pair, "relation": "gardeners", **change})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"].startswith(said)


def test_an_index_without_tokens_says_how_to_get_them(client: TestClient) -> None:
    body = {"item_a": "bib", "item_b": "cot", "relation": {"description": WORDS}}
    assert client.post("/explain", json=body).json()["type"] == "urn:rcml:problem:no-tokens"


def test_what_the_attention_is_on_is_said_to_be_the_summary_mostly(asked: TestClient) -> None:
    described = asked.get("/openapi.json").json()
    for path in ("/explain", "/explain/heat-map"):
        assert "summary token" in described["paths"][path]["post"]["description"]


def test_an_item_of_words_and_a_picture_are_compared_by_what_they_have(asked: TestClient) -> None:
    pair = {"item_a": "words", "item_b": {"picture": picture("red")}}
    ranked = asked.post("/relation-type", json=pair)
    assert (ranked.status_code, ranked.json()["similarity"]) == (200, "TI")
    explained = explain(asked, **pair, relation="gardeners")
    assert explained["similarity"] == "TI"
    assert explained["score"] == explained["cosines"]["TI"]


def test_an_item_that_is_changed_meanwhile_is_explained_as_of_one_version(
    asked: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked.put("/items/changing", json={"title": "As it was"})
    look = Engine.picture
    changes: list[str] = []

    def look_and_change(self: Engine, reader: Reader, item_id: str) -> Image.Image | None:
        found = look(self, reader, item_id)
        if not changes:
            changes.append(item_id)
            now = replace(self.index.snapshot.get("changing"), title="As it is", text="As it is")
            encoding = FakeEncoder().read_items([now.text], [None], tokens=True)()
            vectors = np.stack([encoding.view(view)[0] for view in View]).astype(np.float16)
            self.index.apply([Change.put(now, vectors, b"", encoding.tokens)])
        return found

    monkeypatch.setattr(Engine, "picture", look_and_change)
    answer = explain(asked, item_a="changing", item_b="bib", relation="gardeners")
    assert changes
    assert answer["item_a"]["item"]["title"] == answer["item_a"]["text"]["text"] == "As it was"
