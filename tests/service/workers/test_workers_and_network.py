"""Tests of a server whose two workers ask one network process."""

import os
import signal

import httpx

from tests.indexes.fakes import FakeShop

from .worker_server import WorkerServer, alive, eventually, running

OPEN = "network"
"""How `server` opens the network; see `conftest.py`."""

NEW = {"text": "A green mug", "relation": "gardeners", "k": 5}


def ready(both: list[httpx.Client]) -> bool:
    """Return whether both workers are ready and use a network that runs; the end of one is noticed a little later."""
    asked = [client.post("/retrieve", json=NEW).status_code for client in both]
    return asked == [client.get("/readyz").status_code for client in both] == [200, 200]


def answers(both: list[httpx.Client]) -> list[object]:
    found = [client.post("/retrieve", json=NEW).json() for client in both]
    return [(one["version"], one["results"]) for one in found]


def test_both_workers_use_one_network_process(server: WorkerServer, both: list[httpx.Client]) -> None:
    assert len(server.network_pids()) == 1
    one, other = answers(both)
    assert one == other


def test_workers_go_on_with_the_next_network_process(server: WorkerServer, both: list[httpx.Client]) -> None:
    before = answers(both)
    pids, [network] = server.pids(), server.network_pids()
    os.kill(network, signal.SIGKILL)
    statuses = {client.post("/retrieve", json=NEW).status_code for _ in range(20) for client in both}
    assert statuses <= {200, 503}
    eventually(lambda: ready(both))
    assert answers(both) == before
    assert server.pids() == pids


def test_reload_opens_another_checkpoint_for_both_workers(both: list[httpx.Client]) -> None:
    before = answers(both)
    swap = both[1].post("/admin/reload", json={"index": "candidate"}).json()
    one, other = answers(both)
    assert one == other != before[0]
    assert isinstance(one, tuple)
    assert one[0] == swap["after"]
    assert both[0].post("/admin/reload", json={"index": "index"}).status_code == 200
    assert answers(both) == before


def test_reload_that_ends_the_network_process_is_answered_with_503_and_changes_nothing(
    shops: FakeShop, both: list[httpx.Client]
) -> None:
    before = answers(both)
    mark = shops.index.parent / "kills-the-network"
    mark.touch()
    try:
        answer = both[0].post("/admin/reload", json={"index": "candidate"})
    finally:
        mark.unlink()
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:rcml:problem:not-ready")
    assert "The network process has ended" in answer.json()["detail"]
    assert answer.headers["retry-after"] == "3"
    eventually(lambda: ready(both))
    assert answers(both) == before


def test_killed_parent_leaves_no_process(shops: FakeShop) -> None:
    with running(shops.index, "workers=2", "open=network") as server:
        pids = server.pids() | server.network_pids()
        assert len(pids) == 3
        server.process.kill()
        eventually(lambda: not any(alive(pid) for pid in pids))
