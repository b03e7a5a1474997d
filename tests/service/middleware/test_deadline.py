"""What has not begun to answer in time is stopped and answered for; what has begun goes on."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from service.middleware.deadline import SWEEP_INTERVAL_S, Deadline

Work = Callable[[], Awaitable[object]]


async def nothing() -> None:
    """No work at all."""


class Route:
    """Does some work, answers 200 in two parts with more work between them, and notes how it ended."""

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


def test_a_slow_route_is_stopped_and_answered_for() -> None:
    route = Route(partial(asyncio.sleep, 60))
    response = ask(Deadline(route, seconds=0.05))
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == "urn:rcml:problem:overdue"
    assert response.json()["detail"].startswith("No answer was ready within 0.05 s.")
    assert route.ended == "cancelled"


def test_a_thread_is_not_waited_for() -> None:
    # As long as the loop closes only when its threads have ended, so the clock is read before that.
    took = []

    async def timed(scope: Scope, receive: Receive, send: Send) -> None:
        start = time.perf_counter()
        await Deadline(Route(partial(anyio.to_thread.run_sync, time.sleep, 1.0)), seconds=0.05)(
            scope, receive, send
        )
        took.append(time.perf_counter() - start)

    assert ask(timed).status_code == 503
    assert took[0] < 0.9


def test_an_answer_in_time_is_left_alone() -> None:
    route = Route(partial(asyncio.sleep, 0.01))
    assert ask(Deadline(route, seconds=5.0)).text == "one two"
    assert route.ended == "well"


def test_an_answer_that_has_begun_goes_on_past_the_deadline() -> None:
    route = Route(nothing, partial(asyncio.sleep, 0.3))
    assert ask(Deadline(route, seconds=0.05)).text == "one two"


def test_bulk_uploads_may_take_longer() -> None:
    app = Deadline(Route(partial(asyncio.sleep, 0.3)), seconds=0.05)
    assert ask(app, path="/items/bulk").status_code == 200
    assert ask(app, path="/admin/reload").status_code == 200
    assert ask(app, path="/items/bulky").status_code == 503


def test_a_timeout_of_the_route_itself_is_not_taken_for_the_deadline() -> None:
    async def timing_out() -> None:
        raise TimeoutError("of a database")

    with pytest.raises(TimeoutError, match="of a database"):
        ask(Deadline(Route(timing_out), seconds=5.0))


def test_a_route_that_answers_in_spite_of_being_stopped_is_not_heard() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return

    response = ask(Deadline(Route(stubborn), seconds=0.05))
    assert response.json()["status"] == 503


def test_requests_are_swept_again_after_a_pause_and_in_another_loop() -> None:
    route = Route(partial(asyncio.sleep, 60))
    app = Deadline(route, seconds=0.05)

    async def twice() -> list[float]:
        took = []
        for _ in range(2):
            start = time.perf_counter()
            await ask_directly(app)
            took.append(time.perf_counter() - start)
            await asyncio.sleep(2 * SWEEP_INTERVAL_S)
        return took

    assert max(*asyncio.run(twice()), *asyncio.run(twice())) < 5.0


def test_of_many_requests_only_those_are_stopped_that_are_late() -> None:
    waits = iter([60.0, 0.01, 60.0, 0.01])

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await Route(partial(asyncio.sleep, next(waits)))(scope, receive, send)

    app = Deadline(answer, seconds=0.5)

    async def all_at_once() -> list[int]:
        return await asyncio.gather(*(ask_directly(app) for _ in range(4)))

    assert asyncio.run(all_at_once()) == [503, 200, 503, 200]
    assert app.waiting == 0


def test_a_request_given_up_from_outside_stays_given_up() -> None:
    async def scenario() -> None:
        route = Route(partial(asyncio.sleep, 60))
        task = asyncio.create_task(ask_directly(Deadline(route, seconds=30.0)))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert route.ended == "cancelled"

    asyncio.run(scenario())


async def ask_directly(app: Any) -> int:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://rcml") as client:
        return (await client.get("/items")).status_code


def test_a_late_request_that_is_given_up_at_the_same_moment_gets_no_answer() -> None:
    async def given_up() -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await asyncio.sleep(60)
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
