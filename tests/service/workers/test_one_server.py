"""Tests that a server with two workers looks like one process: each client asks both workers."""

import json
import re
import shutil
from pathlib import Path

import httpx

from tests.indexes.fakes import FakeShop, write_shop

from .worker_server import WorkerServer, clients, eventually, running

ASKED = {"item_id": "bib", "relation": "gardeners"}


def test_change_is_seen_by_the_next_request_to_another_worker(both: list[httpx.Client]) -> None:
    for turn in range(20):
        writer, reader = both[turn % 2], both[1 - turn % 2]
        path = f"/items/seen-{turn}"
        assert writer.put(path, json={"title": f"Green can {turn}"}).status_code == 201
        assert reader.get(path).json()["title"] == f"Green can {turn}"
        assert reader.put(path, json={"title": "Blue can"}).status_code == 200
        assert writer.get(path).json()["title"] == "Blue can"
        assert reader.delete(path).status_code == 204
        assert writer.get(path).status_code == 404


def test_question_sees_the_change_that_another_worker_acknowledged(both: list[httpx.Client]) -> None:
    for turn in range(20):
        writer, reader = both[turn % 2], both[1 - turn % 2]
        item_id, asked = f"asked-{turn}", {"item_id": f"asked-{turn}", "relation": "gardeners"}
        assert writer.put(f"/items/{item_id}", json={"title": f"Red can {turn}"}).status_code == 201
        answer = reader.post("/retrieve", json=asked)
        assert answer.status_code == 200, answer.text
        assert answer.json()["query"]["title"] == f"Red can {turn}"
        assert writer.delete(f"/items/{item_id}").status_code == 204
        assert reader.post("/retrieve", json=asked).status_code == 404


