"""Tests that a worker which is killed costs only its own requests, and that no process outlives the parent."""

import asyncio
import os
import random
import re
import resource
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from indexes.index import Index
from tests.indexes.fakes import FakeShop
from tests.service.shops import write_shops
from tests.service.test_serve import QUESTION, stop_under_load

from .worker_server import WorkerServer, alive, clients, eventually, running

CONNECTIONS = 12


@dataclass
class Load:
    """Requests of many clients, and the connections that broke."""

    port: int
    answered: int = 0
    opened: int = 0
    statuses: set[int] = field(default_factory=set)
    broken: list[int] = field(default_factory=list)
    """Numbers of the connections that broke; the IDs of their requests begin with them."""
    refused: list[str] = field(default_factory=list)
    stopped: bool = False

    async def ask(self) -> None:
        """Send requests one after another, and open a new connection if one breaks."""
        while not self.stopped:
            self.opened += 1
            number = self.opened
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError as error:
                self.refused.append(repr(error))
                return
            try:
                for turn in range(10**9):
                    if self.stopped:
                        break
                    self.statuses.add(await _ask_once(reader, writer, f"{number}-{turn}"))
                    self.answered += 1
            except (OSError, asyncio.IncompleteReadError):
                self.broken.append(number)
            writer.transport.abort()


async def _ask_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request_id: str) -> int:
    head = (
        f"POST /retrieve HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n"
        f"X-Request-Id: {request_id}\r\nContent-Length: {len(QUESTION)}\r\n\r\n"
    )
    writer.write(head.encode() + QUESTION)
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = re.search(rb"content-length: (\d+)", answer)
    assert length
    await reader.readexactly(int(length[1]))
    return int(answer.split()[1])


async def _until(condition: object) -> None:
    assert callable(condition)
    while not condition():
        await asyncio.sleep(0.01)


async def _kill_under_load(server: WorkerServer, kills: int) -> tuple[Load, list[int]]:
    """Kill one worker after another, and return the load and the numbers of the killed workers."""
    load = Load(int(server.url.rpartition(":")[2]))
    asking = [asyncio.create_task(load.ask()) for _ in range(CONNECTIONS)]
    killed: list[int] = []
    for _ in range(kills):
        answered = load.answered
        await _until(lambda before=answered: load.answered > before + 100)
        before = server.pids()
        pid = random.choice([*before])
        os.kill(pid, signal.SIGKILL)
        ended = rf"Worker (\d+) \(process {pid}\) ended by SIGKILL"
        await _until(lambda ended=ended: any(re.match(ended, one) for one in server.messages()))
        killed += [int(found[1]) for one in server.messages() if (found := re.match(ended, one))]
        answered = load.answered
        await _until(lambda before=answered: load.answered > before + 100)
        await _until(lambda: len(server.pids()) == 2 and "rcml_workers 2.0" in _metrics(server))
    load.stopped = True
    await asyncio.gather(*asking)
    return load, killed


def _metrics(server: WorkerServer) -> str:
    return httpx.get(f"{server.url}/metrics", timeout=600).text


@pytest.mark.parametrize("kills", [2, pytest.param(200, marks=pytest.mark.soak)])
def test_killed_worker_loses_only_its_own_requests(server: WorkerServer, kills: int) -> None:
    load, killed = asyncio.run(_kill_under_load(server, kills))
    assert len(killed) == kills
    assert load.refused == []
    assert load.statuses == {200}
    assert len(load.broken) <= kills * CONNECTIONS
    workers: dict[int, set[int]] = {}
    for line in server.lines:
        if re.fullmatch(r"\d+-\d+", line.get("request_id", "")):
            workers.setdefault(int(line["request_id"].partition("-")[0]), set()).add(line["worker"])
    for number in load.broken:
        assert workers.get(number, set()) <= set(killed), "a connection to a worker that was not killed broke"
    assert all(len(of) == 1 for of in workers.values())
    total = r'rcml_requests_total\{method="POST",route="/retrieve",status="200"\} (\d+)'
    counted = re.search(total, _metrics(server))
    assert counted
    assert int(counted[1]) >= load.answered, "the counts of killed workers must remain"


def test_worker_that_cannot_be_started_is_started_later(shops: FakeShop) -> None:
    with running(shops.index, "workers=2", "open=accented") as server:
        before = server.pids()
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (8, limits[1]))
        os.kill(min(before), signal.SIGKILL)
        eventually(lambda: any("could not be started" in one for one in server.messages()))
        assert server.pids() == before - {min(before)}
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
        eventually(lambda: "rcml_workers 2.0" in _metrics(server))


def test_ctrl_c_while_workers_start_is_left_to_the_parent(shops: FakeShop) -> None:
    server = WorkerServer.start(shops.index, "workers=2", "open=accented")
    eventually(lambda: len(server.pids()) == 2)
    pids = server.pids()
    for pid in pids:
        os.kill(pid, signal.SIGINT)
    server.wait_until_ready()
    assert server.pids() == pids
    assert server.stop() == -signal.SIGTERM


@contextmanager
def _waiting_reload(server: WorkerServer, shops: FakeShop) -> "Iterator[Future[httpx.Response]]":
    """Ask worker 0 for a reload, which waits until the file `wait` is removed, or the context ends."""
    mark = shops.index.parent / "wait"
    mark.touch()
    found = clients(server)
    try:
        with ThreadPoolExecutor() as pool:
            try:
                answer = pool.submit(found[0].post, "/admin/reload", json={"index": "candidate"})
                eventually(lambda: "rcml_requests_in_flight 2.0" in found[1].get("/metrics").text)
                yield answer
            finally:
                mark.unlink(missing_ok=True)
    finally:
        for client in found.values():
            client.close()


