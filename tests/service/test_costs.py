"""Costs: the costliest legal request of every route leaves the event loop free for others, or is refused."""

import asyncio
import json
import multiprocessing
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.app import create_app
from service.engine.engine import Engine
from service.engine.loop_turns import LoopTurns
from service.http.route_rules import Encodes, rule_of
from service.lifecycle.engine_holder import EngineHolder
from service.settings import ServeConfig
from tests.conftest import Road
from tests.indexes.fakes import RELATIONS, FakeEncoder, FakeShop, write_shop
from tests.service.campaigns import HEADERS, KEY, Answer, Direct, application, directly
from tests.service.conftest import wait_until_ready
from tests.service.costliest import ITEMS, SECOND, Ask, costliest, long_bodies, uploads
from tests.service.http.test_route_rules import routes
from tests.service.servers import served_apart

RELATION = next(one.relation_id for one in RELATIONS if not one.intra)
REQUESTS = costliest(RELATION, "twin-1")
LONG_BODIES = long_bodies(RELATION)
AT_ONCE = 40
LIVEZ_LIMIT_S = 0.05


async def asked(direct: Direct, method: str, ask: Ask) -> Answer:
    path, _, _ = ask.path.partition("?")
    return await direct.ask(method, path, ask.body, ask.media_type)


class RecordedTurns(LoopTurns):
    """Turns that count the results of the slices that ran."""

    given = 0

    async def take(self, results: int) -> None:
        await super().take(results)
        self.given += results


def test_every_route_has_a_costliest_request(shop: FakeShop, tmp_path: Path) -> None:
    assert set(routes(application(shop, tmp_path))) == set(REQUESTS)


@pytest.mark.parametrize("route", REQUESTS, ids=" ".join)
def test_costliest_request_is_legal_and_answered(route: tuple[str, str], costly: FakeShop) -> None:
    needed = {
        ("DELETE", "/relations/{relation_id}"): ("POST", "/relations"),
        ("GET", "/admin/shadow"): ("POST", "/admin/shadow"),
        ("DELETE", "/admin/shadow"): ("POST", "/admin/shadow"),
    }

    async def run() -> Answer:
        async with directly(_application(costly)) as direct:
            await asked(direct, "POST", Ask("/items/bulk", uploads(0, 2), "application/x-ndjson"))
            for one in dict.fromkeys([needed.get(route, route), route]):
                answer = await asked(direct, one[0], REQUESTS[one])
            return answer

    answer = asyncio.run(run())
    assert answer.status < 300, answer.body[:500]


@pytest.mark.parametrize("name", LONG_BODIES)
def test_long_body_is_legal_and_answered(name: str, costly: FakeShop) -> None:
    method, ask = LONG_BODIES[name]

    async def run() -> Answer:
        async with directly(_application(costly)) as direct:
            return await asked(direct, method, ask)

    answer = asyncio.run(run())
    assert answer.status < 300, answer.body[:500]


def test_livez_is_answered_between_the_slices_of_large_batches(costly: FakeShop) -> None:
    async def run() -> tuple[list[int], Counter[int], set[str], RecordedTurns]:
        async with directly(_application(costly)) as direct:
            await asked(direct, "POST", Ask("/items/bulk", uploads(0, ITEMS), "application/x-ndjson"))
            engine: Engine = direct.state["engine_holder"].engine
            engine.turns = turns = RecordedTurns()
            batch = REQUESTS[("POST", "/retrieve/batch")]
            batches = asyncio.gather(*(asked(direct, "POST", batch) for _ in range(AT_ONCE)))
            between = []
            while not batches.done():
                before = turns.given
                assert (await direct.ask("GET", "/livez")).status == 200
                await asyncio.sleep(0)  # a socket is looked at between two requests
                between.append(turns.given - before)
            answers = await batches
            refused = {json.loads(one.body)["detail"] for one in answers if one.status == 429}
            return between, Counter(one.status for one in answers), refused, turns

    between, statuses, refused, turns = asyncio.run(run())
    assert statuses == {200: 2, 429: AT_ONCE - 2}
    assert turns.given >= 2 * 100 * 100  # more if items had to be read first
    assert max(between) <= 4 * turns.results_per_turn
    assert refused == {
        "This request costs 400. Other large requests in progress cost 800, and together they may cost at most 1,000. "
        "Retry in a second, or send a smaller request."
    }


