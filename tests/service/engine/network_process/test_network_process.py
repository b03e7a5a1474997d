"""Tests of the network process: its death, its restart, its end with its parent, and the server meanwhile."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from service.engine.model_jobs import EncodeItemJob
from service.engine.network_process.network_process import NetworkProcess
from service.engine.network_process.remote_network import RemoteNetwork
from service.problems.errors import NetworkLostError
from tests.indexes.fakes import FakeShop, write_checkpoint

from .encoders import network_process, open_deadly


def opened(process: NetworkProcess, shop: FakeShop) -> RemoteNetwork:
    return RemoteNetwork(process.address, shop.checkpoint, "auto", "auto", "auto", 600)


def item(text: str) -> EncodeItemJob:
    return EncodeItemJob(text, None)


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.001)


def alive(pid: int) -> bool:
    """Return whether a process exists that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_death_fails_its_jobs_and_the_next_process_answers(shop: FakeShop) -> None:
    with network_process() as process:
        network = opened(process, shop)

        async def scenario() -> list[object]:
            jobs = (item("kill"), item("mug"), item("cup"))
            return list(await asyncio.gather(*map(network.submit, jobs), return_exceptions=True))

        for _ in range(2):
            outcomes = asyncio.run(scenario())
            assert isinstance(outcomes[0], NetworkLostError)
            assert isinstance(outcomes[2], NetworkLostError)
            assert network.heartbeat.stuck_reason in (str(NetworkLostError()), None)
            wait_until(lambda: network.heartbeat.stuck_reason is None)
            asyncio.run(network.submit(item("mug")))
        assert len(network) == 0
        network.close()


def test_jobs_fail_at_once_while_the_process_is_away(shop: FakeShop) -> None:
    with network_process() as process:
        network = opened(process, shop)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)

        async def scenario() -> None:
            job = asyncio.create_task(network.submit(item("mug")))
            await asyncio.sleep(0)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            with pytest.raises(NetworkLostError):
                await job
            assert network.expected_wait(10**6) == 0  # so requests get the reason and not "overloaded"

        asyncio.run(scenario())
        network.close()


def test_job_that_always_ends_the_process_is_refused_and_other_jobs_are_not(shop: FakeShop) -> None:
    with network_process() as process:
        network = opened(process, shop)

        async def scenario() -> list[type[BaseException] | None]:
            jobs = (item("kill"), item("mug"))
            found = await asyncio.gather(*map(network.submit, jobs), return_exceptions=True)
            return [type(one) if isinstance(one, BaseException) else None for one in found]

        outcomes = []
        for _ in range(4):
            wait_until(lambda: network.heartbeat.stuck_reason is None)
            outcomes.append(asyncio.run(scenario()))
            wait_until(lambda: network.heartbeat.stuck_reason is None)
            asyncio.run(network.submit(item("mug")))
        assert [kill for kill, _ in outcomes] == [NetworkLostError] * 3 + [RuntimeError]
        assert outcomes[3][1] is None
        network.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_that_also_reaches_the_server_does_not_end_the_process(
    shop: FakeShop, number: signal.Signals
) -> None:
    with network_process() as process:
        network = opened(process, shop)
        pid = process.pid
        assert pid is not None
        os.kill(pid, number)
        asyncio.run(network.submit(item("mug")))
        assert process.pid == pid
        network.close()


def test_checkpoint_that_kills_the_process_is_not_opened_again_and_again(shop: FakeShop) -> None:
    with network_process(open_deadly) as process:
        for _ in range(2):
            with pytest.raises(NetworkLostError):
                opened(process, shop)


def test_replaced_checkpoint_is_not_opened_in_place_of_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, seed in (("checkpoint", 1), ("other", 2)):
        write_checkpoint(tmp_path / name, seed=seed)
    with network_process() as process:
        network = RemoteNetwork(process.address, tmp_path / "checkpoint", "auto", "auto", "auto", 600)
        (tmp_path / "checkpoint").rename(tmp_path / "kept")
        (tmp_path / "other").rename(tmp_path / "checkpoint")
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: "was replaced by another one. Put it back" in caplog.text)
        assert network.heartbeat.stuck_reason is not None
        (tmp_path / "checkpoint").rename(tmp_path / "other")
        (tmp_path / "kept").rename(tmp_path / "checkpoint")
        wait_until(lambda: network.heartbeat.stuck_reason is None)
        network.close()


def test_close_ends_the_process_and_removes_its_folder(shop: FakeShop) -> None:
    with network_process() as process:
        opened(process, shop).close()
        pid, folder = process.pid, process.address.parent
        assert (folder.stat().st_mode & 0o777, pid is None) == (0o700, False)
    assert pid is not None
    assert not alive(pid)
    assert not folder.exists()


