"""Retrieval, relation type and validity over HTTP, compared with a few lines of NumPy on the same vectors."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from model.similarity import Similarity
from tests.indexes.fakes import ITEMS, RELATIONS, FakeShop, ids

RELATION_IDS = [relation.relation_id for relation in RELATIONS]


def ask(client: TestClient, path: str, **question: object) -> Any:
    response = client.post(path, json=question)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("similarity", Similarity)
@pytest.mark.parametrize("relation", RELATION_IDS)
def test_retrieve_ranks_like_an_exhaustive_search(
    client: TestClient, shop: FakeShop, relation: str, similarity: Similarity
) -> None:
    answer = ask(client, "/retrieve", item_id="trowel", relation=relation, k=4, similarity=similarity)
    expected = shop.ranking("trowel", relation, similarity)[:4]
    assert [result["item"]["item_id"] for result in answer["results"]] == [item_id for item_id, _ in expected]
    assert [result["score"] for result in answer["results"]] == pytest.approx(
        [score for _, score in expected], abs=1e-5
    )
    assert [result["rank"] for result in answer["results"]] == [1, 2, 3, 4]


def test_retrieve_response_repeats_the_query_and_names_the_vector_source(client: TestClient) -> None:
    answer = ask(client, "/retrieve", item_id="a/b?c#d e", relation="gardeners")
    assert answer["query"] == {
        "item_id": "a/b?c#d e",
        "title": "Grey desk lamp",
        "categories": ["Office"],
        "image_url": "/items/a%2Fb%3Fc%23d%20e/image",
    }
    assert answer["relation"] == {
        "relation_id": "gardeners",
        "name": "Gardeners",
        "description": RELATIONS[1].description,
    }
    assert (answer["similarity"], answer["how"]) == ("AVG", "indexed")
    assert len(answer["results"]) == 10
    assert answer["took_ms"] >= 0


def test_k_larger_than_the_catalogue_returns_all_other_items(client: TestClient) -> None:
    answer = ask(client, "/retrieve", item_id="cot", relation="gardeners", k=100)
    assert sorted(result["item"]["item_id"] for result in answer["results"]) == sorted(set(ids()) - {"cot"})


def test_encodes_a_new_text_only_item_and_compares_it_by_text(client: TestClient) -> None:
    answer = ask(client, "/retrieve", text=ITEMS[8].text, relation="new-parents", k=1)
    assert answer["query"] == {"text": ITEMS[8].text, "picture": False}
    assert (answer["similarity"], answer["how"]) == ("TT", "encoded")
    assert answer["results"][0]["item"]["item_id"] == "bottle"
    assert answer["results"][0]["score"] == pytest.approx(1.0, abs=1e-3)


def test_compares_a_new_text_only_item_with_pictures(client: TestClient, shop: FakeShop) -> None:
    answer = ask(client, "/retrieve", text=ITEMS[0].text, relation="gardeners", similarity="TI", k=12)
    found = [
        result["item"]["item_id"] for result in answer["results"] if result["item"]["item_id"] != "red-mug"
    ]
    assert found == [item_id for item_id, _ in shop.ranking("red-mug", "gardeners", Similarity.TI)]


@pytest.mark.parametrize("similarity", Similarity)
def test_relation_type_ranks_all_relations_between_items(
    client: TestClient, shop: FakeShop, similarity: Similarity
) -> None:
    answer = ask(client, "/relation-type", item_a="bib", item_b="cot", similarity=similarity)
    scores = {ranked["relation"]["relation_id"]: ranked["score"] for ranked in answer["relations"]}
    expected = {relation: shop.cosine("bib", "cot", relation, similarity) for relation in RELATION_IDS[1:]}
    assert scores == pytest.approx(expected, abs=1e-5)
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert [ranked["rank"] for ranked in answer["relations"]] == [1, 2, 3]


@pytest.mark.parametrize("item_b", ["cot", "bottle", "tie", "tasse-é"])
def test_probability_equals_the_reference_and_the_threshold_decides_validity(
    client: TestClient, shop: FakeShop, item_b: str
) -> None:
    answer = ask(client, "/validity", item_a="bib", item_b=item_b, relation="new-parents")
    assert answer["probability"] == pytest.approx(shop.probability("bib", item_b, "new-parents"), abs=1e-6)
    assert answer["valid"] == (answer["probability"] >= answer["threshold"])
    assert (answer["item_a"]["item_id"], answer["item_b"]["item_id"]) == ("bib", item_b)


def test_validity_is_independent_of_item_order(client: TestClient) -> None:
    one = ask(client, "/validity", item_a="bib", item_b="cot", relation="gardeners")
    other = ask(client, "/validity", item_a="cot", item_b="bib", relation="gardeners")
    assert one["probability"] == other["probability"]


def test_applies_filter_exclude_group_by_and_include(client: TestClient, shop: FakeShop) -> None:
    question = {"item_id": "trowel", "relation": "gardeners", "k": 9}
    narrowed = {
        "filter": {"price": {"min": 8, "max": 25}, "categories": {"any_of": ["Kitchen", "Garden"]}},
        "exclude": ["blue-mug"],
    }
    found = client.post("/retrieve", json={**question, **narrowed}).json()["results"]
    wanted = [
        (item_id, pytest.approx(score, abs=1e-3))
        for item_id, score in shop.ranking("trowel", "gardeners", Similarity.AVG)
        if item_id in {"red-mug", "twin-1", "twin-2"}
    ]
    assert [(one["item"]["item_id"], one["score"]) for one in found] == wanted
    grouped = client.post("/retrieve", json={**question, "group_by": "model"}).json()["results"]
    assert len({"twin-1", "twin-2", "twin-3"} & {one["item"]["item_id"] for one in grouped}) == 1
    alone = client.post("/retrieve", json={**question, "include": ["tie", "bib"], "diversity": 0.5}).json()
    assert {one["item"]["item_id"] for one in alone["results"]} == {"tie", "bib"}


def test_rejection_of_an_unknown_attribute_lists_the_known_ones(client: TestClient) -> None:
    question = {"item_id": "tie", "relation": "gardeners", "filter": {"colour": {"any_of": ["red"]}}}
    answer = client.post("/retrieve", json=question)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:rcml:problem:unknown-attribute"
    assert answer.json()["known"] == ["categories", "brand", "model", "price", "sale", "stock"]


def test_rejection_points_to_the_invalid_filter(client: TestClient) -> None:
    question = {"item_id": "tie", "relation": "gardeners", "filter": {"price": {"min": "cheap"}}}
    problem = client.post("/retrieve", json=question).json()
    assert problem["errors"][0]["pointer"] == "#/filter/price/min"
    assert problem["detail"] == 'filter.price.min cannot be "cheap". Send a number.'


@pytest.mark.parametrize("condition", [{"min": 1}, {"any_of": [7]}, {"any_of": ["Seide"], "below": 3}])
def test_condition_on_another_type_is_refused_with_the_attribute_and_its_type(
    client: TestClient, condition: dict[str, Any]
) -> None:
    answer = client.post("/retrieve", json={"item_id": "twin-1", "filter": {"brand": condition}})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:rcml:problem:attribute-type")
    assert "The attribute 'brand' holds only texts" in answer.json()["detail"]
    assert answer.json()["errors"][0]["pointer"] == "#/filter/brand"