def test_batch_is_charged_to_the_rate_of_its_caller(shop: FakeShop) -> None:
    config = ServeConfig(index=shop.index, rate_limit=1, rate_burst=5)
    with TestClient(create_app(config, lambda *_: FakeEncoder())) as client:
        wait_until_ready(client)
        question = {"item_id": "twin-1", "k": 10}
        assert client.post("/retrieve/batch", json={"questions": [question] * 60}).status_code == 200
        refused = client.post("/retrieve", json=question)
    assert refused.status_code == 429
    assert 50 < int(refused.headers["Retry-After"]) <= 60
    assert "This request costs 1, and this client has used up its limit of 1 per second" in refused.text


def test_batch_refused_beside_others_is_not_charged(shop: FakeShop) -> None:
    config = ServeConfig(index=shop.index, rate_limit=1, rate_burst=5)
    app = create_app(config, lambda *_: FakeEncoder())
    with TestClient(app) as client:
        wait_until_ready(client)
        holder: EngineHolder = client.app_state["engine_holder"]
        batch = {"questions": [{"item_id": "twin-1", "k": 10}] * 60}
        with holder.engine.work_bound.working(1_000):
            refused = client.post("/retrieve/batch", json=batch)
        again = client.post("/retrieve/batch", json=batch)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert again.status_code == 200


@pytest.fixture
def costly(tmp_path: Path) -> FakeShop:
    """Write a shop whose index has the tokens that new relations need, and a second index next to it."""
    shop = write_shop(tmp_path, token_store=True)
    shutil.copytree(shop.index, shop.index.parent / SECOND)
    return shop


def _application(shop: FakeShop) -> FastAPI:
    return create_app(ServeConfig(index=shop.index, admin_keys=KEY), lambda *_: FakeEncoder())


def _load(url: str, method: str, ask: Ask, at_once: int, seconds: float) -> Counter[int]:
    """Repeat a request on several connections; return the number of responses by status."""

    async def run() -> Counter[int]:
        statuses: Counter[int] = Counter()
        until = time.monotonic() + seconds
        headers = {**HEADERS, "Content-Type": ask.media_type}
        async with httpx.AsyncClient(
            base_url=url, timeout=20, limits=httpx.Limits(max_connections=at_once)
        ) as client:

            async def repeat() -> None:
                while time.monotonic() < until:
                    with suppress(httpx.TransportError):  # 40 bulk uploads wait for each other
                        answer = await client.request(method, ask.path, content=ask.body, headers=headers)
                        statuses[answer.status_code] += 1

            await asyncio.gather(*(repeat() for _ in range(at_once)))
        return statuses

    return asyncio.run(run())


