"""Free-text relations over HTTP, compared with a direct search of the index, and their rejections."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from indexes.index import Index
from indexes.search.retrieve import Found, NewItem, Question, Weighted
from model.embeddings.free_text import FreeTextRelation
from model.records import Relation
from model.similarity import Similarity
from service.engine.engine import CACHED_RELATIONS, Engine
from service.engine.network_queue import LocalNetwork
from service.settings import ServeConfig
from tests.indexes.fakes import ITEMS, FakeEncoder, FakeShop, write_shop
from tests.service.conftest import served

WORDS = "Bought by people who drink striped tea."


class CountingEncoder(FakeEncoder):
    """Fake encoder that records the relations it reads."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def read_relation(self, description: str) -> FreeTextRelation:
        self.read.append(description)
        return super().read_relation(description)


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    return write_shop(tmp_path_factory.mktemp("worded"), token_store=True)


@pytest.fixture(scope="module")
def asked(worded: FakeShop) -> Iterator[TestClient]:
    with served(ServeConfig(index=worded.index)) as client:
        yield client


@pytest.mark.parametrize("similarity", Similarity)
def test_ranks_like_the_index(asked: TestClient, worded: FakeShop, similarity: Similarity) -> None:
    body = {
        "item_id": "red-mug",
        "relation": {"description": WORDS},
        "k": 5,
        "similarity": similarity,
        "exclude": ["bib"],
    }
    answer = asked.post("/retrieve", json=body).json()
    index = Index.open(worded.index)
    relation = FakeEncoder().read_relation(WORDS)
    hits = [
        hit
        for hit in index.reader().neighbours("red-mug", relation, similarity, 6)
        if hit.item.item_id != "bib"
    ]
    assert [(one["item"]["item_id"], one["score"]) for one in answer["results"]] == [
        (hit.item.item_id, pytest.approx(hit.score, abs=1e-6)) for hit in hits[:5]
    ]
    assert answer["how"] == "rescored"
    assert answer["relation"] == {"description": WORDS}
    index.close()


def test_ranks_new_text_only_item_under_free_text_relation(asked: TestClient) -> None:
    body = {"text": ITEMS[0].text, "relation": {"description": WORDS}, "k": 1}
    answer = asked.post("/retrieve", json=body).json()
    assert answer["results"][0]["item"]["item_id"] == "red-mug"
    assert answer["results"][0]["score"] == pytest.approx(1, abs=1e-3)
    assert answer["how"] == "rescored"
    relation = FakeEncoder().read_relation(WORDS)
    tokens = FakeEncoder().text_tokens([ITEMS[0].text, ITEMS[4].text])
    vectors = relation.vectors(tokens)
    other = asked.post("/retrieve", json={**body, "k": 12}).json()["results"]
    score = next(one["score"] for one in other if one["item"]["item_id"] == "twin-3")
    assert score == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-3)


def test_list_of_relations_reports_free_text_support(asked: TestClient, client: TestClient) -> None:
    assert asked.get("/relations").json()["in_words"] is True
    assert client.get("/relations").json()["in_words"] is False


def test_rejection_without_stored_tokens_names_the_build_option(client: TestClient) -> None:
    for query in ({"item_id": "red-mug"}, {"text": "a mug"}):
        response = client.post("/retrieve", json={**query, "relation": {"description": WORDS}})
        assert response.status_code == 422
        assert response.json()["type"] == "urn:rcml:problem:no-tokens"
        assert "build the index with --token-store" in response.json()["detail"]


@pytest.mark.parametrize(
    ("relation", "pointer", "message"),
    [
        (
            {},
            "#/relation/description",
            "relation.description is missing. Send text of 1 to 2000 characters: description of the relation",
        ),
        (
            {"description": ""},
            "#/relation/description",
            "relation.description must have 1 or more characters",
        ),
        ({"description": 7}, "#/relation/description", "relation.description cannot be 7."),
        (
            {"description": "x" * 2001},
            "#/relation/description",
            "relation.description must have at most 2000 characters",
        ),
        ({"description": "x", "weight": 1}, "#/relation/weight", "relation.weight is not a known field."),
        (7, "#/relation", "relation cannot be 7. Send text of 1 to 512 characters."),
        (["x"], "#/relation", "relation cannot be a list of length 1."),
        ("", "#/relation", "relation must have 1 or more characters"),
    ],
)
def test_rejection_points_to_the_invalid_relation(
    asked: TestClient, relation: object, pointer: str, message: str
) -> None:
    response = asked.post("/retrieve", json={"item_id": "red-mug", "relation": relation})
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == pointer
    assert response.json()["detail"].startswith(message)


def test_documented_example_succeeds(asked: TestClient) -> None:
    document = asked.get("/openapi.json").json()
    body = document["paths"]["/retrieve"]["post"]["requestBody"]["content"]["application/json"]
    example = body["examples"]["a free-text relation"]["value"]
    assert asked.post("/retrieve", json=example).status_code == 200


def test_caches_the_latest_free_text_relations(worded: FakeShop) -> None:
    encoder = CountingEncoder()

    async def scenario() -> None:
        engine = Engine(Index.open(worded.index), LocalNetwork(encoder), compact_at=0)
        first = await engine.read_relation(WORDS)
        assert await engine.read_relation(WORDS) is first
        for number in range(CACHED_RELATIONS):
            await engine.read_relation(f"relation {number}")
            await engine.read_relation("relation 0")
        assert encoder.read == [WORDS, *(f"relation {number}" for number in range(CACHED_RELATIONS))]
        assert await engine.read_relation(WORDS) is not first
        engine.close()

    asyncio.run(scenario())


def test_ranks_new_text_only_item_under_added_relation(tmp_path: Path) -> None:
    async def scenario() -> list[list[Found]]:
        index = Index.open(write_shop(tmp_path, token_store=True).index)
        engine = Engine(index, LocalNetwork(FakeEncoder()), compact_at=0)
        relation = await engine.read_relation(WORDS)
        index.add_relation(Relation("tea", WORDS), relation)
        new = NewItem(await engine.encode(ITEMS[0].text, None))
        asked = [Question(new, (Weighted(one),), Similarity.TT, 5) for one in ("tea", relation)]
        found = [(await engine.retrieve(engine.index.reader(), one)).found for one in asked]
        engine.close()
        return found

    found = asyncio.run(scenario())
    assert found[0][0].row == 0
    scores = [[one.score for one in results] for results in found]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
