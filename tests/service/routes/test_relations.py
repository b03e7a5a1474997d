"""Relations over HTTP: their details, and relations that are added and deleted while the server runs."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest
from starlette.testclient import TestClient

from indexes.admin.inspection import verify
from indexes.config import VerifyConfig
from indexes.index import Index
from indexes.storage.layout import generations
from model.errors import StorageError
from model.records import Relation
from service.app import create_app
from service.lifecycle.relation_jobs import MAX_UNFINISHED_JOBS
from service.settings import ServeConfig
from tests.indexes.changes import GIFTS, SAILORS, copied
from tests.indexes.fakes import RELATIONS, FakeShop
from tests.service.conftest import wait_until_ready
from tests.service.engine.test_index_follower import eventually
from tests.service.shops import open_accented, write_shops


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    return write_shops(tmp_path_factory.mktemp("worded"), token_store=True)


@pytest.fixture
def folder(worded: FakeShop, tmp_path: Path) -> Path:
    return copied(worded, tmp_path)


@pytest.fixture
def adding(folder: Path) -> Iterator[TestClient]:
    """Serve an index to which relations can be added."""
    with TestClient(create_app(ServeConfig(index=folder), open_accented)) as client:
        wait_until_ready(client)
        yield client


def posted(client: TestClient, relation: Relation = SAILORS) -> Any:
    return client.post(
        "/relations", json={"relation_id": relation.relation_id, "description": relation.description}
    )


def indexed(client: TestClient, relation_id: str = "sailors") -> None:
    eventually(lambda: client.get(f"/relations/{relation_id}").json()["state"] == "indexed")


def pending(client: TestClient) -> dict[str, str]:
    listed = client.get("/relations").json()["pending"]
    return {one["relation_id"]: one["state"] for one in listed}


def test_lists_all_relations_with_their_details(client: TestClient) -> None:
    told = client.get("/relations").json()
    listed = told["relations"]
    assert [one["relation_id"] for one in listed] == [one.relation_id for one in RELATIONS]
    assert [one["description"] for one in listed] == [one.description for one in RELATIONS]
    assert [one["intra"] for one in listed] == [True, False, False, False]
    assert [one["pairs"] for one in listed] == [None, 1, 0, 2]
    assert [one["paired_items"] for one in listed] == [None, 2, 0, 3]
    assert [one["users"] for one in listed] == [None] * 4
    assert [one["name"] for one in listed] == [
        "Look-alikes", "Gardeners", "Worn together / office", "New parents",
    ]  # fmt: skip
    assert {one["origin"] for one in listed} == {"trained"}
    assert {one["state"] for one in listed} == {"indexed"}
    assert {one["quality"] for one in listed} == {None}
    assert (told["report"], told["pending"]) == (None, [])


def test_lists_sample_pairs_with_their_items(client: TestClient) -> None:
    listed = client.get("/relations").json()["relations"]
    assert [len(one["sample_pairs"]) for one in listed] == [0, 1, 0, 2]
    assert listed[1]["sample_pairs"] == [
        {
            "item_a": {"item_id": "trowel", "title": "Steel trowel", "categories": ["Garden", "Tools"],
                       "image_url": "/items/trowel/image"},
            "item_b": {"item_id": "twin-1", "title": "Green watering can", "categories": ["Garden", "Tools"],
                       "image_url": "/items/twin-1/image"},
            "support": 5,
        }
    ]  # fmt: skip


def test_sample_pair_of_a_deleted_item_is_left_out(adding: TestClient) -> None:
    assert adding.delete("/items/bib").status_code == 204
    told = adding.get("/relations/new-parents").json()
    assert [one["item_b"]["item_id"] for one in told["sample_pairs"]] == ["cot"]
    assert told["pairs"] == 2


def test_added_relation_keeps_its_name(adding: TestClient) -> None:
    asked = {"relation_id": "sailors", "description": SAILORS.description, "name": "Sailors' stripes"}
    assert adding.post("/relations", json=asked).json()["name"] == "Sailors' stripes"
    indexed(adding)
    assert adding.get("/relations/sailors").json()["name"] == "Sailors' stripes"
    question = {"item_id": "bib", "relation": "sailors", "k": 1}
    assert adding.post("/retrieve", json=question).json()["relation"]["name"] == "Sailors' stripes"


def test_name_of_an_added_relation_is_one_line(adding: TestClient) -> None:
    asked = {"relation_id": "sailors", "description": SAILORS.description, "name": "two\nlines"}
    told = adding.post("/relations", json=asked)
    assert told.status_code == 422
    assert "cannot be the name of a relation" in told.json()["detail"]


def test_returns_a_relation_by_its_id(client: TestClient) -> None:
    listed = {one["relation_id"]: one for one in client.get("/relations").json()["relations"]}
    assert client.get("/relations/worn%20together%20%2F%20office").json() == listed["worn together / office"]
    missing = client.get("/relations/pirates")
    assert (missing.status_code, missing.json()["type"]) == (404, "urn:rcml:problem:unknown-relation")


def test_added_relation_gives_the_same_results_as_its_free_text(adding: TestClient) -> None:
    answer = posted(adding, GIFTS)
    assert (answer.status_code, answer.headers["location"]) == (202, "/relations/gifts%20%2F%20new")
    assert (answer.json()["origin"], answer.json()["state"]) == ("added", "waiting")
    indexed(adding, "gifts%20%2F%20new")
    told = adding.get(answer.headers["location"]).json()
    assert (told["origin"], told["pairs"], told["quality"]) == ("added", None, None)
    assert (told["done"], told["total"], told["reason"]) == (0, 0, None)
    assert adding.get("/relations").json()["relations"][-1] == told
    by_id = adding.post("/retrieve", json={"item_id": "bib", "relation": "gifts / new", "k": 5}).json()
    words = {"description": GIFTS.description}
    by_words = adding.post("/retrieve", json={"item_id": "bib", "relation": words, "k": 5}).json()
    assert (by_id["how"], by_words["how"]) == ("indexed", "rescored")
    assert items(by_id) == items(by_words)


def items(answer: Any) -> list[str]:
    return [result["item"]["item_id"] for result in answer["results"]]


def test_adds_several_relations_in_order(adding: TestClient) -> None:
    for number in range(3):
        assert posted(adding, Relation(f"r{number}", f"Striped for {number}.")).status_code == 202
    eventually(lambda: pending(adding) == {})
    listed = [one["relation_id"] for one in adding.get("/relations").json()["relations"]]
    assert listed[-3:] == ["r0", "r1", "r2"]


class SlowIndex:
    """Patch that pauses `Index.add_relation` at its progress reports until `go_on` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = Event(), Event()
        add_relation = Index.add_relation

        def held_up(
            index: Index, relation: Relation, worded: Any, progress: Callable[[int, int], None], announce: Any
        ) -> None:
            def slow(done: int, total: int) -> None:
                progress(done, total)
                self.begun.set()
                assert self.go_on.wait(600)
                progress(done, total)

            add_relation(index, relation, worded, slow, announce)

        monkeypatch.setattr(Index, "add_relation", held_up)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowIndex]:
    slow = SlowIndex(monkeypatch)
    yield slow
    slow.go_on.set()