def test_bulk_upload_is_seen_by_the_next_request_to_another_worker(both: list[httpx.Client]) -> None:
    lines = "".join(
        json.dumps({"upsert": {"item_id": f"bulk-{n}", "title": f"Can {n}"}}) + "\n" for n in range(100)
    )
    headers = {"Content-Type": "application/x-ndjson"}
    answer = both[0].post("/items/bulk", content=lines, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.text.count('"status":201') == 100, answer.text
    assert {both[1].get(f"/items/bulk-{n}").status_code for n in range(100)} == {200}


def test_info_and_metrics_are_those_of_the_server(server: WorkerServer, both: list[httpx.Client]) -> None:
    started = {client.get("/info").json()["started"] for client in both}
    assert len(started) == 1

    def counted(client: httpx.Client) -> int:
        text = client.get("/metrics").text
        found = re.search(r'rcml_requests_total\{method="POST",route="/retrieve",status="200"\} (\d+)', text)
        return int(found[1]) if found else 0

    before = counted(both[0])
    for number, client in enumerate(both):
        for _ in range(number + 2):
            assert client.post("/retrieve", json=ASKED).status_code == 200
    eventually(lambda: [counted(client) - before for client in both] == [5, 5])
    text = both[1].get("/metrics").text
    assert "rcml_workers 2.0" in text
    connections = re.search(r"rcml_connections (\d+)", text)
    assert connections
    assert int(connections[1]) >= 2


def test_counts_need_no_more_room_while_the_server_runs(
    server: WorkerServer, both: list[httpx.Client]
) -> None:
    for client in both:
        assert client.post("/retrieve", json=ASKED).status_code == 200
    maps = Path(f"/proc/{min(server.pids())}/maps").read_text()
    folder = re.search(r"(/\S+/rcml-\w+)/counters", maps)
    assert folder
    files = [one.stat() for one in Path(folder[1]).iterdir()]
    assert len(files) == 8  # three files of counts for each worker, the counters and the buckets
    assert all(512 * one.st_blocks >= one.st_size for one in files)


def test_shadow_run_is_refused_with_the_remedy(both: list[httpx.Client]) -> None:
    answer = both[1].post("/admin/shadow", json={"index": "candidate", "share": 1})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:rcml:problem:one-process")
    assert "--workers 1" in answer.json()["detail"]


def test_reload_reaches_both_workers_or_none(server: WorkerServer, both: list[httpx.Client]) -> None:
    def versions() -> list[str]:
        return [client.post("/retrieve", json=ASKED).json()["version"] for client in both]

    first = versions()
    assert first[0] == first[1]
    swap = both[1].post("/admin/reload", json={"index": "candidate"}).json()
    assert versions() == [swap["after"]] * 2
    assert swap["before"] == first[0] != swap["after"]
    for name in ("nothing", "checkpoint"):
        answer = both[0].post("/admin/reload", json={"index": name})
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:rcml:problem:not-servable")
        assert f"Index {name!r} cannot be served" in answer.json()["detail"]
        assert versions() == [swap["after"]] * 2
    back = both[0].post("/admin/reload", json={"index": "index"}).json()
    assert versions() == [back["after"]] * 2 == first


def test_reload_that_one_worker_cannot_open_changes_nothing(
    shops: FakeShop, both: list[httpx.Client], server: WorkerServer
) -> None:
    """The encoder of the checkpoint fails in worker 1 alone, as if its memory were exhausted."""
    before = [client.post("/retrieve", json=ASKED).json()["version"] for client in both]
    mark = shops.index.parent / "fails-in-worker-1"
    mark.touch()
    try:
        answer = both[0].post("/admin/reload", json={"index": "candidate"})
    finally:
        mark.unlink()
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:rcml:problem:no-room")
    assert [client.post("/retrieve", json=ASKED).json()["version"] for client in both] == before
    assert both[1].post("/admin/reload", json={"index": "index"}).status_code == 200


def test_starts_once_for_the_user_and_names_the_worker_in_the_log(server: WorkerServer) -> None:
    assert sum(message.startswith("Serving 12 items") for message in server.messages()) == 1
    assert {line["worker"] for line in server.lines if line.get("logger") == "rcml.requests"} == {0, 1}


def test_rate_limit_is_exact_over_both_workers(shops: FakeShop) -> None:
    with running(shops.index, "workers=2", "open=accented", "rate_limit=0.001", "rate_burst=30") as server:
        found = clients(server)
        ids = [f"limited-{number}" for number in range(64)]
        statuses = [
            found[number % 2].post("/retrieve", json=ASKED, headers={"X-Request-Id": one}).status_code
            for number, one in enumerate(ids)
        ]
        assert set(server.workers_of(ids).values()) == {0, 1}
        assert statuses == [200] * 30 + [429] * 34
        for client in found.values():
            client.close()


def wait_until_indexed(client: httpx.Client, relation_id: str) -> None:
    eventually(lambda: client.get(f"/relations/{relation_id}").json()["state"] == "indexed")


def test_relation_is_added_and_removed_by_any_worker(tmp_path: Path) -> None:
    shop = write_shop(tmp_path, token_store=True)
    with running(shop.index, "workers=2") as server:
        found = clients(server)
        one, other = found[0], found[1]
        added = {"relation_id": "picnic", "description": "Used together at a picnic."}
        for first, second in ((one, other), (other, one)):
            answer = first.post("/relations", json=added)
            assert (answer.status_code, answer.headers["location"]) == (202, "/relations/picnic")
            wait_until_indexed(second, "picnic")
            for client in (first, second):
                assert client.get("/relations/picnic").json()["state"] == "indexed"
                asked = {"item_id": "bib", "relation": "picnic"}
                assert client.post("/retrieve", json=asked).status_code == 200
            assert first.post("/relations", json=added).status_code == 422
            assert second.delete("/relations/picnic").status_code == 204
            for client in (first, second):
                assert client.post("/retrieve", json=asked).status_code == 404
                assert client.get("/relations/picnic").status_code == 404
        for client in found.values():
            client.close()


def test_index_that_cannot_be_opened_ends_the_server_with_the_reason(shops: FakeShop, tmp_path: Path) -> None:
    shutil.copytree(shops.checkpoint, tmp_path / "checkpoint")
    server = WorkerServer.start(tmp_path / "checkpoint", "workers=2")
    assert server.process.wait(600) == 1
    eventually(lambda: any("is a checkpoint, but an index is required" in one for one in server.messages()))
    assert sum("is required" in one for one in server.messages()) == 1
    assert not any("Traceback" in one for one in server.messages())
