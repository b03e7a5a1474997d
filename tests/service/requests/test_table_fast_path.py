"""Fast path to precomputed answers: pipelines, closing connections, turns, deadlines, errors and shops."""

import asyncio
import gc
import json
import logging
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.engine.loop_turns import LoopTurns
from service.http.admission import SCOPE_BEGAN
from service.http.connection import connections_of
from service.http.dispatch import FastAnswer
from service.http.limits import Deadlines
from service.middleware import deadline
from service.requests import table_fast_path
from service.settings import ServeConfig
from service.shops import Shops
from service.telemetry.logs import REQUEST_ID
from tests.indexes.fakes import FakeEncoder, FakeShop
from tests.service.campaigns import application, directly
from tests.service.servers import CountedFastPath, served_here
from tests.service.shops import build_index

PLAIN = {"item_id": "bib", "relation": "gardeners"}
BODY = json.dumps(PLAIN).encode()

_VARIES = re.compile(rb'(date: [^\r]+|content-length: \d+|x-request-id: \w+|"(?:search|took_ms)":[0-9.e-]+)')


def sent(path: str, body: bytes = b"", *fields: str, method: str = "POST", version: str = "1.1") -> bytes:
    """Return the bytes of a request."""
    length = [f"Content-Length: {len(body)}", "Content-Type: application/json"] if body else []
    head = [f"{method} {path} HTTP/{version}", "Host: 127.0.0.1", *length, *fields]
    return "\r\n".join([*head, "", ""]).encode() + body


def received(port: int, message: bytes, answers: int) -> bytes:
    """Send bytes on one connection, and return what has been received once so many responses are complete."""
    heard = b""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(message)
        while heard.count(b"HTTP/1.1 ") < answers or not heard.endswith(b"}"):
            heard += (some := client.recv(2**16))
            assert some, heard
    return _VARIES.sub(b"", heard)


@contextmanager
def both_ports(shop: FakeShop) -> Any:
    """Yield the ports of a server with the fast path and of one without, and the counter of the fast path."""
    apps = [create_app(ServeConfig(index=shop.index), lambda *_: FakeEncoder()) for _ in range(2)]
    with served_here(apps[0]) as (server, short), served_here(apps[1], short_ways=False) as (_, usual):
        yield short.base_url.port, usual.base_url.port, CountedFastPath(server)


def test_pipelined_answers_keep_their_order(shop: FakeShop) -> None:
    searched = json.dumps({**PLAIN, "filter": {"price": {"max": 20}}}).encode()
    wrong = json.dumps({**PLAIN, "item_id": "unicorn"}).encode()
    asked = [BODY, searched, BODY, BODY, wrong, BODY, searched, searched, BODY]
    message = b"".join(sent("/retrieve", body) for body in asked)
    with both_ports(shop) as (short, usual, counted):
        first = received(usual, message, len(asked))
        for turn in range(3):
            assert received(short, message, len(asked)) == first
            assert counted.answers == 5 * (turn + 1)
    assert [int(one) for one in re.findall(rb"HTTP/1.1 (\d+)", first)] == [
        404 if body is wrong else 200 for body in asked
    ]


@pytest.mark.parametrize(("field", "version"), [("Connection: close", "1.1"), ("X-Other: 1", "1.0")])
def test_connection_that_ends_after_the_answer(shop: FakeShop, field: str, version: str) -> None:
    message = sent("/retrieve", BODY, field, version=version)
    with both_ports(shop) as (short, usual, counted):
        answers = []
        for port in (short, usual):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(message + message)
                heard = b""
                while some := client.recv(2**16):
                    heard += some
            answers.append(_VARIES.sub(b"", heard))
        assert answers[0] == answers[1]
        assert answers[0].count(b"connection: close\r\n") == 1
        assert answers[0].count(b"HTTP/1.1 200") == 1
        assert counted.answers == 1


def test_more_pipelined_questions_than_one_turn_takes_are_all_answered(shop: FakeShop) -> None:
    with both_ports(shop) as (short, _, counted):
        heard = received(short, sent("/retrieve", BODY) * 60, 60)
        assert heard.count(b"HTTP/1.1 200 OK") == 60
        assert counted.answers == 60


