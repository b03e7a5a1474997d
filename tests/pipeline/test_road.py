"""The complete pipeline on a tiny sample shop, up to an answered query. A second run reuses all artifacts."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from model.artifact import open_artifact
from service.app import create_app
from service.demo import PURPOSES
from service.settings import ServeConfig
from tests.conftest import ARTIFACTS, GENERATION, Road
from tests.service.conftest import wait_until_ready


def test_every_stage_prints_its_purpose_and_a_summary(road: Road) -> None:
    lines = road.said[0].splitlines()
    assert lines[::2] == [f"[{number}/7] {purpose}" for number, purpose in enumerate(PURPOSES.values(), 1)]
    assert [line.split()[0] for line in lines[1::2]] == [
        "Wrote", "Prepared", "Trained", "Trained", "Trained", "Evaluated", "Indexed"
    ]  # fmt: skip


def test_second_run_reuses_every_artifact(road: Road) -> None:
    assert road.said[1].splitlines() == [
        f"Reusing {road.folder / name.removesuffix(f'/{GENERATION}')}." for name in ARTIFACTS
    ]
    assert road.digests[0] == road.digests[1]


def test_each_artifact_lists_its_parents(road: Road) -> None:
    digest = road.digests[0]
    parents = {name: open_artifact(road.folder / name, kind).parents for name, kind in ARTIFACTS.items()}
    assert parents["rcml"] == parents["clip"] == parents["blind"] == {"prepared": digest["prepared"]}
    assert parents["report"] == {name: digest[name] for name in ("prepared", "rcml", "clip", "blind")}
    assert parents[f"index/{GENERATION}"] == {"prepared": digest["prepared"], "checkpoint": digest["rcml"]}


@pytest.fixture(scope="module")
def client(road: Road) -> Iterator[TestClient]:
    with TestClient(create_app(ServeConfig(index=road.folder / "index"))) as client:
        wait_until_ready(client)
        yield client


def test_index_retrieves_related_items(client: TestClient) -> None:
    relation = client.get("/relations").json()["relations"][-1]["relation_id"]
    item = client.get("/items").json()["items"][0]["item_id"]
    answer = client.post("/retrieve", json={"item_id": item, "relation": relation, "k": 5})
    assert answer.status_code == 200
    results = answer.json()["results"]
    scores = [result["score"] for result in results]
    assert len(results) == 5
    assert item not in [result["item"]["item_id"] for result in results]
    assert scores == sorted(scores, reverse=True)
