"""Searches run in threads, so many at a time; beyond what can be done in time, they are refused."""

import asyncio
from threading import Event, get_ident
from time import sleep

import pytest

from service.engine.thread_pool import ALWAYS, ThreadPool
from service.errors import OverloadedError


def test_work_is_done_in_another_thread_and_its_result_comes_back() -> None:
    async def scenario() -> tuple[int, int]:
        workers = ThreadPool("test", 1)
        try:
            return await workers.run(lambda by: (get_ident(), by), by=7)
        finally:
            workers.close()

    thread, result = asyncio.run(scenario())
    assert result == 7
    assert thread != get_ident()


def test_what_it_raises_reaches_the_caller() -> None:
    async def scenario() -> None:
        workers = ThreadPool("test", 1)
        try:
            await workers.run(lambda: {}["missing"])
        finally:
            workers.close()

    with pytest.raises(KeyError, match="missing"):
        asyncio.run(scenario())


def test_what_would_wait_too_long_is_refused_and_later_work_is_not() -> None:
    async def scenario() -> tuple[int, int]:
        workers = ThreadPool("test", 1, patience=0.05)
        await asyncio.gather(
            *(workers.run(sleep, 0.02) for _ in range(5))
        )  # it learns how fast they are done
        outcomes = await asyncio.gather(
            *(workers.run(sleep, 0.02) for _ in range(80)), return_exceptions=True
        )
        await workers.run(sleep, 0.0)
        workers.close()
        refused = [one for one in outcomes if isinstance(one, OverloadedError)]
        return len(outcomes) - len(refused), len(refused)

    answered, refused = asyncio.run(scenario())
    assert ALWAYS <= answered <= ALWAYS + 3
    assert answered + refused == 80


def test_what_was_given_up_before_its_turn_is_not_done() -> None:
    async def scenario() -> list[str]:
        workers, go, done = ThreadPool("test", 1), Event(), []
        first = asyncio.create_task(workers.run(go.wait, 10))
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


def test_a_job_that_hangs_shows_in_a_pulse() -> None:
    async def scenario() -> None:
        workers, go = ThreadPool("test", 1, worker_patience=0.02), Event()
        task = asyncio.create_task(workers.run(go.wait, 10))
        await asyncio.sleep(0.05)
        assert ["busy with one piece of work" in (pulse.wedged or "") for pulse in workers.pulses] == [True]
        go.set()
        await task
        assert [pulse.wedged for pulse in workers.pulses] == [None]
        workers.close()

    asyncio.run(scenario())