def test_stuck_process_is_killed_when_it_is_closed(shop: FakeShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.network_process.network_process.STOP_S", 0.01)
    with network_process() as process:
        opened(process, shop).close()
        pid = process.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    assert not alive(pid)


SERVER = """
import sys
from pathlib import Path
from service.engine.network_process import network_process as supervision
from service.serve import closed_on_sigterm, serve
from service.settings import ServeConfig
from tests.service.engine.network_process.encoders import network_process

supervision.MAX_RESTART_DELAY_S = 0.1  # the pauses after 200 kills would take more than an hour
with closed_on_sigterm(), network_process() as process:
    def greeting(engine, url):
        torch = "torch" in sys.modules
        return [f"greetings from {url} and {process.pid} in {process.address.parent} with torch: {torch}"]

    config = ServeConfig(index=Path(sys.argv[1]), port=0, log_level="critical", worker_patience=float(sys.argv[2]))
    serve(config, greeting, process.opener(config.worker_patience))
"""


class Served:
    """A server in a process of its own, with an obedient encoder in a network process."""

    def __init__(self, shop: FakeShop, patience: float = 600) -> None:
        command = [sys.executable, "-c", SERVER, str(shop.index), str(patience)]
        self.server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.server.stderr is not None
        shown = ""
        for line in self.server.stderr:
            shown += line
            if found := re.search(r"greetings from (\S+) and (\d+) in (\S+) with torch: (\w+)", line):
                break
        else:
            raise AssertionError(shown)
        self.url, self.network, self.folder = found[1], int(found[2]), Path(found[3])
        assert found[4] == "False"

    def ask(self, text: str) -> httpx.Response:
        """Send a request that needs the network."""
        body = {"text": text, "relation": "gardeners"}
        return httpx.post(f"{self.url}/retrieve", json=body, timeout=600)

    def network_pid(self) -> int | None:
        """Return the ID of the network process that runs now."""
        tasks = Path(f"/proc/{self.server.pid}/task").glob("*/children")
        found = [int(child) for task in tasks for child in task.read_text().split()]
        return found[0] if found else None

    def end(self) -> None:
        self.server.terminate()
        assert self.server.wait(600) == -signal.SIGTERM

    def close(self) -> None:
        self.server.kill()
        self.server.communicate()


@pytest.fixture
def served(shop: FakeShop) -> Iterator[Served]:
    with closing(Served(shop)) as served:
        yield served


def test_server_answers_other_requests_and_tells_that_the_network_is_away(served: Served) -> None:
    assert served.ask("red mug").status_code == 200
    lost = served.ask("kill")
    assert (lost.status_code, lost.headers["Retry-After"]) == (503, "3")
    assert lost.json()["detail"].startswith("The network process has ended and is being restarted.")
    known = {"item_id": "cot", "relation": "gardeners"}
    statuses = Counter[tuple[int, int]]()
    while (ready := httpx.get(f"{served.url}/readyz", timeout=600)).status_code != 200:
        assert "The network process has ended" in ready.json()["detail"]
        answered = httpx.post(f"{served.url}/retrieve", json=known, timeout=600)
        statuses[answered.status_code, served.ask("red mug").status_code] += 1
    assert statuses.keys() <= {(200, 503), (200, 200)}
    assert served.ask("red mug").status_code == 200
    assert served.network_pid() != served.network
    served.end()


def test_stuck_network_is_reported(shop: FakeShop, tmp_path: Path) -> None:
    with (
        closing(Served(shop, patience=0.1)) as served,
        httpx.Client(base_url=served.url, timeout=600) as client,
    ):
        assert client.get("/readyz").status_code == 200
        asking = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import httpx, sys; httpx.post(sys.argv[1] + '/retrieve', timeout=600, "
                "json={'text': sys.argv[2], 'relation': 'gardeners'})",
                served.url,
                f"wait {tmp_path / 'go'}",
            ]
        )
        while (ready := client.get("/readyz")).status_code == 200:
            time.sleep(0.01)
        assert "The network has been busy with one job for" in ready.json()["detail"]
        (tmp_path / "go").touch()
        asking.wait(600)
        while client.get("/readyz").status_code != 200:
            time.sleep(0.01)


def test_no_process_is_left_when_the_server_is_stopped(served: Served) -> None:
    served.end()
    assert not alive(served.network)
    assert not served.folder.exists()


def test_no_process_is_left_when_the_server_is_killed(served: Served, tmp_path: Path) -> None:
    os.kill(served.network, signal.SIGSTOP)  # so the process cannot notice it by itself
    served.server.kill()
    served.server.wait(600)
    wait_until(lambda: not alive(served.network))


async def load(served: Served, tally: Counter[tuple[str, int]], ended: asyncio.Event) -> None:
    """Ask about known and new items, with a pause only after a refusal, and count the statuses."""
    async with httpx.AsyncClient(base_url=served.url, timeout=600) as client:
        while not ended.is_set():
            for kind, question in (("known", {"item_id": "cot"}), ("new", {"text": "red mug"})):
                answer = await client.post("/retrieve", json={**question, "relation": "gardeners"})
                tally[kind, answer.status_code] += 1
                if answer.status_code == 503:
                    await asyncio.sleep(0.1)  # otherwise questions leave no processor time to start a network


@pytest.mark.parametrize("times", [2, pytest.param(200, marks=pytest.mark.soak)])
def test_killed_network_process_fails_only_its_own_jobs(served: Served, times: int) -> None:
    async def scenario() -> Counter[tuple[str, int]]:
        tally, ended = Counter[tuple[str, int]](), asyncio.Event()
        tasks = [asyncio.create_task(load(served, tally, ended)) for _ in range(8)]
        killed = set()
        for _ in range(times):
            answered = tally["new", 200]
            while tally["new", 200] < answered + 50:
                await asyncio.sleep(0.01)
            pid = served.network_pid()
            assert pid is not None
            assert pid not in killed
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
        answered = tally["new", 200]
        while tally["new", 200] < answered + 50:
            await asyncio.sleep(0.01)
        ended.set()
        await asyncio.gather(*tasks)
        return tally

    tally = asyncio.run(scenario())
    assert tally.keys() <= {("known", 200), ("new", 200), ("new", 503)}
    assert served.server.poll() is None
    served.end()
    assert not served.folder.exists()
