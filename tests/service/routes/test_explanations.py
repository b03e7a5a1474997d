"""`POST /explain` and its heat maps, compared with the attention of the encoder and the cosines of the index."""

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
from indexes.journal.change import Change
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
    """Fake encoder that fails if two threads use it at once."""

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
        client.put("/items/words", json={"title": "Text only"})
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
def test_word_and_patch_weights_equal_those_of_the_encoder(
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
def test_cosines_equal_those_of_the_index(asked: TestClient, worded: FakeShop, relation: str) -> None:
    answer = explain(asked, item_a="bib", item_b="cot", relation=relation)
    expected = {one.value: worded.cosine("bib", "cot", relation, one) for one in Similarity}
    assert answer["cosines"] == pytest.approx(expected, abs=1e-5)
    assert answer["score"] == answer["cosines"]["AVG"]
    assert answer["similarity"] == "AVG"


def test_compares_no_view_that_an_item_lacks(asked: TestClient) -> None:
    answer = explain(asked, item_a="words", item_b={"text": "A mug"}, relation="gardeners")
    assert (answer["item_a"]["image"], answer["item_b"]["image"]) == (None, None)
    assert {name for name, cosine in answer["cosines"].items() if cosine is None} == {"II", "TI", "IT"}
    assert (answer["similarity"], answer["score"]) == ("TT", answer["cosines"]["TT"])
    pictured = explain(asked, item_a={"picture": picture("red")}, item_b="cot", relation="gardeners")
    assert pictured["item_a"]["text"] is None
    assert pictured["item_a"]["item"] == {"text": None, "picture": True}
    assert (pictured["similarity"], pictured["cosines"]["TT"]) == ("II", None)
    assert pictured["score"] == pictured["cosines"]["II"]


def test_score_equals_the_retrieve_score(asked: TestClient) -> None:
    new = {"text": "Green striped cot", "picture": picture("green")}
    score = explain(asked, item_a=new, item_b="cot", relation="gardeners")["score"]
    body = {**new, "relation": "gardeners", "include": ["cot"], "k": 1}
    [found] = asked.post("/retrieve", json=body).json()["results"]
    assert score == pytest.approx(found["score"], abs=1e-5)


def test_explains_the_picture_of_an_item_added_at_run_time(asked: TestClient) -> None:
    assert explain(asked, item_a="new", item_b="cot", relation="gardeners")["item_a"]["image"] is not None


def test_heat_map_is_rendered_from_the_picture_and_its_weights(asked: TestClient, worded: FakeShop) -> None:
    response = asked.post("/explain/heat-map", json={"item": "cot", "relation": "gardeners"})
    assert response.headers["content-type"] == "image/png"
    with Image.open(worded.prepared / ITEMS[7].picture) as shown:
        attention = FakeEncoder().explain(None, shown, "gardeners")
        assert attention.image is not None
        assert response.content == heat_map(shown, attention.image)


def test_heat_map_of_new_item_keeps_the_aspect_ratio_of_its_picture(asked: TestClient) -> None:
    item = {"picture": picture("green", (640, 320))}
    for relation in ("gardeners", {"description": WORDS}, "sailors"):
        response = asked.post("/explain/heat-map", json={"item": item, "relation": relation})
        assert Image.open(BytesIO(response.content)).size == (512, 256)


@pytest.mark.parametrize("item", ["words", {"text": "A mug"}])
def test_text_only_item_has_no_heat_map(asked: TestClient, item: object) -> None:
    response = asked.post("/explain/heat-map", json={"item": item, "relation": "gardeners"})
    assert response.status_code == 404
    assert response.json()["type"] == "urn:rcml:problem:no-picture"
    assert response.json()["detail"].endswith("Use POST /explain to get the attention over its text.")


@pytest.mark.parametrize(
    ("path", "change", "status", "said"),
    [
        ("/explain", {"item_a": "unicorn"}, 404, "No item has the ID 'unicorn'."),
        ("/explain", {"relation": "sailing"}, 404, "No relation has the ID 'sailing'."),
        ("/explain", {"item_b": "bib"}, 422, "item_b is the same item as item_a"),
        ("/explain", {"item_b": 7}, 422, "item_b cannot be 7."),
        ("/explain", {"item_a": {"picture": {"base64": "Zm9v"}}}, 422, "The picture cannot be decoded"),
        ("/explain/heat-map", {"item": "unicorn"}, 404, "No item has the ID 'unicorn'."),
        ("/explain/heat-map", {"relation": "sailing"}, 404, "No relation has the ID 'sailing'."),
        ("/explain/heat-map", {"item": 7}, 422, "item cannot be 7."),
    ],
)
def test_rejection_names_the_invalid_value(
    asked: TestClient, path: str, change: dict[str, object], status: int, said: str
) -> None:
    pair = {"item_a": "bib", "item_b": "cot"} if path == "/explain" else {"item": "bib"}
    response = asked.post(path, json={**pair, "relation": "gardeners", **change})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"].startswith(said)


def test_rejects_free_text_relation_without_stored_tokens(client: TestClient) -> None:
    body = {"item_a": "bib", "item_b": "cot", "relation": {"description": WORDS}}
    assert client.post("/explain", json=body).json()["type"] == "urn:rcml:problem:no-tokens"


def test_documentation_mentions_the_summary_token(asked: TestClient) -> None:
    described = asked.get("/openapi.json").json()
    for path in ("/explain", "/explain/heat-map"):
        assert "summary token" in described["paths"][path]["post"]["description"]


def test_compares_text_only_item_with_picture_only_item_by_similarity_ti(asked: TestClient) -> None:
    pair = {"item_a": "words", "item_b": {"picture": picture("red")}}
    ranked = asked.post("/relation-type", json=pair)
    assert (ranked.status_code, ranked.json()["similarity"]) == (200, "TI")
    explained = explain(asked, **pair, relation="gardeners")
    assert explained["similarity"] == "TI"
    assert explained["score"] == explained["cosines"]["TI"]


def test_explains_one_version_of_an_item_that_changes_during_the_request(
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
