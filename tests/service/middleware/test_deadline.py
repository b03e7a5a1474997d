"""Deadline: a request whose response has not started in time is cancelled with 503; a started response continues."""

import asyncio
from collections.abc import Awaitable, Callable
from threading import Event
from typing import Any

import anyio
import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from service.middleware.deadline import SWEEP_INTERVAL_S, Deadline

Work = Callable[[], Awaitable[object]]


LONG = 3600.0
"""Time in seconds that exceeds the duration of every test."""


class Clock:
    """Clock that advances only when a test advances it, so a slow machine does not matter."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> Work:
        """Return work that advances the clock by `seconds` and then sleeps for at least two sweeps."""

        async def take() -> None:
            self.now += seconds
            await asyncio.sleep(3 * SWEEP_INTERVAL_S)

        return take

    def is_passed(self, seconds: float) -> Work:
        """Return work that advances the clock by `seconds` and then never ends."""

        async def take() -> None:
            self.now += seconds
            await asyncio.sleep(LONG)

        return take


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("service.middleware.deadline.monotonic", clock)
    return clock


async def nothing() -> None:
    """Do nothing."""


class Route:
    """Application that runs `before`, then sends a 200 response in two parts. It runs `between` after the first part.

    `ended` records whether the response was completed or cancelled.
    """

    def __init__(self, before: Work, between: Work = nothing) -> None:
        self.before, self.between = before, between
        self.ended = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.before()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one ", "more_body": True})
            await self.between()
            await send({"type": "http.response.body", "body": b"two"})
            self.ended = "well"
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise


def ask(app: Any, method: str = "POST", path: str = "/retrieve") -> httpx.Response:
    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://rcml") as client:
            return await client.request(method, path)

    return asyncio.run(asked())


def test_a_slow_route_is_cancelled_with_503(clock: Clock) -> None:
    route = Route(clock.is_passed(0.06))
    response = ask(Deadline(route, seconds=0.05))
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == "urn:rcml:problem:overdue"
    assert response.json()["detail"].startswith("No response was ready within 0.05 s.")
    assert route.ended == "cancelled"


def test_the_response_does_not_wait_for_a_thread(clock: Clock) -> None:
    # The event loop cannot close while the thread is blocked, so the test releases the thread after the response.
    go_on, let_go, ended = Event(), Event(), []

    def block() -> None:
        go_on.wait()
        ended.append("thread")
        let_go.set()

    async def work() -> None:
        clock.now += 0.06
        await anyio.to_thread.run_sync(block)

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        await Deadline(Route(work), seconds=0.05)(scope, receive, send)
        ended.append("answer")
        go_on.set()

    assert ask(told).status_code == 503
    assert let_go.wait(600)
    assert ended == ["answer", "thread"]


def test_a_response_in_time_is_unchanged(clock: Clock) -> None:
    route = Route(clock.passes(4.9))
    assert ask(Deadline(route, seconds=5.0)).text == "one two"
    assert route.ended == "well"


def test_a_started_response_continues_past_the_deadline(clock: Clock) -> None:
    route = Route(nothing, clock.passes(0.3))
    assert ask(Deadline(route, seconds=0.05)).text == "one two"


def test_slow_routes_have_a_longer_deadline(clock: Clock) -> None:
    app = Deadline(Route(clock.passes(0.3)), seconds=0.05)
    assert ask(app, path="/items/bulk").status_code == 200
    assert ask(app, path="/admin/reload").status_code == 200
    assert ask(app, path="/items/bulky").status_code == 503


def test_passes_on_a_timeout_error_of_the_route(clock: Clock) -> None:
    async def timing_out() -> None:
        raise TimeoutError("of a database")

    with pytest.raises(TimeoutError, match="of a database"):
        ask(Deadline(Route(timing_out), seconds=5.0))


def test_ignores_the_response_of_a_route_that_suppresses_cancellation(clock: Clock) -> None:
    async def stubborn() -> None:
        clock.now += 0.06
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            return

    response = ask(Deadline(Route(stubborn), seconds=0.05))
    assert response.json()["status"] == 503


def test_sweeps_resume_after_a_pause_and_in_another_event_loop(clock: Clock) -> None:
    app = Deadline(Route(clock.is_passed(0.06)), seconds=0.05)

    async def twice() -> list[int]:
        found = []
        for _ in range(2):
            found.append(await ask_directly(app))
            while app.sweeping:
                await asyncio.sleep(SWEEP_INTERVAL_S)
        return found

    assert asyncio.run(twice()) == asyncio.run(twice()) == [503, 503]


def test_cancels_only_the_late_requests(clock: Clock) -> None:
    late = 0

    async def is_late() -> None:
        nonlocal late
        late += 1
        await clock.is_passed(0.6 if late == 2 else 0.0)()

    works = iter([is_late, nothing, is_late, nothing])

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await Route(next(works))(scope, receive, send)

    app = Deadline(answer, seconds=0.5)

    async def all_at_once() -> list[int]:
        return await asyncio.gather(*(ask_directly(app) for _ in range(4)))

    assert asyncio.run(all_at_once()) == [503, 200, 503, 200]
    assert app.waiting == 0


def test_a_request_cancelled_from_outside_stays_cancelled() -> None:
    async def scenario() -> None:
        begun = asyncio.Event()

        async def work() -> None:
            begun.set()
            await asyncio.sleep(LONG)

        route = Route(work)
        task = asyncio.create_task(ask_directly(Deadline(route, seconds=LONG)))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert route.ended == "cancelled"

    asyncio.run(scenario())


async def ask_directly(app: Any) -> int:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://rcml") as client:
        return (await client.get("/items")).status_code


def test_a_late_request_that_is_also_cancelled_from_outside_gets_no_response(clock: Clock) -> None:
    async def given_up() -> None:
        task = asyncio.current_task()
        assert task is not None
        clock.now += 0.06
        try:
            await asyncio.sleep(LONG)
        finally:
            task.cancel()

    sent: list[Message] = []

    async def unused() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    async def scenario() -> None:
        scope = {"type": "http", "method": "GET", "path": "/items", "headers": []}
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(Deadline(Route(given_up), seconds=0.05)(scope, unused, send))

    asyncio.run(scenario())
    assert sent == []
