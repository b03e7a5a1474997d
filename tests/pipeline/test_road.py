"""The whole road once, on a tiny sample shop: from nothing to an answered query, and back again at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from starlette.testclient import TestClient

from model.artifact import Kind, open_artifact
from service.app import create_app
from service.cli import main
from service.settings import ServeConfig
from tests.service.conftest import wait_until_ready

GENERATION = "generation-000001"

ARTIFACTS: dict[str, Kind] = {
    "shop": "shop",
    "prepared": "prepared",
    "rcml": "checkpoint",
    "clip": "checkpoint",
    "blind": "checkpoint",
    "report": "report",
    f"index/{GENERATION}": "index",
}


@dataclass(frozen=True)
class Road:
    """What two runs of the demo left and said; `digests` after either run."""

    folder: Path
    said: tuple[str, str]
    digests: tuple[dict[str, str], dict[str, str]]


def digests(folder: Path) -> dict[str, str]:
    return {name: open_artifact(folder / name, kind).digest for name, kind in ARTIFACTS.items()}


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("road") / "demo"
    options = ["--out", str(folder), "--no-serve", "--items", "336", "--shoppers", "600", "--steps", "4"]
    said, found = [], []
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            lines: list[str] = []
            patch.setattr("service.demo.say", lines.append)
            assert main(["demo", *options]) == 0
        said.append("\n".join(lines))
        found.append(digests(folder))
    return Road(folder, (said[0], said[1]), (found[0], found[1]))


def test_every_stage_says_what_it_made(road: Road) -> None:
    assert [line.split()[0] for line in road.said[0].splitlines()] == [
        "Shop", "Prepared", "Trained", "Trained", "Trained", "Evaluated", "Indexed"
    ]  # fmt: skip


def test_a_second_run_makes_nothing_anew(road: Road) -> None:
    assert road.said[1].splitlines() == [
        f"Reusing {road.folder / name.removesuffix(f'/{GENERATION}')}." for name in ARTIFACTS
    ]
    assert road.digests[0] == road.digests[1]


def test_each_artifact_names_what_it_was_made_from(road: Road) -> None:
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


def test_the_index_answers_which_items_go_with_one(client: TestClient) -> None:
    relation = client.get("/relations").json()["relations"][-1]["relation_id"]
    item = client.get("/items").json()["items"][0]["item_id"]
    answer = client.post("/retrieve", json={"item_id": item, "relation": relation, "k": 5})
    assert answer.status_code == 200
    results = answer.json()["results"]
    scores = [result["score"] for result in results]
    assert len(results) == 5
    assert item not in [result["item"]["item_id"] for result in results]
    assert scores == sorted(scores, reverse=True)