@pytest.mark.parametrize("at_once", [False, True])
def test_second_stop_signal_ends_requests_only_if_it_is_ctrl_c(shops: FakeShop, at_once: bool) -> None:
    with (
        running(shops.index, "workers=2", "open=accented", "shutdown_seconds=600") as server,
        _waiting_reload(server, shops) as answer,
    ):
        for number in (signal.SIGTERM, signal.SIGINT if at_once else signal.SIGTERM):
            server.process.send_signal(number)
            time.sleep(1)  # the parent takes both signals, or this test would pass in any case
        if at_once:
            with pytest.raises(httpx.TransportError):
                answer.result()
        else:
            (shops.index.parent / "wait").unlink()
            assert answer.result().status_code == 200


def test_reload_is_answered_although_a_worker_ends_while_the_server_stops(shops: FakeShop) -> None:
    with (
        running(shops.index, "workers=2", "open=accented", "shutdown_seconds=60") as server,
        _waiting_reload(server, shops) as answer,
    ):
        last = max(server.pids())  # worker 1, which the reload waits for
        os.kill(last, signal.SIGSTOP)
        (shops.index.parent / "wait").unlink()
        time.sleep(1)  # worker 0 opens the candidate, or this test would pass in any case
        server.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        os.kill(last, signal.SIGKILL)
        assert answer.result().status_code == 200


def test_killed_parent_leaves_no_process_and_no_file(shops: FakeShop) -> None:
    with running(shops.index, "workers=2", "open=accented") as server:
        pids = server.pids()
        assert len(pids) == 2
        maps = Path(f"/proc/{min(pids)}/maps").read_text()
        found = re.search(r"(/\S+/rcml-\w+)/counters", maps)
        assert found
        assert Path(found[1]).is_dir()
        server.process.kill()
        eventually(lambda: not any(alive(pid) for pid in pids))
        assert not Path(found[1]).exists()


def _add_until_killed(client: httpx.Client, first: str, acknowledged: list[str]) -> None:
    """Add items until the server no longer answers; note the acknowledged ones."""
    with suppress(httpx.TransportError):
        for number in range(10**9):
            item_id = f"{first}-{number}"
            assert client.put(f"/items/{item_id}", json={"title": f"Can {item_id}"}).status_code == 201
            acknowledged.append(item_id)


@pytest.mark.parametrize("kills", [2, pytest.param(200, marks=pytest.mark.soak)])
def test_killed_parent_loses_no_acknowledged_change(tmp_path: Path, kills: int) -> None:
    shop, acknowledged = write_shops(tmp_path), list[str]()
    for turn in range(kills):
        with running(shop.index, "workers=2", "open=accented", "log_level=error") as server:
            pids, ways = server.pids(), [httpx.Client(base_url=server.url, timeout=600) for _ in range(4)]
            earlier = len(acknowledged)
            with ThreadPoolExecutor(len(ways)) as pool:
                adding = [
                    pool.submit(_add_until_killed, way, f"{turn}-{number}", acknowledged)
                    for number, way in enumerate(ways)
                ]
                eventually(lambda before=earlier: len(acknowledged) > before + 20)
                server.process.kill()
                for one in adding:
                    one.result()
            eventually(lambda before=pids: not any(alive(pid) for pid in before))
        with closing(Index.open(shop.index)) as index:
            kept = {item.item_id for _, item in index.reader().snapshot.page(0, 10**9)}
        assert set(acknowledged) - kept == set()


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.soak)])
def test_answers_every_sent_request_after_sigterm_under_load(shops: FakeShop, times: int) -> None:
    for _ in range(times):
        with running(shops.index, "workers=2", "open=accented", "log_level=warning") as server:
            port = int(server.url.rpartition(":")[2])
            tally = asyncio.run(stop_under_load(server.process, port))
            assert server.process.wait(600) == -signal.SIGTERM
            assert tally.failed == []


@pytest.mark.soak  # takes half a minute, because a shorter standstill is normal on a busy machine
def test_worker_that_hangs_is_replaced(shops: FakeShop) -> None:
    with running(shops.index, "workers=2", "open=accented", "worker_patience=0.1") as server:
        pid = min(server.pids())
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: not alive(pid))
        assert any(
            re.match(r"Worker \d stood still for \d+ s and is killed", one) for one in server.messages()
        )
        eventually(lambda: len(server.pids()) == 2)
        eventually(lambda: "rcml_workers 2.0" in _metrics(server))


@pytest.mark.parametrize("times", [6, pytest.param(1_000, marks=pytest.mark.soak)])
def test_reload_is_never_half_even_if_a_worker_is_killed_during_it(server: WorkerServer, times: int) -> None:
    asked = {"item_id": "bib", "relation": "gardeners"}
    known: dict[str, str] = {}
    for turn in range(times):
        name = ("candidate", "index")[turn % 2]
        both = clients(server)
        if turn % 3 == 2:
            os.kill(random.choice([*server.pids()]), signal.SIGKILL)
        try:
            answer = both[turn // 2 % 2].post("/admin/reload", json={"index": name})
        except httpx.TransportError:
            answer = None  # the request was in the killed worker
        for client in both.values():
            client.close()
        if answer is not None:
            assert answer.status_code == 200, answer.text
            known.setdefault(name, answer.json()["after"])
            assert answer.json()["after"] == known[name]
        both = clients(server)
        versions = {client.post("/retrieve", json=asked).json()["version"] for client in both.values()}
        assert len(versions) == 1
        assert answer is None or versions == {known[name]}
        for client in both.values():
            client.close()