def test_pending_relation_reports_progress_and_is_usable_only_by_its_description(
    adding: TestClient, slow: SlowIndex
) -> None:
    posted(adding)
    assert slow.begun.wait(600)
    posted(adding, GIFTS)
    told = adding.get("/relations/sailors").json()
    assert (told["state"], told["origin"]) == ("embedding", "added")
    assert 0 < told["done"] < told["total"]
    assert pending(adding) == {"sailors": "embedding", "gifts / new": "waiting"}
    unknown = adding.post("/retrieve", json={"item_id": "bib", "relation": "sailors"})
    assert unknown.status_code == 404
    words = {"description": SAILORS.description}
    assert adding.post("/retrieve", json={"item_id": "bib", "relation": words}).status_code == 200
    slow.go_on.set()
    indexed(adding)
    eventually(lambda: pending(adding) == {})


@pytest.mark.parametrize(
    ("relation", "says"),
    [
        (Relation("gardeners", "Anything."), "Relation 'gardeners' already exists. Choose another ID."),
        (Relation("new", RELATIONS[1].description), "Relation 'gardeners' already has the description"),
        (Relation("a\nb", "Anything."), "cannot be the ID of a relation"),
        (Relation("new", " "), "cannot be the description of a relation"),
        (SAILORS, "Relation 'sailors' is already being added"),
        (Relation("new", SAILORS.description), "Relation 'sailors', which is being added, has the same description"),
    ],
)  # fmt: skip
def test_rejects_an_invalid_relation_immediately(
    adding: TestClient, slow: SlowIndex, relation: Relation, says: str
) -> None:
    posted(adding)
    answer = posted(adding, relation)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:rcml:problem:unfit-relation")
    assert says in answer.json()["detail"]


def test_returns_429_for_too_many_unfinished_jobs(adding: TestClient, slow: SlowIndex) -> None:
    statuses = [
        posted(adding, Relation(f"r{n}", f"Striped for {n}.")).status_code
        for n in range(MAX_UNFINISHED_JOBS + 1)
    ]
    assert statuses == [202] * MAX_UNFINISHED_JOBS + [429]
    again = posted(adding)
    assert again.headers["retry-after"] == "5"
    assert "GET /relations" in again.json()["detail"]


def test_rejects_a_new_relation_without_stored_tokens(client: TestClient) -> None:
    answer = posted(client)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:rcml:problem:no-tokens")
    assert "--token-store" in answer.json()["detail"]