def _waits(url: str, seconds: float) -> Sequence[float]:
    """Ask /livez every 5 ms for some time, and return the seconds until each response."""
    waits, until = [], time.monotonic() + seconds
    with httpx.Client(base_url=url, timeout=60) as client:
        while time.monotonic() < until:
            begun = time.monotonic()
            assert client.get("/livez").status_code == 200
            waits.append(time.monotonic() - begun)
            time.sleep(0.005)
    return waits


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_livez_is_answered_beside_the_costliest_requests(
    costly: FakeShop, capsys: pytest.CaptureFixture[str]
) -> None:
    """Print the response times of /livez beside the costliest requests, alone and 40 at once.

    Every request must be answered at least once. The stand-in for the network takes little of the interpreter. The
    client of the costly requests yields to other processes, because it is not to be measured.
    """
    late, unanswered = [], []
    with capsys.disabled():
        print("\nrequest, at once, /livez p50 and p99 in ms, answers, refusals")
    context = multiprocessing.get_context("spawn")
    with (
        served_apart(ServeConfig(index=costly.index, admin_keys=KEY)) as url,
        ProcessPoolExecutor(1, context, os.nice, (10,)) as costly_client,
        ProcessPoolExecutor(1, context) as client,
    ):
        added = Ask("/items/bulk", uploads(0, ITEMS), "application/x-ndjson")
        costly_client.submit(_load, url, "POST", added, 1, 0.1).result()
        rows = {f"{method} {template}": (method, ask) for (method, template), ask in REQUESTS.items()}
        for name, (method, ask) in {**rows, **LONG_BODIES}.items():
            answered = 0
            for at_once in (1, AT_ONCE):
                load = costly_client.submit(_load, url, method, ask, at_once, 2.0)
                waits = client.submit(_waits, url, 2.0).result()
                statuses = load.result()
                p50, p99 = np.quantile(waits, [0.5, 0.99]) * 1000
                good = sum(count for status, count in statuses.items() if status < 300)
                answered += good
                refused = statuses[429] + statuses[503]
                row = f"{name:33} {at_once:2} {p50:7.1f} {p99:7.1f} {good:6} {refused:6}"
                with capsys.disabled():
                    print(row, flush=True)
                if p99 > LIVEZ_LIMIT_S * 1000:
                    late.append(row)
                _settle(url)
            if not answered:
                unanswered.append(name)
    assert not unanswered
    assert not late


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_longest_call_of_the_network_beside_the_costliest_requests(
    road: Road, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Print the longest call of the network of the demo after each of the costliest requests, alone and 40 at once.

    A call should last at most 250 ms on a quiet machine. Every request must be answered at least once.
    """
    shutil.copytree(road.folder, tmp_path / "demo")
    config = ServeConfig(index=tmp_path / "demo" / "index", admin_keys=KEY, log_level="error")
    with capsys.disabled():
        print("\nrequest, at once, longest call of the network so far in ms, answers, refusals")
    with (
        served_apart(config, own_network=True) as url,
        httpx.Client(base_url=url, headers=HEADERS, timeout=60) as client,
    ):
        added = Ask("/items/bulk", uploads(0, ITEMS), "application/x-ndjson")
        _load(url, "POST", added, 1, 0.1)
        relation = client.get("/relations").json()["relations"][1]["relation_id"]
        item_id = client.get("/items").json()["items"][0]["item_id"]
        rows = {
            f"{method} {template}": (method, ask)
            for (method, template), ask in costliest(relation, item_id).items()
            if rule_of(method, template).encodes is not Encodes.NOTHING
        }
        longest, unanswered = 0.0, []
        for name, (method, ask) in rows.items():
            answered = 0
            for at_once in (1, AT_ONCE):
                statuses = _load(url, method, ask, at_once, 1.0)
                longest = _longest_call_s(client)
                good = sum(count for status, count in statuses.items() if status < 300)
                answered += good
                refused = statuses[429] + statuses[503]
                row = f"{name:33} {at_once:2} {1000 * longest:7.1f} {good:6} {refused:6}"
                with capsys.disabled():
                    print(row, flush=True)
            if not answered:
                unanswered.append(name)
    assert longest > 0
    assert not unanswered


def _longest_call_s(client: httpx.Client) -> float:
    """Return the longest time in seconds that a batch has held the network since the server started."""
    [found] = re.findall(
        r"^rcml_network_longest_call_seconds (\S+)$", client.get("/metrics").text, re.MULTILINE
    )
    return float(found)


def _settle(url: str) -> None:
    """Wait for what the server has left to do, so that the next row begins on a quiet server; at most 10 s."""
    with httpx.Client(base_url=url, timeout=60) as client:
        quick, until = 0, time.monotonic() + 10
        while quick < 20 and time.monotonic() < until:
            begun = time.monotonic()
            client.get("/livez")
            quick = quick + 1 if time.monotonic() - begun < 0.01 else 0
            time.sleep(0.01)
