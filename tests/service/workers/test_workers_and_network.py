"""Tests of a server whose two workers ask one network process."""

import os
import signal
from collections.abc import Iterator

import httpx
import pytest

from tests.indexes.fakes import FakeShop
from tests.service.shops import write_shops

from .worker_server import WorkerServer, alive, clients, eventually, running

NEW = {"text": "A green mug", "relation": "gardeners", "k": 5}


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    return write_shops(tmp_path_factory.mktemp("shops"))


@pytest.fixture(scope="module")
def server(shops: FakeShop) -> Iterator[WorkerServer]:
    with running(shops.index, "workers=2", "open=network") as server:
        yield server


@pytest.fixture
def both(server: WorkerServer) -> Iterator[list[httpx.Client]]:
    found = clients(server)
    yield [found[0], found[1]]
    for client in found.values():
        client.close()


def ready(both: list[httpx.Client]) -> bool:
    return [client.get("/readyz").status_code for client in both] == [200, 200]


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
