"""`POST /embeddings`, compared with the vectors of the index and of the encoder."""

from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float32
from numpy import ndarray
from PIL import Image
from starlette.testclient import TestClient

from indexes.index import Index
from model.similarity import View
from service.settings import ServeConfig
from tests.indexes.changes import SAILORS, add
from tests.indexes.fakes import DIM, RELATIONS, FakeEncoder, FakeShop, ids, write_shop
from tests.service.conftest import served

WORDS = "Bought by people who drink striped tea."


class WordyEncoder(FakeEncoder):
    """Fake encoder that also returns a vector for an empty text, as the real encoder does."""

    def encode_texts(self, texts: Sequence[str]) -> Float32[ndarray, "texts relations dim"]:
        return super().encode_texts([text or "nothing" for text in texts])


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    shop = write_shop(tmp_path_factory.mktemp("worded"), token_store=True)
    index = Index.open(shop.index)
    add(index)
    index.close()
    return shop


@pytest.fixture(scope="module")
def index(worded: FakeShop) -> Iterator[Index]:
    index = Index.open(worded.index)
    yield index
    index.close()


@pytest.fixture(scope="module")
def asked(worded: FakeShop) -> Iterator[TestClient]:
    with served(ServeConfig(index=worded.index), WordyEncoder()) as client:
        client.put("/items/words", json={"title": "Text only"})
        yield client
        client.delete("/items/words")


def ask(client: TestClient, **question: object) -> Any:
    response = client.post("/embeddings", json=question)
    assert response.status_code == 200, response.text
    return response.json()


def numbers(written: Any) -> Float32[ndarray, "..."]:
    """Parse JSON numbers as float32, because a response has only enough digits to identify a float32."""
    return np.array(written, np.float32)


def picture(colour: str) -> dict[str, str]:
    file = BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return {"base64": b64encode(file.getvalue()).decode()}


@pytest.mark.parametrize("relation", [*(one.relation_id for one in RELATIONS), SAILORS.relation_id])
def test_catalogue_vectors_equal_those_of_the_index(asked: TestClient, index: Index, relation: str) -> None:
    wanted = ["cot", "a/b?c#d e", "cot", "bib"]
    answer = ask(asked, items=wanted, relation=relation)
    rows = [index.snapshot.row(item_id) for item_id in wanted]
    for view in View:
        found = numbers([one[view] for one in answer["embeddings"]])
        assert (
            found.tolist() == index.snapshot.vectors(index.reader().position(relation), view, rows).tolist()
        )
        assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-3)
    assert [one["item"]["item_id"] for one in answer["embeddings"]] == wanted
    assert (answer["dim"], answer["encoding"]) == (DIM, "float")
    assert answer["relation"] == {
        "relation_id": relation,
        "name": index.reader().relation(relation).display_name,
        "description": index.reader().relation(relation).description,
    }


def test_vectors_under_a_free_text_relation_are_computed_from_tokens(asked: TestClient, index: Index) -> None:
    answer = ask(asked, items=["tie"], relation={"description": WORDS}, views=["text"])
    expected = index.snapshot.vectors(
        FakeEncoder().read_relation(WORDS), View.TEXT, [index.snapshot.row("tie")]
    )
    assert numbers(answer["embeddings"][0]["text"]).tolist() == expected[0].tolist()
    assert answer["relation"] == {"description": WORDS}


def test_new_item_has_the_vectors_of_the_encoder(asked: TestClient) -> None:
    new = {"text": "Red silk tie", "picture": picture("red")}
    [found] = ask(asked, items=[new], relation="gardeners")["embeddings"]
    encoding = FakeEncoder().encode_items(["Red silk tie"], [Image.new("RGB", (8, 8), "red")])
    for view in View:
        assert found[view] == pytest.approx(encoding.view(view)[0, 1].tolist(), abs=1e-6)
    assert found["item"] == {"text": "Red silk tie", "picture": True}


@pytest.mark.parametrize("relation", ["gardeners", SAILORS.relation_id, {"description": WORDS}])
def test_missing_view_is_null_and_average_equals_the_other_view(asked: TestClient, relation: object) -> None:
    items = ["words", {"text": "Red silk tie"}, {"picture": picture("red")}, "bib"]
    stored, words, pictured, both = ask(asked, items=items, relation=relation)["embeddings"]
    for one in (stored, words):
        assert one["image"] is None
        assert one["average"] == pytest.approx(one["text"], abs=1e-3)
    assert pictured["text"] is None
    assert pictured["average"] == pytest.approx(pictured["image"], abs=1e-6)
    assert both["text"] != both["image"]


def test_base64_vectors_equal_float_vectors(asked: TestClient) -> None:
    question = {"items": ["cot", {"text": "a mug"}], "relation": "gardeners", "views": ["image", "average"]}
    written = ask(asked, **question)["embeddings"]
    packed = ask(asked, **question, encoding="base64")
    assert packed["encoding"] == "base64"
    for one, other in zip(written, packed["embeddings"], strict=True):
        assert one.keys() == other.keys() == {"item", "image", "average"}
        assert np.frombuffer(b64decode(other["average"]), "<f4").tolist() == numbers(one["average"]).tolist()
    assert packed["embeddings"][1]["image"] is None


def test_inner_products_equal_retrieve_scores(asked: TestClient) -> None:
    found = ask(asked, items=ids(), relation="gardeners", views=["average"])["embeddings"]
    vectors = np.array([one["average"] for one in found])
    body = {"item_id": ids()[0], "relation": "gardeners", "include": ids(), "k": 20}
    results = asked.post("/retrieve", json=body).json()["results"]
    assert len(results) == len(ids()) - 1
    for one in results:
        product = vectors[0] @ vectors[ids().index(one["item"]["item_id"])]
        assert one["score"] == pytest.approx(product, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"items": ["cot", "unicorn"]}, 404, "No item has the ID 'unicorn'."),
        ({"relation": "sailing"}, 404, "No relation has the ID 'sailing'."),
        ({"items": []}, 422, "items must have 1 or more entries; [] was sent."),
        (
            {"items": ["cot"] * 101},
            422,
            "items must have at most 100 entries; a list of length 101 was sent.",
        ),
        ({"items": [{}]}, 422, "A new item needs text, a picture, or both; neither was sent."),
        ({"items": [7]}, 422, "items.0 cannot be 7."),
        ({"views": []}, 422, "views must have 1 or more entries; [] was sent."),
        ({"views": ["TT"]}, 422, 'views.0 cannot be "TT". Send one of text, image, average.'),
        ({"encoding": "hex"}, 422, 'encoding cannot be "hex". Send one of float, base64.'),
        ({"items": [{"picture": {"base64": "Zm9v"}}]}, 422, "The picture cannot be decoded"),
    ],
)
def test_rejection_names_the_invalid_value(
    asked: TestClient, change: dict[str, object], status: int, said: str
) -> None:
    response = asked.post("/embeddings", json={"items": ["cot"], "relation": "gardeners", **change})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"].startswith(said)


def test_rejects_free_text_relation_without_stored_tokens(client: TestClient) -> None:
    response = client.post("/embeddings", json={"items": ["cot"], "relation": {"description": WORDS}})
    assert response.json()["type"] == "urn:rcml:problem:no-tokens"
