"""`POST /retrieve`: every kind of query, and how the response reports the search."""

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from starlette.testclient import TestClient

from indexes.vectors.contract import FilterMethod
from service.app import create_app
from service.schemas import attribute_filter
from service.schemas.retrieve import RetrieveAnswer
from service.settings import ServeConfig
from tests.indexes.fakes import ITEMS, FakeEncoder, FakeShop, write_shop
from tests.service.servers import served_here

WORDS = "Worn at sea."


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    return write_shop(tmp_path_factory.mktemp("shop"), token_store=True)


@pytest.fixture(scope="module", params=["short ways", "framework"])
def asked(shop: FakeShop, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """Yield a client whose requests take all short ways, or none."""
    app = create_app(ServeConfig(index=shop.index), lambda *_: FakeEncoder())
    with served_here(app, short_ways=request.param == "short ways") as (_, client):
        yield client


def ask(client: httpx.Client | TestClient, **question: Any) -> Any:
    response = client.post("/retrieve", json=question)
    assert response.status_code == 200, response.text
    RetrieveAnswer.model_validate(response.json(), strict=False)
    return response.json()


def ids(answer: Any) -> list[str]:
    return [result["item"]["item_id"] for result in answer["results"]]


def picture(shop: FakeShop, row: int = 0) -> bytes:
    return (shop.prepared / ITEMS[row].picture).read_bytes()


def test_picture_finds_the_item_it_shows(asked: httpx.Client, shop: FakeShop) -> None:
    content = b64encode(picture(shop)).decode()
    answer = ask(asked, picture={"base64": content}, relation="gardeners", k=1)
    assert (ids(answer), answer["similarity"], answer["how"]) == (["red-mug"], "II", "encoded")
    assert answer["query"] == {"text": None, "picture": True}


def test_query_with_text_and_picture_uses_average_similarity(asked: httpx.Client, shop: FakeShop) -> None:
    content = b64encode(picture(shop)).decode()
    answer = ask(asked, text=ITEMS[0].text, picture={"base64": content}, relation="gardeners", k=1)
    assert (ids(answer), answer["similarity"]) == (["red-mug"], "AVG")
    assert answer["results"][0]["score"] == pytest.approx(1, abs=1e-3)


def test_uploaded_picture_gives_the_same_results_as_base64(asked: httpx.Client, shop: FakeShop) -> None:
    question = {"relation": "gardeners", "k": 3}
    uploaded = asked.post(
        "/retrieve", data={"question": json.dumps(question)}, files={"picture": ("mug.png", picture(shop))}
    ).json()
    sent = ask(asked, picture={"base64": b64encode(picture(shop)).decode()}, **question)
    assert uploaded["results"] == sent["results"]


@pytest.mark.parametrize(
    ("parts", "detail"),
    [
        ({"files": {"question": (None, "{}")}}, "A multipart body must have two parts"),
        ({"files": {"picture": b"x"}}, "A multipart body must have two parts"),
        ({"data": {"question": "{"}, "files": {"picture": b"x"}}, "The body is not valid JSON"),
        ({"data": {"question": "[]"}, "files": {"picture": b"x"}}, "The body cannot be []"),
        ({"data": {"question": "{}"}, "files": {"picture": b"x"}}, "The picture cannot be decoded"),
    ],
)
def test_rejection_of_an_upload_gives_the_reason(asked: httpx.Client, parts: Any, detail: str) -> None:
    response = asked.post("/retrieve", **parts)
    assert response.status_code in (400, 422)
    assert response.json()["detail"].startswith(detail)


@pytest.mark.parametrize(
    ("sent", "pointer", "detail"),
    [
        ({}, "#/picture", "A picture needs exactly one of base64 and url; neither was sent."),
        ({"base64": "?"}, "#/picture/base64", "The picture is not valid base64."),
        ({"base64": "aGFs", "url": "https://shop.example/1.jpg"}, "#/picture", "A picture needs exactly one"),
        ({"path": "/etc/passwd"}, "#/picture/path", "picture.path is not a known field."),
    ],
)
def test_rejection_points_to_the_invalid_picture(
    asked: httpx.Client, sent: dict[str, str], pointer: str, detail: str
) -> None:
    problem = asked.post("/retrieve", json={"picture": sent, "relation": "gardeners"}).json()
    assert problem["errors"][0]["pointer"] == pointer
    assert problem["detail"].startswith(detail)


def test_does_not_fetch_a_picture_from_the_local_machine(asked: httpx.Client) -> None:
    question = {"picture": {"url": "http://127.0.0.1:8000/items/bib/image"}, "relation": "gardeners"}
    response = asked.post("/retrieve", json=question)
    assert (response.status_code, response.json()["type"]) == (422, "urn:rcml:problem:picture-not-fetched")


def test_upload_may_be_larger_than_a_json_body(asked: httpx.Client) -> None:
    question = {"relation": "gardeners"}
    large = b"\x00" * 3_000_000
    uploaded = asked.post("/retrieve", data={"question": json.dumps(question)}, files={"picture": large})
    assert uploaded.json()["detail"].startswith("The picture cannot be decoded")
    sent = asked.post("/retrieve", json={**question, "picture": {"base64": b64encode(large).decode()}})
    assert sent.status_code == 413
    larger = asked.post("/retrieve", data={"question": "{}"}, files={"picture": b"\x00" * 13 * 2**20})
    assert larger.status_code == 413
    assert "12582912 bytes" in larger.json()["detail"]


def test_without_a_relation_each_result_names_its_best_relation(asked: httpx.Client) -> None:
    answer = ask(asked, item_id="bib", k=11)
    assert answer["relation"] is None
    for result in answer["results"]:
        alone = ask(asked, item_id="bib", relation=result["relation"], k=11)
        scores = {one["item"]["item_id"]: one["score"] for one in alone["results"]}
        assert result["score"] == pytest.approx(scores[result["item"]["item_id"]], abs=1e-6)


def test_response_repeats_the_relations_with_their_weights(asked: httpx.Client) -> None:
    relations = [{"relation": "gardeners", "weight": 2}, {"relation": {"description": WORDS}}]
    answer = ask(asked, item_id="bib", relations=relations)
    assert [one["weight"] for one in answer["relation"]] == [2, 1]
    assert answer["relation"][1]["relation"] == {"description": WORDS}
    assert answer["how"] == "rescored"


def test_reports_the_familiarity_of_a_free_text_relation(asked: httpx.Client) -> None:
    familiar = ask(asked, item_id="bib", relation={"description": WORDS})["familiarity"]
    assert [one["description"] for one in familiar] == [WORDS]
    assert familiar[0]["nearest"] in ("gardeners", "worn together / office", "new-parents")
    assert ask(asked, item_id="bib", relation="gardeners")["familiarity"] == []


def test_pages_follow_one_another(asked: httpx.Client) -> None:
    whole = ask(asked, item_id="bib", relation="gardeners", k=11)
    first = ask(asked, item_id="bib", relation="gardeners", k=4)
    second = ask(asked, item_id="bib", relation="gardeners", k=4, cursor=first["next_cursor"])
    assert ids(first) + ids(second) == ids(whole)[:8]
    assert [one["rank"] for one in second["results"]] == [5, 6, 7, 8]
    last = ask(asked, item_id="bib", relation="gardeners", k=4, cursor=second["next_cursor"])
    assert (len(last["results"]), last["next_cursor"]) == (3, None)


def test_rejects_a_second_page_of_diversified_results(asked: httpx.Client) -> None:
    question = {"item_id": "bib", "relation": "gardeners", "cursor": 5, "diversity": 0.5}
    assert asked.post("/retrieve", json=question).json()["errors"][0]["pointer"] == "#/diversity"


def test_filters_for_items_cheaper_than_the_query_item(asked: httpx.Client) -> None:
    cheaper = {"price": {"below": {"query": "price"}}}
    answer = ask(asked, item_id="twin-1", relation="gardeners", k=11, filter=cheaper)
    assert sorted(ids(answer)) == ["blue-mug", "red-mug", "twin-2"]
    new = ask(asked, text="a can", attributes={"price": 9}, relation="gardeners", k=11, filter=cheaper)
    assert sorted(ids(new)) == ["blue-mug", "red-mug"]


PRICED = {"price": {"below": 25}}
"""Filter that the prices of three items pass, of twelve items."""


@pytest.mark.parametrize(
    ("question", "filter_use"),
    [
        ({"filter": PRICED}, {"share": 3 / 12, "methods": ["scan"]}),
        ({"filter": PRICED, "item_id": "twin-2"}, {"share": 2 / 12, "methods": ["scan"]}),
        ({"filter": PRICED, "exclude": ["red-mug", "bib"]}, {"share": 2 / 12, "methods": ["scan"]}),
        ({"filter": {"price": {"below": 0}}}, {"share": 0.0, "methods": ["scan"]}),
        ({"filter": PRICED, "relation": None}, {"share": 3 / 12, "methods": ["scan"]}),
        ({"filter": PRICED, "relation": {"description": WORDS}}, {"share": 3 / 12, "methods": ["scan"]}),
        ({"filter": PRICED, "min_score": 0.9, "fallback": True}, {"share": 3 / 12, "methods": ["scan"]}),
        (
            {"filter": PRICED, "promoted": {"item_ids": ["red-mug"], "share": 0.5}},
            {"share": 3 / 12, "methods": ["scan"]},
        ),
        ({"promoted": {"item_ids": ["red-mug"], "share": 0.5}}, None),
        ({"exclude": ["red-mug"]}, None),
        ({"group_by": "model"}, None),
        ({"similarity": "TT"}, None),
        ({}, None),
    ],
)
def test_timings_tell_the_share_that_a_filter_allowed_and_how_it_was_searched(
    asked: httpx.Client, question: dict[str, Any], filter_use: dict[str, Any] | None
) -> None:
    whole = {"item_id": "bib", "relation": "gardeners", **question}
    answer = ask(asked, **whole)
    assert answer["timings"]["filter"] == filter_use
    replies = asked.post("/retrieve/batch", json={"questions": [whole, whole]}).json()["replies"]
    assert [reply["answer"]["timings"]["filter"] for reply in replies] == [filter_use] * 2


def test_schema_knows_every_method_of_the_indexes() -> None:
    assert get_args(attribute_filter.FilterMethod) == get_args(FilterMethod)


def test_rejects_a_filter_on_an_attribute_that_the_query_item_lacks(asked: httpx.Client) -> None:
    question = {"item_id": "bib", "relation": "gardeners", "filter": {"price": {"max": {"query": "price"}}}}
    response = asked.post("/retrieve", json=question)
    assert (response.status_code, response.json()["type"]) == (422, "urn:rcml:problem:missing-attribute")


def test_marks_promoted_items(asked: httpx.Client) -> None:
    plain = ids(ask(asked, item_id="bib", relation="gardeners", k=11))
    promoted = {"item_ids": [plain[-1]], "share": 0.5}
    answer = ask(asked, item_id="bib", relation="gardeners", k=4, promoted=promoted)
    assert [one["promoted"] for one in answer["results"]] == [False, True, False, False]
    assert ids(answer) == [plain[0], plain[-1], plain[1], plain[2]]


def test_reports_a_fallback(asked: httpx.Client) -> None:
    best = ask(asked, item_id="bib", relation="gardeners", k=1)["results"][0]["score"]
    question = {"item_id": "bib", "relation": "gardeners", "min_score": best, "k": 3}
    assert len(ask(asked, **question)["results"]) == 1
    answer = ask(asked, **question, fallback=True)
    assert [one["fallback"] for one in answer["results"]] == [False] + [True] * (len(answer["results"]) - 1)
    assert answer["fallback"].startswith("Under the requested relation, 1 of 3 results reach")


def test_fallback_message_on_a_later_page_counts_that_page(asked: httpx.Client) -> None:
    best = ask(asked, item_id="bib", relation="gardeners", k=1)["results"][0]["score"]
    question = {"item_id": "bib", "relation": "gardeners", "min_score": best, "k": 1, "fallback": True}
    answer = ask(asked, **question, cursor=1)
    assert [one["fallback"] for one in answer["results"]] == [True]
    assert answer["fallback"].startswith(
        "Under the requested relation, 0 of 1 results (starting at rank 2) reach"
    )


def test_returns_only_the_requested_fields(asked: httpx.Client) -> None:
    question = {"item_id": "bib", "relation": "gardeners", "k": 11, "fields": ["item_id", "attributes"]}
    told = {one["item"]["item_id"]: one["item"] for one in ask(asked, **question)["results"]}
    assert told["cot"] == {"item_id": "cot", "attributes": {"price": 199, "stock": 1, "brand": "Wiege"}}


def test_response_contains_the_index_version(asked: httpx.Client) -> None:
    digest = asked.get("/readyz").json()["index"]
    assert ask(asked, item_id="bib", relation="gardeners")["version"] == f"{digest[:12]}.0"


def test_rejected_request_does_not_affect_the_rest_of_its_batch(asked: httpx.Client) -> None:
    good = {"item_id": "bib", "relation": "gardeners", "k": 2}
    questions = [good, {**good, "item_id": "unicorn"}, {"text": "mug", "relation": "gardeners", "k": 1}]
    replies = asked.post("/retrieve/batch", json={"questions": questions}).json()["replies"]
    assert [one["status"] for one in replies] == [200, 404, 200]
    assert replies[0]["answer"]["results"] == ask(asked, **good)["results"]
    assert replies[1]["problem"]["detail"].startswith("No item has the ID 'unicorn'.")
    assert replies[1]["answer"] is None


def test_rejection_of_a_batch_points_to_the_invalid_field(asked: httpx.Client) -> None:
    good = {"item_id": "bib", "relation": "gardeners"}
    response = asked.post("/retrieve/batch", json={"questions": [good, {**good, "k": True}]})
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "#/questions/1/k"
    assert response.json()["errors"][0]["remedy"] == "Send a whole number from 1 to 100."


def test_precomputed_answers_equal_search_results(asked: httpx.Client, shop: FakeShop) -> None:
    """Compare with a request that sets `fallback`, because such a request never uses the precomputed AVG table."""
    question = {"item_id": "bib", "relation": "gardeners", "k": 5}
    searched = ask(asked, **question, fallback=True)
    assert ask(asked, **question)["results"] == searched["results"]


def test_rejects_a_file_url_without_revealing_the_path(asked: httpx.Client, tmp_path: Path) -> None:
    question = {"picture": {"url": f"file://{tmp_path}/secret.png"}, "relation": "gardeners"}
    response = asked.post("/retrieve", json=question)
    assert response.status_code == 422
    assert str(tmp_path) not in response.json()["detail"]
