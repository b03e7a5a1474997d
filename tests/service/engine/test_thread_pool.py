"""Tests of the thread pool: results, errors, overload, cancellation and heartbeats."""

import asyncio
from threading import Event, Semaphore, get_ident

import pytest

from service.engine.thread_pool import MIN_QUEUE_PER_THREAD, ThreadPool
from service.problems.errors import OverloadedError


def test_runs_work_in_another_thread_and_returns_its_result() -> None:
    async def scenario() -> tuple[int, int]:
        workers = ThreadPool("test", 1)
        try:
            return await workers.run(lambda by: (get_ident(), by), by=7)
        finally:
            workers.close()

    thread, result = asyncio.run(scenario())
    assert result == 7
    assert thread != get_ident()


def test_exception_in_a_job_reaches_its_caller() -> None:
    async def scenario() -> None:
        workers = ThreadPool("test", 1)
        empty: dict[str, int] = {}
        try:
            await workers.run(lambda: empty["missing"])
        finally:
            workers.close()

    with pytest.raises(KeyError, match="missing"):
        asyncio.run(scenario())


def test_rejects_jobs_that_would_wait_too_long_and_accepts_later_jobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, turns = 0.0, Semaphore(0)
    monkeypatch.setattr("service.engine.thread_pool.monotonic", lambda: now)

    def work() -> None:
        nonlocal now
        assert turns.acquire(timeout=600)
        now += 0.02

    async def scenario() -> tuple[int, int]:
        workers = ThreadPool("test", 1, max_wait_s=0.05)
        for task in [asyncio.create_task(workers.run(work)) for _ in range(5)]:
            turns.release()
            await task  # measures the interval between finished jobs
        tasks = [asyncio.create_task(workers.run(work)) for _ in range(80)]
        await asyncio.sleep(0)  # each job is accepted or rejected
        turns.release(81)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await workers.run(work)
        workers.close()
        refused = [one for one in outcomes if isinstance(one, OverloadedError)]
        return len(outcomes) - len(refused), len(refused)

    assert asyncio.run(scenario()) == (MIN_QUEUE_PER_THREAD, 80 - MIN_QUEUE_PER_THREAD)


def test_skips_a_job_cancelled_before_its_start() -> None:
    async def scenario() -> list[str]:
        workers, go = ThreadPool("test", 1), Event()
        done: list[str] = []
        first = asyncio.create_task(workers.run(go.wait, 600))
        second = asyncio.create_task(workers.run(done.append, "second"))
        await asyncio.sleep(0.02)
        second.cancel()
        await asyncio.sleep(0)
        go.set()
        await first
        await workers.run(done.append, "third")
        workers.close()
        return done

    assert asyncio.run(scenario()) == ["third"]


def test_heartbeat_reports_a_stuck_job(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("service.engine.watchdog.monotonic", lambda: now)

    async def scenario() -> None:
        nonlocal now
        workers, begun, go = ThreadPool("test", 1, job_timeout_s=0.02), Event(), Event()

        def hang() -> None:
            begun.set()
            assert go.wait(600)

        task = asyncio.create_task(workers.run(hang))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        assert [heartbeat.stuck_reason for heartbeat in workers.heartbeats] == [None]
        now += 0.03
        stuck = [heartbeat.stuck_reason or "" for heartbeat in workers.heartbeats]
        assert ["busy with one job" in reason for reason in stuck] == [True]
        go.set()
        await task
        assert [heartbeat.stuck_reason for heartbeat in workers.heartbeats] == [None]
        workers.close()

    asyncio.run(scenario())
