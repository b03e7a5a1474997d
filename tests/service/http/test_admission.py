"""Admission: an overloaded server refuses requests before the application sees them."""

import asyncio
import json
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from service.http.admission import MAX_ENTERING, SCOPE_BEGAN, Admission
from service.http.limits import Deadlines, Limits
from service.http.request_head import RejectedRequest
from service.http.route_rules import ROUTE_RULES
from service.http.server import Server
from tests.service.http.test_connection import running

FULL = Admission(network_wait=lambda more: 2.5)
NEW, KNOWN = b'{"text": "red mug"}', b'{"item_id": "mug"}'


async def unreachable(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("a refused request must not reach the application")


@pytest.mark.parametrize(
    ("method", "path", "body", "refused"),
    [
        ("POST", "/retrieve", NEW, True),
        ("POST", "/retrieve", KNOWN, False),
        ("POST", "/retrieve", b'{"item_id": "mug", "relation": {"description": "matches"}}', True),
        ("POST", "/explain", KNOWN, True),
        ("PUT", "/items/mug", b"{}", True),
        ("GET", "/items", b"", False),
        ("GET", "/readyz", b"", False),
    ],
)
def test_a_full_network_refuses_only_what_needs_it(
    method: str, path: str, body: bytes, refused: bool
) -> None:
    entered = Admission(network_wait=lambda more: 2.5).enter(method, path, body)
    assert (entered == 2.5) is refused


def test_admitted_requests_count_as_queued_until_their_first_turn() -> None:
    asked: list[int] = []

    def network_wait(more: int) -> float:
        asked.append(more)
        return 1.0 if more >= 2 else 0.0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    admission = Admission(network_wait)
    entered = [admission.enter("POST", "/retrieve", NEW) for _ in range(3)]
    assert (asked, entered[2]) == ([0, 1, 2], 1.0)
    first = entered[0]
    assert not isinstance(first, float)
    asyncio.run(first.application(app)({}, None, None))  # type: ignore[arg-type]
    assert admission.entering == 1
    assert not isinstance(admission.enter("POST", "/retrieve", NEW), float)


def test_too_many_requests_that_wait_for_the_event_loop_are_refused_except_probes() -> None:
    admission = Admission()
    for _ in range(MAX_ENTERING):
        assert not isinstance(admission.enter("GET", "/items", b""), float)
    assert admission.enter("POST", "/retrieve", KNOWN) == 1.0
    for (method, path), rule in ROUTE_RULES.items():
        if rule.urgent:
            assert not isinstance(admission.enter(method, path, b""), float)


def test_a_long_body_is_refused_by_its_head() -> None:
    async def check() -> RejectedRequest:
        with pytest.raises(RejectedRequest) as refused:
            FULL.check("PUT", "/items/mug")
        FULL.check("GET", "/metrics")
        return refused.value

    rejection = asyncio.run(check())
    assert rejection.status == 429
    assert rejection.kind is not None
    assert rejection.kind.name == "overloaded"
    assert 3 <= rejection.retry_after <= 5


async def asked(port: int, *parts: bytes) -> list[tuple[int, dict[str, str], Any]]:
    """Send the parts one after the other on one connection, and return the responses until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await asyncio.sleep(0.01)
    received, answers = await reader.read(), []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers["content-length"])
        answers.append((int(status.split()[1]), headers, json.loads(rest[:length] or "null")))
        received = rest[length:]
    writer.close()
    await writer.wait_closed()
    return answers


async def served(
    admission: Admission, *parts: bytes
) -> tuple[list[tuple[int, dict[str, str], Any]], list[str]]:
    """Return the responses of a server with this admission, and the paths that reached the application."""
    reached: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["admission"] = admission
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        assert scope[SCOPE_BEGAN] > 0
        reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    with running(Server(app, Limits(), Deadlines(idle=0.5, head=0.5, sweep=0.01), "critical")) as server:
        return await asyncio.to_thread(lambda: asyncio.run(asked(server.port, *parts))), reached


def post(path: str, body: bytes, more: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: shop\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def test_a_refused_client_keeps_its_connection_and_the_order_of_its_responses() -> None:
    refused: list[int] = []
    admission = Admission(lambda more: 2.5, refused.append)
    parts = post("/retrieve", NEW) + post("/retrieve", KNOWN) + post("/relation-type", NEW)
    answers, reached = asyncio.run(served(admission, parts))
    assert [status for status, _, _ in answers] == [429, 200, 429]
    assert reached == ["/retrieve"]
    _, headers, problem = answers[0]
    assert problem["type"] == "urn:rcml:problem:overloaded"
    assert problem["instance"] == "/retrieve"
    assert 3 <= int(headers["retry-after"]) <= 5
    assert sum(refused) == 2


def test_a_short_body_in_pieces_is_read_before_the_decision() -> None:
    whole = post("/retrieve", KNOWN)
    answers, reached = asyncio.run(served(FULL, whole[:30], whole[30:-5], whole[-5:]))
    assert [status for status, _, _ in answers] == [200]
    assert reached == ["/retrieve"]


def test_a_long_body_is_refused_before_it_has_arrived() -> None:
    head = post("/explain", b"").replace(b"Content-Length: 0", b"Content-Length: 100000")
    answers, reached = asyncio.run(served(FULL, head, b"x" * 1000))
    assert [(status, headers["connection"]) for status, headers, _ in answers] == [(429, "close")]
    assert reached == []


def test_refusals_are_sent_together_and_repeated_ones_later() -> None:
    counts: list[int] = []

    async def refuse() -> None:
        admission = Admission(on_refusals=counts.append)
        for _ in range(50):
            admission.refuse(lambda: None)
            admission.refuse(lambda: None, since=0.01)
            admission.refuse(lambda: None, since=1.5)
        while len(counts) < 2:
            await asyncio.sleep(0.01)

    asyncio.run(refuse())
    assert counts == [100, 50]


def test_a_connection_tells_how_long_ago_its_client_was_refused() -> None:
    told: list[float] = []

    class Recorded(Admission):
        def refuse(self, send: Callable[[], None], since: float = inf) -> None:
            told.append(since)
            super().refuse(send, since)

    parts = post("/retrieve", NEW) + post("/retrieve", NEW)
    answers, _ = asyncio.run(served(Recorded(lambda more: 2.5), parts))
    assert [status for status, _, _ in answers] == [429, 429]
    assert told[0] == inf
    assert 0 <= told[1] < inf
