"""Fast path and direct routes: whatever is sent, the response is that of the framework's general way."""

import asyncio
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from orjson import Fragment
from starlette.types import ASGIApp, Receive, Scope, Send

from indexes.reader import Reader
from indexes.search.retrieve import Found
from model.records import Relation
from model.similarity import Similarity
from service.app import create_app
from service.engine.loop_turns import RESULTS_PER_TURN
from service.http.dispatch import FastAnswer
from service.requests.direct_routes import DirectRoutes
from service.requests.retrieve_answer import form, plain_answer, results
from service.schemas.fields import RelationSummary
from service.settings import ServeConfig
from tests.indexes.fakes import RELATIONS, FakeEncoder, FakeShop, ids, write_shop
from tests.service.campaigns import application, directly
from tests.service.servers import CountedFastPath, served_here

PLAIN = {"item_id": "bib", "relation": "gardeners"}
JSON = {"Content-Type": "application/json"}
KEY = "key-of-both-ways-0123456789"

_TIMES = re.compile(rb'("(?:fetch|encode|search|took_ms)":)[0-9.e-]+')


@dataclass
class Ways:
    """Two applications on the same index: one takes the shorter ways, the other never does."""

    short: httpx.Client
    usual: httpx.Client
    fast_path: CountedFastPath
    routed: int = 0
    """Number of requests that the first passed to the framework."""

    def ask(self, body: bytes, path: str = "/retrieve", method: str = "POST", **headers: str) -> Any:
        """Return the response of the first application, after a check that the second gives the same."""
        headers = {
            "host": "127.0.0.1",
            "x-request-id": "same",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        answer = self.short.request(method, path, content=body, headers=headers)
        assert told(answer) == told(self.usual.request(method, path, content=body, headers=headers))
        return answer

    @property
    def fast(self) -> int:
        """Number of requests that the fast path answered."""
        return self.fast_path.answers

    def watch(self, app: FastAPI) -> None:
        """Count the requests that are passed to the framework."""
        layer: Any = app.middleware_stack
        while not isinstance(layer, DirectRoutes):
            layer = layer.app
        framework: ASGIApp = layer.app

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            self.routed += 1
            await framework(scope, receive, send)

        layer.app = counted


def told(answer: Any) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return the status, the headers and the bytes of a response, without times."""
    headers = answer.headers.multi_items()
    if answer.request.method != "HEAD":
        assert ("content-length", str(len(answer.content))) in headers
    kept = [one for one in headers if one[0] not in ("content-length", "date")]
    return answer.status_code, kept, _TIMES.sub(rb"\1", answer.content)


def both(config: ServeConfig) -> Iterator[Ways]:
    apps = [create_app(config, lambda *_: FakeEncoder()) for _ in range(2)]
    with served_here(apps[0]) as (server, short), served_here(apps[1], short_ways=False) as (_, usual):
        ways = Ways(short, usual, CountedFastPath(server))
        ways.watch(apps[0])
        yield ways


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    return write_shop(tmp_path_factory.mktemp("shop"), token_store=True)


@pytest.fixture(scope="module")
def ways(shop: FakeShop) -> Iterator[Ways]:
    yield from both(ServeConfig(index=shop.index))


def encoded(**asked: Any) -> bytes:
    return json.dumps({**PLAIN, **asked}).encode()


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"k": 1},
        {"k": 25},
        {"k": 4, "cursor": 4},
        {"cursor": 11},
        {"cursor": 1_000, "k": 1},
        {"similarity": "TT"},
        {"similarity": "IT"},
        {"min_score": -1},
        {"item_id": "a/b?c#d e", "relation": "worn together / office"},
    ],
)
def test_plain_question_takes_the_fast_path_if_the_table_has_the_answer(
    ways: Ways, asked: dict[str, Any]
) -> None:
    ways.ask(encoded(**asked), **JSON)  # reads many items, which the fast path leaves to a thread
    routed, fast = ways.routed, ways.fast
    assert ways.ask(encoded(**asked), **JSON).status_code == 200
    assert ways.routed == routed
    assert ways.fast == fast + (asked.get("similarity", "AVG") == "AVG")


@pytest.mark.parametrize(
    "asked",
    [
        {"relation": None},
        {"k": 26},
        {"relation": {"description": "Worn at sea."}},
        {"filter": {"price": {"max": 20}}},
        {"exclude": ["cot"]},
        {"promoted": {"item_ids": ["cot"], "share": 0.5}},
        {"fallback": True, "min_score": 0.5},
        {"min_score": 0.999},
        {"fields": ["title", "attributes"]},
        {"item_id": None, "text": "a can"},
        {"diversity": 0.5},
        {"item_id": "unicorn"},
        {"relation": "unicorns"},
        {"k": 0},
        {"k": True},
        {"colour": "red"},
    ],
)
def test_any_other_question_is_answered_in_general_without_the_framework(
    ways: Ways, asked: dict[str, Any]
) -> None:
    routed, fast = ways.routed, ways.fast
    ways.ask(encoded(**asked), **JSON)
    assert (ways.routed, ways.fast) == (routed, fast)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"method": "GET"}, 405),
        ({"method": "HEAD"}, 405),
        ({"method": "PUT"}, 405),
        ({"path": "/retrieve/"}, 307),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/json; charset=utf-8"}, 200),
        ({"content_type": "application/merge-patch+json"}, 200),
    ],
)
def test_other_requests_are_routed_by_the_framework(ways: Ways, sent: dict[str, str], status: int) -> None:
    routed = ways.routed
    ways.short.follow_redirects = ways.usual.follow_redirects = False
    answer = ways.ask(encoded(), **{"content_type": "application/json", **sent})
    assert answer.status_code == status
    assert ways.routed == routed + 1


def test_encoded_body_is_refused_with_the_same_headers(ways: Ways) -> None:
    answer = ways.ask(encoded(), Content_Encoding="gzip", **JSON)
    assert (answer.status_code, answer.headers["Accept-Encoding"]) == (415, "identity")
    assert ways.ask(b"1" * 2**20 + b"1", **JSON).status_code == 413


VALUES: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-2, 120) | st.floats() | st.text(max_size=3) | st.just({})
)
KNOWN: dict[str, st.SearchStrategy[Any]] = {
    "item_id": st.sampled_from([*ids(), "unicorn", ""]),
    "relation": st.sampled_from([*(one.relation_id for one in RELATIONS), "%b", ""]),
    "k": st.integers(-1, 101),
    "cursor": st.sampled_from([0, 1, 5, 11, 999, 1_001]),
    "similarity": st.sampled_from(["AVG", "TT", "TI", "avg"]),
    "min_score": st.floats(-1.5, 1.5),
    "filter": st.sampled_from([{}, {"price": {"max": 20}}, {"brand": {"min": 1}}, {"colour": {}}]),
    "exclude": st.lists(st.sampled_from(ids()), max_size=2),
    "fields": st.just(["title"]),
    "colour": VALUES,
}
FIELDS = st.fixed_dictionaries(
    {name: KNOWN[name] | VALUES for name in ("item_id", "relation")},
    optional={name: KNOWN[name] for name in KNOWN if name not in ("item_id", "relation")},
)
PLAIN_FIELDS = st.fixed_dictionaries(
    {name: KNOWN[name] for name in ("item_id", "relation")}, optional={"k": KNOWN["k"] | VALUES}
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Draw a body of the known shape, some of them damaged."""
    fields = draw(FIELDS | PLAIN_FIELDS)
    body = json.dumps(fields, ensure_ascii=draw(st.booleans())).encode()
    place = draw(st.integers(0, len(body)))
    match draw(st.sampled_from(["whole"] * 6 + ["cut", "byte", "twice", "mark", "spaces", "utf-16"])):
        case "cut":
            return body[:place]
        case "byte":
            return body[:place] + draw(st.binary(min_size=1, max_size=1)) + body[place + 1 :]
        case "twice":
            return body[:-1] + b',"k":2,"item_id":"cot"}'
        case "mark":
            return b"\xef\xbb\xbf" + body
        case "spaces":
            return b" \n" + body + b"\t"
        case "utf-16":
            return body.decode().encode("utf-16")
    return body


@settings(max_examples=150, deadline=None)
@given(body=bodies())
def test_any_body_gets_the_response_of_the_general_way(ways: Ways, body: bytes) -> None:
    ways.ask(body, **JSON)


@pytest.mark.soak
@settings(max_examples=5_000, deadline=None)
@given(body=bodies(), path=st.sampled_from(["/retrieve", "/retrieve/batch", "/relation-type", "/validity"]))
def test_any_body_gets_the_response_of_the_general_way_on_many_routes(
    ways: Ways, body: bytes, path: str
) -> None:
    ways.ask(b'{"questions":[%b]}' % body if path == "/retrieve/batch" else body, path, **JSON)


def test_percent_signs_and_quotation_marks_in_a_relation_are_kept() -> None:
    relation = Relation('50% "off"', "%b %% \\ \x00 half the price", False)
    found = [Found(3, 0.5, relation.relation_id), Found(4, 0.25, relation.relation_id)]
    whole = plain_answer(
        "1.2",
        Fragment(b'{"item_id":"%s"}'),
        RelationSummary.of(relation).model_dump(),
        Similarity.AVG,
        results(found, [Fragment(b'{"title":"5%"}'), Fragment(b"{}")], 4),
        6,
        0.1,
        0.2,
    )
    filled = (b"1.2", b'{"item_id":"%s"}', b"0.5", b'{"title":"5%"}', b"0.25", b"{}", b"0.1", b"0.2")
    assert form(relation, Similarity.AVG, 2, 4, 2) % filled == orjson.dumps(whole)


SEQUENCE: list[dict[str, Any]] = [
    {},
    {"k": 100},
    {"item_id": "unicorn"},
    {"relation": "unicorns"},
    {"k": 0},
    {"filter": {"price": {"max": 20}}},
]


def counted(client: httpx.Client) -> Counter[str]:
    """Return the values of the metrics that count requests, stages and problems."""
    text = client.get("/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
    samples = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    names = (
        "rcml_requests_total",
        "rcml_problems_total",
        "rcml_stage_duration_seconds_count",
        "rcml_requests_in",
    )
    return Counter({name: int(float(value)) for name, _, value in samples if name.startswith(names)})


def test_both_ways_count_and_log_the_same(shop: FakeShop, caplog: pytest.LogCaptureFixture) -> None:
    with contextmanager(both)(ServeConfig(index=shop.index, admin_keys=KEY, root_path="/search")) as ways:
        caplog.set_level(logging.INFO, "rcml.requests")
        before = [counted(ways.short), counted(ways.usual)]
        for asked in SEQUENCE:
            ways.ask(encoded(**asked), Authorization=f"Bearer {KEY}", **JSON)
            ways.ask(encoded(**asked), "/search/retrieve", X_API_Key=KEY, **JSON)
            ways.ask(encoded(**asked), Authorization="Bearer of-another-key", **JSON)
        direct, usual = counted(ways.short) - before[0], counted(ways.usual) - before[1]
        assert direct == usual
        assert direct.total() > 3 * len(SEQUENCE)
        logged = [
            {name: value for name, value in record.fields.items() if name not in ("ms", "bytes")}  # type: ignore[attr-defined]
            for record in caplog.records
            if record.name == "rcml.requests" and record.fields["path"] == "/retrieve"  # type: ignore[attr-defined]
        ]
        assert len(logged) == 2 * 3 * len(SEQUENCE)
        assert logged[::2] == logged[1::2]
        assert (ways.routed, ways.fast) == (2, 2)  # the framework routed the requests for metrics


def test_both_ways_charge_the_same(shop: FakeShop) -> None:
    config = ServeConfig(index=shop.index, rate_limit=0.001, rate_burst=20)
    with contextmanager(both)(config) as ways:
        statuses = [ways.ask(encoded(k=k), **JSON).status_code for k in [10] * 5 + [100] * 5]
    assert statuses == [200] * 9 + [429]


@pytest.mark.parametrize("origin", [None, "https://friend.example", "https://evil.example"])
def test_pages_of_other_sites_get_the_same_headers_both_ways(shop: FakeShop, origin: str | None) -> None:
    config = ServeConfig(index=shop.index, cors_origins=("https://friend.example",))
    with contextmanager(both)(config) as ways:
        answers = [ways.ask(encoded(), **JSON, **({"Origin": origin} if origin else {})) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [403 if origin and "evil" in origin else 200] * 2
        assert ("access-control-allow-origin" in answers[1].headers) is (origin == "https://friend.example")
        assert ways.fast == (0 if origin else 2)


def test_clients_behind_a_proxy_have_rate_limits_of_their_own_both_ways(shop: FakeShop) -> None:
    config = ServeConfig(index=shop.index, rate_limit=0.001, rate_burst=2, trusted_proxies=("127.0.0.1",))
    with contextmanager(both)(config) as ways:
        statuses = [
            ways.ask(encoded(), **JSON, X_Forwarded_For=f"192.0.2.{number % 3}").status_code
            for number in range(9)
        ]
        assert statuses == [200] * 6 + [429] * 3
        assert ways.fast == 6


def test_shadow_run_is_offered_plain_questions(shop: FakeShop) -> None:
    with contextmanager(both)(ServeConfig(index=shop.index, admin_keys=KEY)) as ways:
        key = {"Authorization": f"Bearer {KEY}"}
        for client in (ways.short, ways.usual):
            begun = client.post("/admin/shadow", json={"index": shop.index.name, "share": 1.0}, headers=key)
            assert begun.status_code == 200, begun.text
        for _ in range(3):
            ways.ask(encoded(), **JSON, **key)
        while sum(offered(ways.short, key)) < 3:
            time.sleep(0.01)
        assert ways.fast == 0


def offered(client: httpx.Client, key: dict[str, str]) -> tuple[int, int]:
    state = client.get("/admin/shadow", headers=key).json()
    return state["compared"], state["dropped"]


def test_plain_question_after_a_change_is_answered_like_any_other(shop: FakeShop, tmp_path: Path) -> None:
    copytree(shop.index, tmp_path / "index")
    config = ServeConfig(index=tmp_path / "index", checkpoint=shop.checkpoint, admin_keys=KEY)
    with served_here(create_app(config, lambda *_: FakeEncoder())) as (_, client):
        key = {"Authorization": f"Bearer {KEY}"}
        before = client.post("/retrieve", json=PLAIN, headers=key).json()
        assert client.delete("/items/cot", headers=key).status_code == 204
        plain = client.post("/retrieve", json=PLAIN, headers=key).json()
        general = client.post("/retrieve", json={**PLAIN, "exclude": []}, headers=key).json()
    assert plain["results"] == general["results"]
    assert "cot" in str(before["results"])
    assert "cot" not in str(plain["results"])
    assert plain["version"] == general["version"] != before["version"]


def test_plain_questions_take_turns_before_they_search_the_changes(
    shop: FakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = [0]  # searches between two looks of the event loop at the sockets
    search = Reader.precomputed_entries

    def counted(*asked: Any) -> Any:
        looks[-1] += 1
        return search(*asked)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        answers: list[FastAnswer | None] = []

        def look() -> None:
            looks.append(0)
            loop.call_soon(look)

        async with directly(application(shop, tmp_path)) as direct:
            assert (await direct.ask("PUT", "/items/new", b'{"title": "Green can"}')).status == 201
            monkeypatch.setattr(Reader, "precomputed_entries", counted)
            loop.call_soon(look)
            body = encoded(k=5)
            for _ in range(200):
                assert direct.state["fast_path"].take(
                    direct.scope("POST", "/retrieve", body), body, answers.append
                )
            while len(answers) < 200:
                await asyncio.sleep(0)
        assert None not in answers

    asyncio.run(run())
    assert sum(looks) == 200
    assert max(looks) <= 2 * RESULTS_PER_TURN // 5


def test_traced_requests_are_routed_by_the_framework(shop: FakeShop) -> None:
    provider = TracerProvider()
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = create_app(ServeConfig(index=shop.index), lambda *_: FakeEncoder(), tracer_provider=provider)
    with served_here(app) as (_, client):
        assert client.post("/retrieve", json=PLAIN).status_code == 200
    assert {"POST /retrieve", "search"} <= {span.name for span in exporter.get_finished_spans()}
