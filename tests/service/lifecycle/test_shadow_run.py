"""Tests of shadow runs: a candidate is compared with the serving engine without any effect on clients."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from indexes.index import Index
from indexes.reader import Reader
from indexes.search.retrieve import KnownItems, Question, Ranking, Weighted
from model.similarity import Similarity
from service.app import create_app
from service.engine.engine import Engine
from service.lifecycle.shadow_run import MAX_WAITING_QUESTIONS, ShadowRun
from service.settings import ServeConfig
from service.telemetry.prometheus import Metrics
from tests.indexes.changes import add, made
from tests.indexes.fakes import FakeEncoder, FakeShop, ids
from tests.service.conftest import wait_until_ready
from tests.service.engine.test_index_follower import eventually
from tests.service.shops import open_accented, write_shops
from tests.service.telemetry.test_prometheus import labelled, scrape


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    return write_shops(tmp_path_factory.mktemp("shops"))


@pytest.fixture
def client(shops: FakeShop) -> Iterator[TestClient]:
    with TestClient(create_app(ServeConfig(index=shops.index), open_accented)) as client:
        wait_until_ready(client)
        yield client


def begin(client: TestClient, name: str, share: float = 1.0) -> None:
    answer = client.post("/admin/shadow", json={"index": name, "share": share})
    assert answer.status_code == 200, answer.text


def found(client: TestClient, item_id: str, relation: str = "gardeners") -> list[tuple[str, float]]:
    body = {"item_id": item_id, "relation": relation, "k": 5}
    results = client.post("/retrieve", json=body).json()["results"]
    return [(result["item"]["item_id"], result["score"]) for result in results]


def state(client: TestClient, compared: int) -> Any:
    """Return the figures of the shadow run once `compared` queries have been compared."""
    eventually(lambda: client.get("/admin/shadow").json()["compared"] >= compared)
    told = client.get("/admin/shadow").json()
    assert told["compared"] == compared
    return told


def test_same_index_gives_identical_results(client: TestClient) -> None:
    begin(client, "index")
    for item_id in ids():
        found(client, item_id)
    told = state(client, len(ids()))
    assert told["version"] == told["against"]
    assert told["overlap"] == {"mean": 1, "p5": 1, "p50": 1, "identical": 1}
    assert told["score_shift"] == {"mean": 0, "p95": 0}
    assert told["rank_correlation"] == 1
    assert (told["failed"], told["error_share"], told["dropped"]) == ({}, 0, 0)
    assert told["latency"]["live_ms"] > 0


def test_figures_show_different_items_scores_and_order(client: TestClient, shops: FakeShop) -> None:
    begin(client, "candidate")
    live = {item_id: dict(found(client, item_id)) for item_id in ids()}
    told = state(client, len(ids()))
    other = ServeConfig(index=shops.index.with_name("candidate"))
    with TestClient(create_app(other, open_accented)) as apart:
        wait_until_ready(apart)
        candidate = {item_id: dict(found(apart, item_id)) for item_id in ids()}
    common = {item_id: live[item_id].keys() & candidate[item_id].keys() for item_id in ids()}
    shifts = [candidate[one][other] - live[one][other] for one in ids() for other in common[one]]
    assert told["overlap"]["mean"] == pytest.approx(sum(map(len, common.values())) / 5 / len(ids()))
    assert told["score_shift"]["mean"] == pytest.approx(sum(shifts) / len(shifts), abs=1e-6)
    assert told["score_shift"]["p95"] <= max(map(abs, shifts))
    assert 0 < told["overlap"]["mean"] < 1
    assert -1 <= told["rank_correlation"] < 1


def test_samples_share_of_traffic(client: TestClient) -> None:
    begin(client, "candidate", 0.25)
    for _ in range(40):
        found(client, "bib")
    assert state(client, 10)["share"] == 0.25


def test_samples_only_queries_that_name_an_item_and_a_relation_by_id(client: TestClient) -> None:
    begin(client, "candidate")
    assert client.post("/retrieve", json={"text": "A mug", "relation": "gardeners"}).status_code == 200
    assert client.post("/retrieve", json={"item_id": "bib"}).status_code == 200
    found(client, "bib")
    state(client, 1)


def test_counts_items_and_relations_unknown_to_candidate(tmp_path: Path) -> None:
    shop = write_shops(tmp_path, token_store=True)
    live = Index.open(shop.index)
    live.apply([made("new-lamp", 3)])
    add(live)
    live.close()
    with TestClient(create_app(ServeConfig(index=shop.index), open_accented)) as client:
        wait_until_ready(client)
        begin(client, "renewed")
        found(client, "new-lamp")
        found(client, "bib", relation="sailors")
        found(client, "bib")
        told = state(client, 1)
        assert told["failed"] == {"unknown-item": 1, "unknown-relation": 1}
        assert told["error_share"] == pytest.approx(2 / 3)


class StuckEngine(Engine):
    """An engine that blocks until `go_on` is set, and then raises an error if `fails` is set."""

    go_on: asyncio.Event
    fails = False

    async def retrieve(self, reader: Reader, question: Question) -> Ranking:
        await self.go_on.wait()
        if self.fails:
            raise ZeroDivisionError
        return await super().retrieve(reader, question)


async def offered(engine: Engine, stuck: StuckEngine, times: int) -> ShadowRun:
    """Run a shadow run with a stuck candidate: offer one query `times` times, then unblock the candidate."""
    stuck.go_on = asyncio.Event()
    trial = ShadowRun(stuck, 1.0, Metrics())
    question = Question(KnownItems(("bib",)), (Weighted("gardeners"),), Similarity.AVG, 5)
    reader = engine.index.reader()
    snapshot, (hits, _) = reader.snapshot, await engine.retrieve(reader, question)
    for _ in range(times):
        trial.offer(engine, question, snapshot, hits, 0.001)
    stuck.go_on.set()
    while sum(trial.outcomes.values()) < times:
        await asyncio.sleep(0.01)
    await trial.close()
    return trial


def test_drops_queries_that_exceed_queue(engine: Engine, config: ServeConfig) -> None:
    stuck = StuckEngine.open(config, lambda *_: FakeEncoder())
    trial = asyncio.run(offered(engine, stuck, MAX_WAITING_QUESTIONS + 5))
    assert trial.outcomes == {"dropped": 5, "compared": MAX_WAITING_QUESTIONS}


def test_counts_failures_and_continues(engine: Engine, config: ServeConfig) -> None:
    stuck = StuckEngine.open(config, lambda *_: FakeEncoder())
    stuck.fails = True
    trial = asyncio.run(offered(engine, stuck, 3))
    assert trial.outcomes == {"failed": 3}


def test_reload_resets_figures(client: TestClient) -> None:
    begin(client, "candidate")
    for _ in range(3):
        found(client, "bib")
    state(client, 3)
    assert client.post("/admin/reload", json={"index": "candidate"}).status_code == 200
    for _ in range(2):
        found(client, "bib")
    told = state(client, 2)
    assert told["overlap"]["identical"] == 1
    assert told["version"] == told["against"]


def test_rejects_second_shadow_run(client: TestClient) -> None:
    begin(client, "candidate")
    answer = client.post("/admin/shadow", json={"index": "renewed", "share": 1})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:rcml:problem:busy")
    assert "DELETE /admin/shadow" in answer.json()["detail"]
    assert client.delete("/admin/shadow").status_code == 204
    begin(client, "renewed")


def test_ended_shadow_run_leaves_no_threads(client: TestClient) -> None:
    threads = threading.active_count()
    begin(client, "candidate")
    for _ in range(5):
        found(client, "bib")
    assert client.delete("/admin/shadow").status_code == 204
    for method in ("GET", "DELETE"):
        answer = client.request(method, "/admin/shadow")
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:rcml:problem:no-shadow")
    assert len(found(client, "bib")) == 5
    # The thread pools of the serving engine grow with use.
    eventually(lambda: threading.active_count() <= threads + 2)


@pytest.mark.parametrize("share", [0, -0.1, 1.1, "1", True, None])
def test_rejects_invalid_share(client: TestClient, share: object) -> None:
    answer = client.post("/admin/shadow", json={"index": "candidate", "share": share})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/share")


def test_rejects_candidate_that_cannot_be_served(client: TestClient) -> None:
    answer = client.post("/admin/shadow", json={"index": "checkpoint", "share": 1})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:rcml:problem:not-servable")
    begin(client, "candidate")


def test_shadow_run_updates_prometheus_metrics(client: TestClient) -> None:
    begin(client, "index")
    for _ in range(3):
        found(client, "bib")
    state(client, 3)
    samples = scrape(client)
    assert samples["rcml_shadow_questions_total"][labelled(outcome="compared")] == 3
    assert samples["rcml_shadow_overlap_sum"][labelled()] == 3
