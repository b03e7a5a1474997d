"""Turns on the event loop: a bounded number of results between two looks at the sockets, in order of arrival."""

import asyncio

import pytest

from service.engine.loop_turns import LoopTurns


async def slices(turns: LoopTurns, results: int, count: int) -> list[int]:
    """Run `count` slices at once, and return the number of results that each look at the sockets was followed by."""
    loop = asyncio.get_running_loop()
    looks: list[int] = [0]
    done = False

    def look() -> None:
        looks.append(0)
        if not done:
            loop.call_soon(look)

    async def one() -> None:
        await turns.take(results)
        looks[-1] += results

    loop.call_soon(look)
    await asyncio.gather(*(one() for _ in range(count)))
    done = True
    return looks


@pytest.mark.parametrize(("results", "count"), [(100, 40), (10, 400), (1, 1_000), (60, 50)])
def test_bounds_the_results_between_two_looks_at_the_sockets(results: int, count: int) -> None:
    looks = asyncio.run(slices(LoopTurns(100), results, count))
    assert sum(looks) == results * count
    assert max(looks) <= 2 * 100  # the slices that take a turn at once, and those that were given one before


def test_slices_run_in_order_of_arrival() -> None:
    async def run() -> list[int]:
        turns, order = LoopTurns(10), list[int]()

        async def one(number: int) -> None:
            await turns.take(3 + number % 5)
            order.append(number)

        await asyncio.gather(*map(one, range(50)))
        return order

    assert asyncio.run(run()) == list(range(50))


def test_larger_slice_has_a_turn_of_its_own() -> None:
    async def run() -> None:
        turns = LoopTurns(10)
        await asyncio.gather(*(turns.take(1_000) for _ in range(5)))
        assert len(turns) == 0

    asyncio.run(run())


def test_cancelled_slice_does_not_hold_up_the_others() -> None:
    async def run() -> None:
        turns = LoopTurns(10)
        tasks = [asyncio.create_task(turns.take(10)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in tasks[1:4]:
            task.cancel()
        await tasks[4]
        assert len(turns) == 0

    asyncio.run(run())


def test_turns_are_given_again_after_a_pause() -> None:
    async def run() -> None:
        turns = LoopTurns(10)
        for _ in range(3):
            await asyncio.gather(*(turns.take(10) for _ in range(3)))
            await asyncio.sleep(0.001)

    asyncio.run(run())
