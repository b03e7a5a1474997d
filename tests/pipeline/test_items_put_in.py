"""A real network treats an item added over HTTP like an item that was prepared and indexed."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from indexes.builder.build import build
from indexes.config import BuildConfig
from model.checkpoint.checkpoint import Checkpoint
from model.data.pictures.images import load_picture
from model.data.prepared_data import Prepared
from model.embeddings.free_text import FreeTextRelation
from model.encoder.encoder import Encoder
from model.training.train import train
from service.app import create_app
from service.engine.model_jobs import EncodeItemJob, ExplainJob, Job, ReadRelationJob, Result
from service.engine.network_process.network_process import NetworkProcess
from service.engine.network_queue import LocalNetwork, NetworkQueue
from service.settings import ServeConfig
from tests.model.planted import prepare_catalogue, tiny_training
from tests.service.conftest import wait_until_ready
from tests.service.engine.network_process.test_messages import assert_same

WORDS = {"description": "Looked at by people who like round things."}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("catalogue")
    prepared = prepare_catalogue(folder)
    train(tiny_training(prepared, folder / "checkpoint"))
    config = BuildConfig(
        checkpoint=folder / "checkpoint", prepared=prepared, out=folder / "index", token_store=True
    )
    encoder = Encoder.from_pretrained(config.checkpoint, "cpu")
    build(config, encoder, Checkpoint.open(config.checkpoint), Prepared.open(prepared))
    return folder


@pytest.fixture(scope="module")
def client(catalogue: Path) -> Iterator[TestClient]:
    config = ServeConfig(index=catalogue / "index", device="cpu", precision="fp32")
    with TestClient(create_app(config)) as client:
        wait_until_ready(client)
        yield client


def vectors(client: TestClient, *items: object, relation: object) -> list[Any]:
    answer = client.post("/embeddings", json={"items": items, "relation": relation})
    assert answer.status_code == 200, answer.text
    return [{view: one[view] for view in ("text", "image", "average")} for one in answer.json()["embeddings"]]


def test_added_item_has_the_vectors_of_its_twin_in_the_catalogue(client: TestClient, catalogue: Path) -> None:
    raw = [json.loads(line) for line in (catalogue / "items.jsonl").read_text().splitlines()]
    relations: list[object] = [one["relation_id"] for one in client.get("/relations").json()["relations"]]
    for given in raw[:3]:
        sent = {name: given[name] for name in ("title", "categories") if name in given}
        picture = b64encode((catalogue / given["image"]).read_bytes()).decode()
        answer = client.put("/items/twin", json={**sent, "picture": {"base64": picture}})
        assert answer.status_code in (200, 201)
        for relation in [*relations, WORDS]:
            twin, old = vectors(client, "twin", given["item_id"], relation=relation)
            for view, own in twin.items():
                assert own == pytest.approx(old[view], abs=2e-3)
        explained = [
            client.post(
                "/explain", json={"item_a": one, "item_b": raw[9]["item_id"], "relation": relations[-1]}
            ).json()
            for one in ("twin", given["item_id"])
        ]
        twin_words, old_words = (one["item_a"]["text"]["words"] for one in explained)
        assert [one["text"] for one in twin_words] == [one["text"] for one in old_words]
        assert explained[0]["score"] == pytest.approx(explained[1]["score"], abs=2e-3)


def test_new_item_lacks_the_views_that_were_not_sent(client: TestClient, catalogue: Path) -> None:
    picture = {"base64": b64encode(next(catalogue.rglob("*.png")).read_bytes()).decode()}
    for relation in (client.get("/relations").json()["relations"][-1]["relation_id"], WORDS):
        pictured, worded = vectors(client, {"picture": picture}, {"text": "red mug"}, relation=relation)
        assert (pictured["text"], worded["image"]) == (None, None)
        assert pictured["average"] == pytest.approx(pictured["image"], abs=1e-5)
        assert worded["average"] == pytest.approx(worded["text"], abs=1e-5)


def test_attention_on_parts_and_summary_sums_to_1(client: TestClient) -> None:
    first, second = (item["item_id"] for item in client.get("/items?limit=2").json()["items"])
    relation = client.get("/relations").json()["relations"][-1]["relation_id"]
    for asked in (relation, WORDS):
        answer = client.post("/explain", json={"item_a": first, "item_b": second, "relation": asked}).json()
        for side in ("item_a", "item_b"):
            text, image = answer[side]["text"], answer[side]["image"]
            assert sum(one["weight"] for one in text["words"]) + text["summary"] == pytest.approx(1, abs=1e-4)
            assert sum(map(sum, image["grid"])) + image["summary"] == pytest.approx(1, abs=1e-4)
        heat = client.post("/explain/heat-map", json={"item": first, "relation": asked})
        assert heat.content.startswith(b"\x89PNG")


def test_network_process_computes_what_a_network_in_this_process_computes(catalogue: Path) -> None:
    checkpoint = catalogue / "checkpoint"
    item = json.loads((catalogue / "items.jsonl").read_text().splitlines()[0])
    picture = load_picture(catalogue / item["image"])
    same = LocalNetwork(Encoder.from_pretrained(checkpoint, "cpu"))

    async def results(network: NetworkQueue) -> list[Result]:
        worded = await network.submit(ReadRelationJob(WORDS["description"]))
        assert isinstance(worded, FreeTextRelation)
        jobs: tuple[Job, ...] = (
            EncodeItemJob("a round thing", picture, True),
            EncodeItemJob("", picture),
            ExplainJob("a round thing", picture, worded),
        )
        return [worded, *[await network.submit(job) for job in jobs]]

    with NetworkProcess() as process:
        other = process.opener(600)(checkpoint, "cpu", "fp32", "torch")
        assert isinstance(other, NetworkQueue)
        assert (other.device, other.towers) == (same.device, same.towers)
        for one, another in zip(asyncio.run(results(other)), asyncio.run(results(same)), strict=True):
            assert_same(one, another)
        other.close()
    same.close()
