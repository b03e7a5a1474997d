"""Tests of the batcher: batch size, waiting time, failures, cancellation and closing."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from threading import Event
from typing import TypedDict, TypeVar, Unpack

import pytest

from service.engine.batcher import Batcher
from service.problems.errors import OverloadedError

T = TypeVar("T")


class Clock:
    """A clock that advances only when a test or the simulated work advances it."""

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
    """Work that doubles numbers, records its batches, and blocks in each batch until `go` is set."""

    def __init__(self, clock: Clock | None = None, seconds: float = 0.0) -> None:
        self.batches: list[list[int]] = []
        self.go = Event()
        self.go.set()
        self._clock = clock
        self.seconds = seconds

    def __call__(self, jobs: Sequence[int]) -> list[int]:
        self.batches.append(list(jobs))
        self.go.wait(600)
        if self._clock is not None:
            self._clock.now += self.seconds
        if 13 in jobs:
            raise ValueError(f"13 among {len(jobs)}")
        return [2 * job for job in jobs]


class Options(TypedDict, total=False):
    """Options that a test sets on a batcher."""

    batch_size: int
    max_wait_s: float
    job_timeout_s: float
    weigh: Callable[[int], int]


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
    """Return the outcomes of `jobs` that are all submitted while a first job is running."""
    doubling.go.clear()
    first = asyncio.create_task(batcher.submit(0))
    while not doubling.batches:
        await asyncio.sleep(0.001)
    others = [asyncio.create_task(batcher.submit(job)) for job in jobs]
    await asyncio.sleep(0.01)
    doubling.go.set()
    await first
    return list(await asyncio.gather(*others, return_exceptions=True))


def test_groups_jobs_submitted_during_a_batch_into_the_next_batch() -> None:
    doubling = Doubling()
    results = run(doubling, lambda batcher: asked_while_busy(batcher, doubling, [1, 2, 3]))
    assert results == [2, 4, 6]
    assert doubling.batches == [[0], [1, 2, 3]]


def test_batch_size_limits_the_jobs_of_a_batch() -> None:
    doubling = Doubling()
    run(
        doubling,
        lambda batcher: asked_while_busy(batcher, doubling, range(1, 6)),
        batch_size=2,
        max_wait_s=9.0,
    )
    assert doubling.batches == [[0], [1, 2], [3, 4], [5]]


@pytest.mark.parametrize(
    ("jobs", "batches"),
    [
        ([1, 1, 1, 1, 1], [[1, 1, 1, 1], [1]]),
        ([3, 1, 1], [[3, 1], [1]]),
        ([1, 3, 3], [[1, 3], [3]]),
        ([2, 3, 2], [[2], [3], [2]]),
        ([9, 1, 9], [[9], [1], [9]]),  # a batch has at least one job
    ],
)
def test_weight_limits_the_jobs_of_a_batch(jobs: list[int], batches: list[list[int]]) -> None:
    doubling = Doubling()
    found = run(
        doubling,
        lambda batcher: asked_while_busy(batcher, doubling, jobs),
        batch_size=4,
        max_wait_s=9.0,
        weigh=lambda job: job,
    )
    assert found == [2 * job for job in jobs]
    assert doubling.batches == [[0], *batches]


def test_failing_job_fails_only_its_own_caller() -> None:
    doubling = Doubling()
    one, bad, other = run(doubling, lambda batcher: asked_while_busy(batcher, doubling, [1, 13, 3]))
    assert (one, other) == (2, 6)
    assert isinstance(bad, ValueError)
    assert str(bad) == "13 among 1"


def test_longest_batch_is_kept(clock: Clock) -> None:
    async def scenario(batcher: Batcher[int, int]) -> list[float]:
        longest = [batcher.longest_s]
        for doubling.seconds in (0.25, 0.5, 0.125):
            await batcher.submit(1)
            longest.append(batcher.longest_s)
        return longest

    doubling = Doubling(clock)
    assert run(doubling, scenario) == [0.0, 0.25, 0.5, 0.5]


def test_jobs_of_a_failed_batch_hold_the_thread_together(clock: Clock) -> None:
    async def scenario(batcher: Batcher[int, int]) -> float:
        await asked_while_busy(batcher, doubling, [1, 13, 3])
        return batcher.longest_s

    doubling = Doubling(clock, 0.25)
    assert run(doubling, scenario) == 4 * 0.25  # the batch, and each of its jobs


def test_thread_continues_after_a_failure() -> None:
    async def scenario(batcher: Batcher[int, int]) -> int:
        with pytest.raises(ValueError, match="13"):
            await batcher.submit(13)
        return await batcher.submit(4)

    assert run(Doubling(), scenario) == 8


def test_skips_a_cancelled_job() -> None:
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


def test_immediately_rejects_jobs_that_would_wait_too_long(clock: Clock) -> None:
    doubling = Doubling(clock, seconds=0.02)

    async def scenario(batcher: Batcher[int, int]) -> tuple[int, list[int]]:
        await batcher.submit(0)  # measures the time per job
        doubling.go.clear()
        tasks = [asyncio.create_task(batcher.submit(job)) for job in range(100, 200)]
        refused: list[asyncio.Task[int]] = []
        while len(refused) + len(batcher) < 98:  # the other two are in the running batch
            await asyncio.sleep(0.001)
            refused = [task for task in tasks if task.done()]
        doubling.go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        again = [one.retry_after for one in outcomes if isinstance(one, OverloadedError)]
        return len(outcomes) - len(again), again

    answered, again = run(doubling, scenario, batch_size=2, max_wait_s=0.1)
    # About 5 queued jobs of 0.02 s each fit into the maximum wait of 0.1 s. The running batch has up to 2 more jobs.
    assert 5 <= answered <= 8
    assert again == [1] * (100 - answered)


def test_close_finishes_accepted_jobs() -> None:
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


def test_heartbeat_reports_a_stuck_batch(clock: Clock) -> None:
    doubling = Doubling()

    async def scenario(batcher: Batcher[int, int]) -> None:
        assert batcher.heartbeat.stuck_reason is None
        doubling.go.clear()
        task = asyncio.create_task(batcher.submit(1))
        while not doubling.batches:
            await asyncio.sleep(0.001)
        assert batcher.heartbeat.stuck_reason is None
        clock.now += 0.03
        assert "busy with one job" in (batcher.heartbeat.stuck_reason or "")
        doubling.go.set()
        await task
        assert batcher.heartbeat.stuck_reason is None

    run(doubling, scenario, job_timeout_s=0.02)


def test_submit_after_close_raises_instead_of_waiting() -> None:
    async def scenario() -> None:
        batcher = Batcher(Doubling(), "test")
        batcher.close()
        with pytest.raises(RuntimeError, match="The batcher is closed and accepts no more jobs"):
            await asyncio.wait_for(batcher.submit(1), 600)

    asyncio.run(scenario())