def test_added_relation_can_be_deleted_and_added_again(adding: TestClient) -> None:
    posted(adding)
    indexed(adding)
    assert adding.delete("/relations/sailors").status_code == 204
    assert adding.get("/relations/sailors").status_code == 404
    assert adding.delete("/relations/sailors").status_code == 404
    posted(adding)
    indexed(adding)


def test_relation_is_gone_even_if_it_is_deleted_while_its_job_ends(
    adding: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = Event()
    add_relation = Index.add_relation

    def held_up(*arguments: Any) -> None:
        add_relation(*arguments)
        assert go_on.wait(600)

    monkeypatch.setattr(Index, "add_relation", held_up)
    posted(adding)
    while adding.get("/relations/sailors").json()["state"] != "indexed":
        time.sleep(0.01)
    Timer(0.2, go_on.set).start()
    assert adding.delete("/relations/sailors").status_code == 204
    assert adding.get("/relations/sailors").status_code == 404


def test_relation_that_a_reloaded_index_has_is_deleted_while_its_job_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = write_shops(tmp_path, token_store=True)
    with TestClient(create_app(ServeConfig(index=shop.index), open_accented)) as client:
        wait_until_ready(client)
        client.post("/admin/reload", json={"index": "renewed"})
        posted(client)
        indexed(client)
        client.post("/admin/reload", json={"index": shop.index.name})
        slow = SlowIndex(monkeypatch)
        posted(client, GIFTS)
        posted(client)
        assert slow.begun.wait(600)
        assert client.post("/admin/reload", json={"index": "renewed"}).status_code == 200
        assert client.delete("/relations/sailors").json()["type"] == "urn:rcml:problem:busy"
        slow.go_on.set()
        eventually(lambda: client.delete("/relations/sailors").status_code == 204)
        assert client.get("/relations/sailors").status_code == 404


def test_rejects_deleting_a_trained_relation(adding: TestClient) -> None:
    answer = adding.delete("/relations/gardeners")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:rcml:problem:trained-relation")
    assert adding.get("/relations/gardeners").status_code == 200


def test_deleting_a_pending_relation_cancels_its_job(
    adding: TestClient, slow: SlowIndex, folder: Path
) -> None:
    posted(adding)
    posted(adding, GIFTS)
    assert slow.begun.wait(600)
    assert adding.delete("/relations/sailors").status_code == 204
    slow.go_on.set()
    indexed(adding, "gifts / new")
    listed = [one["relation_id"] for one in adding.get("/relations").json()["relations"]]
    assert listed == [*(one.relation_id for one in RELATIONS), "gifts / new"]


def test_rejects_deleting_a_relation_while_another_is_being_added(
    adding: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted(adding)
    indexed(adding)
    slow = SlowIndex(monkeypatch)
    posted(adding, GIFTS)
    assert slow.begun.wait(600)
    answer = adding.delete("/relations/sailors")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:rcml:problem:busy")
    slow.go_on.set()
    eventually(lambda: adding.delete("/relations/sailors").status_code == 204)


def test_failed_relation_reports_a_reason_without_paths_and_can_be_retried(
    adding: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StorageError(f"The disk of {folder} is full.")

    with monkeypatch.context() as broken:
        broken.setattr(Index, "add_relation", fail)
        posted(adding)
        eventually(lambda: pending(adding) == {"sailors": "failed"})
    told = adding.get("/relations/sailors").json()
    assert told["reason"] == (
        "The index could not be changed. See the server log for the cause, and add the relation again."
    )
    assert posted(adding).status_code == 202
    indexed(adding)
    eventually(lambda: pending(adding) == {})


def test_stopping_server_cancels_its_jobs(slow: SlowIndex, folder: Path) -> None:
    with TestClient(create_app(ServeConfig(index=folder), open_accented)) as client:
        wait_until_ready(client)
        posted(client)
        posted(client, GIFTS)
        assert slow.begun.wait(600)
        Timer(0.2, slow.go_on.set).start()
    assert [path.name for path in generations(folder)] == ["generation-000001"]
    assert not list(folder.glob(".generation-*"))
    assert "12 items" in verify(VerifyConfig(index=folder))


def test_restarts_the_job_on_a_reloaded_index(slow: SlowIndex, tmp_path: Path) -> None:
    shop = write_shops(tmp_path, token_store=True)
    with TestClient(create_app(ServeConfig(index=shop.index), open_accented)) as client:
        wait_until_ready(client)
        posted(client)
        assert slow.begun.wait(600)
        assert client.post("/admin/reload", json={"index": "renewed"}).status_code == 200
        slow.go_on.set()
        indexed(client)
        answer = client.post("/retrieve", json={"item_id": "bib", "relation": "sailors"}).json()
        assert answer["how"] == "indexed"
    assert len(generations(shop.index)) == 1
    assert len(generations(shop.index.with_name("renewed"))) == 2
