"""Jobs are joined into batches, bounded in number and in the time they wait; a bad one fails only its own caller."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from threading import Event
from typing import TypedDict, TypeVar, Unpack

import pytest

from service.engine.batcher import Batcher
from service.problems.errors import OverloadedError

T = TypeVar("T")


class Clock:
    """Moves by what work takes, and by nothing else."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("service.engine.batcher.monotonic", clock)
    monkeypatch.setattr("service.engine.watchdog.monotonic", clock)
    return clock


class Doubling:
    """Doubles numbers, remembers batches, and waits in each until it may go on."""

    def __init__(self, clock: Clock | None = None, seconds: float = 0.0) -> None:
        self.batches: list[list[int]] = []
        self.go = Event()
        self.go.set()
        self._clock = clock
        self._seconds = seconds

    def __call__(self, jobs: Sequence[int]) -> list[int]:
        self.batches.append(list(jobs))
        self.go.wait(600)
        if self._clock is not None:
            self._clock.now += self._seconds
        if 13 in jobs:
            raise ValueError(f"13 among {len(jobs)}")
        return [2 * job for job in jobs]


class Options(TypedDict, total=False):
    """What a test sets of a batcher."""

    batch_size: int
    max_wait_s: float
    job_timeout_s: float


def run(
    doubling: Doubling, scenario: Callable[[Batcher[int, int]], Awaitable[T]], **options: Unpack[Options]
) -> T:
    async def inside() -> T:
        batcher = Batcher(doubling, "test", **options)
        try:
            return await scenario(batcher)
        finally:
            doubling.go.set()
            batcher.close()

    return asyncio.run(inside())


async def asked_while_busy(
    batcher: Batcher[int, int], doubling: Doubling, jobs: Sequence[int]
) -> list[int | BaseException]:
    """What becomes of `jobs` that all come while a first one is worked on."""
    doubling.go.clear()
    first = asyncio.create_task(batcher.submit(0))
    while not doubling.batches:
        await asyncio.sleep(0.001)
    others = [asyncio.create_task(batcher.submit(job)) for job in jobs]
    await asyncio.sleep(0.01)
    doubling.go.set()
    await first
    return list(await asyncio.gather(*others, return_exceptions=True))


def test_what_comes_while_a_batch_is_worked_on_is_the_next_batch() -> None:
    doubling = Doubling()
    results = run(doubling, lambda batcher: asked_while_busy(batcher, doubling, [1, 2, 3]))
    assert results == [2, 4, 6]
    assert doubling.batches == [[0], [1, 2, 3]]


def test_a_batch_has_no_more_jobs_than_it_may() -> None:
    doubling = Doubling()
    run(
        doubling,
        lambda batcher: asked_while_busy(batcher, doubling, range(1, 6)),
        batch_size=2,
        max_wait_s=9.0,
    )
    assert doubling.batches == [[0], [1, 2], [3, 4], [5]]


def test_a_bad_job_fails_its_own_caller_alone() -> None:
    doubling = Doubling()
    one, bad, other = run(doubling, lambda batcher: asked_while_busy(batcher, doubling, [1, 13, 3]))
    assert (one, other) == (2, 6)
    assert isinstance(bad, ValueError)
    assert str(bad) == "13 among 1"


def test_the_thread_lives_on_after_a_failure() -> None:
    async def scenario(batcher: Batcher[int, int]) -> int:
        with pytest.raises(ValueError, match="13"):
            await batcher.submit(13)
        return await batcher.submit(4)

    assert run(Doubling(), scenario) == 8


def test_a_job_that_was_given_up_is_not_done() -> None:
    doubling = Doubling()

    async def scenario(batcher: Batcher[int, int]) -> None:
        doubling.go.clear()
        first = asyncio.create_task(batcher.submit(0))
        while not doubling.batches:
            await asyncio.sleep(0.001)
        given_up = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.01)
        given_up.cancel()
        await asyncio.sleep(0.01)
        doubling.go.set()
        await first
        assert await batcher.submit(2) == 4

    run(doubling, scenario)
    assert doubling.batches == [[0], [2]]


def test_what_would_have_to_wait_too_long_is_refused_at_once(clock: Clock) -> None:
    doubling = Doubling(clock, seconds=0.02)

    async def scenario(batcher: Batcher[int, int]) -> tuple[int, list[int]]:
        await batcher.submit(0)  # by which it knows what a job takes
        doubling.go.clear()
        tasks = [asyncio.create_task(batcher.submit(job)) for job in range(100, 200)]
        refused: list[asyncio.Task[int]] = []
        while len(refused) + len(batcher) < 98:  # none but those that wait, or are the batch under way
            await asyncio.sleep(0.001)
            refused = [task for task in tasks if task.done()]
        doubling.go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        again = [one.retry_after for one in outcomes if isinstance(one, OverloadedError)]
        return len(outcomes) - len(again), again

    answered, again = run(doubling, scenario, batch_size=2, max_wait_s=0.1)
    assert 5 <= answered <= 8  # a tenth of a second, at two hundredths a job, and what is under way
    assert again == [1] * (100 - answered)


def test_close_finishes_what_was_accepted() -> None:
    doubling = Doubling()

    async def scenario() -> list[int]:
        doubling.go.clear()
        batcher = Batcher(doubling, "test", batch_size=1, max_wait_s=9.0)
        tasks = [asyncio.create_task(batcher.submit(job)) for job in range(5)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        doubling.go.set()
        await closing
        return await asyncio.gather(*tasks)

    assert asyncio.run(scenario()) == [0, 2, 4, 6, 8]


def test_a_batch_that_hangs_shows_in_its_heartbeat(clock: Clock) -> None:
    doubling = Doubling()

    async def scenario(batcher: Batcher[int, int]) -> None:
        assert batcher.heartbeat.stuck_reason is None
        doubling.go.clear()
        task = asyncio.create_task(batcher.submit(1))
        while not doubling.batches:
            await asyncio.sleep(0.001)
        assert batcher.heartbeat.stuck_reason is None
        clock.now += 0.03
        assert "busy with one piece of work" in (batcher.heartbeat.stuck_reason or "")
        doubling.go.set()
        await task
        assert batcher.heartbeat.stuck_reason is None

    run(doubling, scenario, job_timeout_s=0.02)


def test_what_comes_after_close_is_refused_rather_than_left_waiting() -> None:
    async def scenario() -> None:
        batcher = Batcher(Doubling(), "test")
        batcher.close()
        with pytest.raises(RuntimeError, match="no more work is taken after close"):
            await asyncio.wait_for(batcher.submit(1), 600)

    asyncio.run(scenario())