def test_stopping_server_closes_after_the_next_answer(shop: FakeShop) -> None:
    app = create_app(ServeConfig(index=shop.index), lambda *_: FakeEncoder())
    with served_here(app, deadlines=Deadlines(last_call=600.0, idle=600.0)) as (server, client):
        assert "connection" not in client.post("/retrieve", json=PLAIN).headers
        [connection] = connections_of(server.server_state)
        told = threading.Event()
        connection.loop.call_soon_threadsafe(connection.shutdown)
        connection.loop.call_soon_threadsafe(told.set)
        assert told.wait(600)
        answer = client.post("/retrieve", json=PLAIN)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")


@contextmanager
def held_turns(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], None]]]:
    """Hold all work that takes a turn, and yield the list of it."""
    held: list[Callable[[], None]] = []
    with monkeypatch.context() as patched:
        patched.setattr(LoopTurns, "call", lambda turns, results, work: held.append(work))
        yield held


def test_client_that_leaves_before_its_turn_is_forgotten(
    shop: FakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(ServeConfig(index=shop.index), lambda *_: FakeEncoder())
    with served_here(app) as (server, client), held_turns(monkeypatch) as held:
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as leaver:
            leaver.sendall(sent("/retrieve", BODY))
            while not held:
                time.sleep(0.005)
            assert server.lifespan.state["admission"].entering == 0
            [connection] = connections_of(server.server_state)
            loop, left = connection.loop, weakref.ref(connection)
            del connection
        while len(server.server_state.connections) > 0:
            time.sleep(0.005)
        gc.disable()
        try:
            done = threading.Event()
            loop.call_soon_threadsafe(held.pop())
            loop.call_soon_threadsafe(done.set)
            assert done.wait(600)
            while left() is not None:  # only references from the stack of the loop may remain for a moment
                time.sleep(0.005)
        finally:
            gc.enable()


def test_question_that_is_overdue_when_its_turn_comes_is_answered_503(
    shop: FakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(ServeConfig(index=shop.index), lambda *_: FakeEncoder())
    with (
        served_here(app) as (server, client),
        held_turns(monkeypatch) as held,
        socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as asking,
    ):
        asking.sendall(sent("/retrieve", BODY))
        while not held:
            time.sleep(0.005)
        later = time.monotonic() + 3_600
        monkeypatch.setattr(table_fast_path, "monotonic", lambda: later)
        monkeypatch.setattr(deadline, "monotonic", lambda: later)
        [connection] = connections_of(server.server_state)
        connection.loop.call_soon_threadsafe(held.pop())
        assert asking.recv(2**16).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("path", ["/retrieve", "/relation-type"])
def test_requests_that_waited_in_the_kernel_are_all_overdue(shop: FakeShop, path: str) -> None:
    app = create_app(ServeConfig(index=shop.index, deadline=1.0), lambda *_: FakeEncoder())
    with served_here(app) as (server, client), ExitStack() as stack:

        def opened() -> socket.socket:
            return stack.enter_context(
                socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=600)
            )

        known = [opened() for _ in range(20)]
        for one in known:
            one.sendall(sent("/livez", method="GET"))
            assert one.recv(2**16).startswith(b"HTTP/1.1 ")
        [connection, *_] = connections_of(server.server_state)
        blocked, go_on = threading.Event(), threading.Event()
        connection.loop.call_soon_threadsafe(blocked.set)
        connection.loop.call_soon_threadsafe(go_on.wait, 600)
        assert blocked.wait(600)
        asking = [*known, *(opened() for _ in range(20))]
        for one in asking:
            one.sendall(sent(path, BODY))
        time.sleep(1.5)
        go_on.set()
        assert [one.recv(2**16)[:12] for one in asking] == [b"HTTP/1.1 503"] * 40


def test_pipelined_answers_are_logged_in_their_order(shop: FakeShop) -> None:
    logged: list[str | None] = []

    class Ids(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(REQUEST_ID.get())

    app = create_app(ServeConfig(index=shop.index), lambda *_: FakeEncoder())
    searched = json.dumps({**PLAIN, "filter": {"price": {"max": 20}}}).encode()
    bodies = [searched, *[BODY] * 20, searched, *[BODY] * 20]
    names = [f"r{number}" for number in range(len(bodies))]
    message = b"".join(
        sent("/retrieve", body, f"X-Request-Id: {name}") for name, body in zip(names, bodies, strict=True)
    )
    requests, handler = logging.getLogger("rcml.requests"), Ids()
    with served_here(app) as (_, client):
        requests.addHandler(handler)
        requests.setLevel(logging.INFO)
        try:
            received(client.base_url.port or 0, message, len(bodies))
        finally:
            requests.removeHandler(handler)
            requests.setLevel(logging.NOTSET)
    assert logged == names


def test_error_of_the_fast_path_is_logged_and_the_application_answers(
    shop: FakeShop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> bytes:
        raise RuntimeError("a bug")

    app = create_app(ServeConfig(index=shop.index), lambda *_: FakeEncoder())
    with served_here(app) as (_, client):
        expected = client.post("/retrieve", json=PLAIN).json()
        monkeypatch.setattr(table_fast_path, "precomputed_answer", broken)
        answer = client.post("/retrieve", json=PLAIN)
    assert (answer.status_code, answer.json()["results"]) == (200, expected["results"])
    [logged] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert logged.exc_info is not None
    assert "a bug" in str(logged.exc_info[1])


def test_takes_no_question_that_is_overdue_or_long(shop: FakeShop, tmp_path: Path) -> None:
    async def run() -> None:
        async with directly(application(shop, tmp_path)) as direct:
            take, answers = direct.state["fast_path"].take, list[FastAnswer | None]()
            padded = BODY + b" " * 1_024
            assert not take(direct.scope("POST", "/retrieve", padded), padded, answers.append)
            scope = direct.scope("POST", "/retrieve", BODY)
            assert not take({**scope, SCOPE_BEGAN: time.monotonic() - 3_600}, BODY, answers.append)
            assert not answers
            assert take(scope, BODY, answers.append)
            assert answers[0] is not None
            assert json.loads(answers[0].content)["query"]["item_id"] == "bib"

    asyncio.run(run())


def test_shops_have_fast_paths_of_their_own(shop: FakeShop, tmp_path: Path) -> None:
    for name, accent in (("plain", ""), ("accented", "'")):
        build_index(shop, tmp_path / name, shop.checkpoint, accent)
    config = ServeConfig(index=tmp_path, shops=True, root_path="/search", rate_limit=0.001, rate_burst=4)
    with served_here(Shops(config, lambda *_: FakeEncoder())) as (server, client):
        counted = CountedFastPath(server)
        addresses = ["/search/shops/plain", "/shops/plain", "/search/shops/accented", "/shops/accented"]
        answers = {address: client.post(f"{address}/retrieve", json=PLAIN).json() for address in addresses}
        assert counted.answers == 4
        for first, second in (addresses[:2], addresses[2:]):
            assert answers[first]["results"] == answers[second]["results"]
            assert answers[first]["query"]["image_url"] == f"{first}/items/bib/image"
        assert answers[addresses[0]]["version"] != answers[addresses[2]]["version"]
        # A request that the fast path leaves to the shop is charged once.
        unknown = {**PLAIN, "item_id": "unicorn"}
        statuses = [client.post("/shops/plain/retrieve", json=unknown).status_code for _ in range(3)]
        assert statuses == [404, 404, 429]
        assert client.post("/shops/none/retrieve", json=PLAIN).status_code == 404


def test_fast_answers_leave_no_cycles(shop: FakeShop) -> None:
    app = create_app(ServeConfig(index=shop.index), lambda *_: FakeEncoder())
    with served_here(app) as (_, client):
        message = sent("/retrieve", BODY)
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as connected:

            def ask() -> None:
                connected.sendall(message)
                heard = b""
                while not heard.endswith(b"}"):
                    heard += connected.recv(2**16)

            ask()
            gc.collect()
            gc.disable()
            try:
                for _ in range(20):
                    ask()
                assert gc.collect() < 20
            finally:
                gc.enable()
