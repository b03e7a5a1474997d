"""Batches of pairs: each pair is answered or rejected like a single request, from one version of the index."""

from base64 import b64encode
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from indexes.index import Index
from indexes.search.pairs import PairScorer
from service.settings import ServeConfig
from tests.indexes.changes import made
from tests.indexes.fakes import FakeShop, ids, write_shop
from tests.service.conftest import served

PAIRS: list[dict[str, Any]] = [
    {"item_a": "bib", "item_b": "cot"},
    {"item_a": {"text": "Red mug"}, "item_b": "cot"},
    {"item_a": "bib", "item_b": "unicorn"},
    {"item_a": {"picture": {"base64": "Zm9v"}}, "item_b": "cot"},
    {"item_a": "tie", "item_b": {"text": "Silk scarf"}},
]
CLAIMS = [{**pair, "relation": "gardeners"} for pair in PAIRS] + [
    {"item_a": "bib", "item_b": "cot", "relation": relation}
    for relation in ("new-parents", "same-item", "sailing")
]


@pytest.fixture
def picture() -> dict[str, str]:
    file = BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return {"base64": b64encode(file.getvalue()).decode()}


def timeless(answer: Any) -> Any:
    return {name: value for name, value in answer.items() if name != "took_ms"}


@pytest.mark.parametrize(("path", "questions"), [("/relation-type", PAIRS), ("/validity", CLAIMS)])
def test_batch_replies_equal_single_responses(
    client: TestClient, path: str, questions: list[dict[str, Any]]
) -> None:
    replies = client.post(f"{path}/batch", json={"questions": questions}).json()["replies"]
    assert len(replies) == len(questions)
    for question, reply in zip(questions, replies, strict=True):
        alone = client.post(path, json=question)
        assert reply["status"] == alone.status_code
        if alone.is_success:
            assert reply["problem"] is None
            answer, expected = timeless(reply["answer"]), timeless(alone.json())
            probabilities = answer.pop("probability", None), expected.pop("probability", None)
            assert answer == expected
            assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-6)
        else:
            assert reply["answer"] is None
            assert reply["problem"]["type"] == alone.json()["type"]
            assert reply["problem"]["detail"] == alone.json()["detail"]


def test_validates_a_batch_of_claims_in_one_call(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    validities, asked = PairScorer.probabilities, []

    def counting(comparison: PairScorer, claims: Any) -> Any:
        asked.append(len(claims))
        return validities(comparison, claims)

    monkeypatch.setattr(PairScorer, "probabilities", counting)
    claims = [{"item_a": "bib", "item_b": other, "relation": "gardeners"} for other in ids()[:11]]
    replies = client.post("/validity/batch", json={"questions": [*claims, *CLAIMS]}).json()["replies"]
    assert asked == [11 + 4]
    assert sum(reply["status"] == 200 for reply in replies) == 15


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    return write_shop(tmp_path_factory.mktemp("own"))


@pytest.fixture
def changing(own: FakeShop) -> Iterator[TestClient]:
    with served(ServeConfig(index=own.index)) as client:
        yield client


def test_batch_uses_one_version_while_items_change(
    changing: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    validities = PairScorer.probabilities
    index: Index = changing.app_state["engine_holder"].engine.index

    def overtaken(comparison: PairScorer, claims: Any) -> Any:
        index.apply([made("cot", 3)])
        return validities(comparison, claims)

    before = changing.post("/validity", json=CLAIMS[0]).json()
    monkeypatch.setattr(PairScorer, "probabilities", overtaken)
    replies = changing.post("/validity/batch", json={"questions": CLAIMS[:2]}).json()["replies"]
    assert {reply["answer"]["version"] for reply in replies} == {before["version"]}
    assert timeless(replies[0]["answer"]) == timeless(before)
    assert replies[0]["answer"]["item_b"]["title"] == "Wooden cot"


def test_rejects_text_similarity_for_a_picture_only_item(client: TestClient, picture: dict[str, str]) -> None:
    pair = {"item_a": {"picture": picture}, "item_b": "cot"}
    assert client.post("/relation-type", json=pair).json()["similarity"] == "II"
    refused = client.post("/relation-type", json={**pair, "similarity": "TT"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "#/similarity"
    assert refused.json()["errors"][0]["remedy"] == "Send the text of item_a, or omit similarity."


@pytest.mark.parametrize("path", ["/relation-type/batch", "/validity/batch"])
@pytest.mark.parametrize("count", [0, 101])
def test_rejects_a_batch_that_is_empty_or_too_large(client: TestClient, path: str, count: int) -> None:
    response = client.post(path, json={"questions": CLAIMS[:1] * count})
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "#/questions"
