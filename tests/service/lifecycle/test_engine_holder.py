"""Tests that the engine holder never returns a closed engine, even while other threads replace the engine."""

import asyncio
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from service.engine.engine import Engine
from service.engine.reference_counted import ReferenceCounted
from service.lifecycle.engine_holder import EngineHolder
from service.problems.errors import NotReadyError
from tests.service.engine.test_index_follower import eventually


class LightEngine(Engine):
    """An engine without an index, cheap enough to open hundreds of times."""

    def __init__(self) -> None:
        ReferenceCounted.__init__(self)
        self.closed = False

    def _close(self) -> None:
        assert not self.closed, "the engine was closed twice"
        self.closed = True


@pytest.fixture
def _many_switches() -> Iterator[None]:
    """Switch between threads every tenth of a millisecond."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(usual)


def opened() -> EngineHolder:
    holder = EngineHolder(LightEngine)
    asyncio.run(holder.run())
    return holder


@pytest.mark.usefixtures("_many_switches")
def test_held_engine_is_open_during_hundreds_of_swaps() -> None:
    holder, replaced, going_on, begun = opened(), [], [True], Barrier(5)

    def hold() -> int:
        times = 0
        begun.wait(600)
        while going_on or not times:
            with holder.held() as engine:
                assert isinstance(engine, LightEngine)
                assert not engine.closed
            times += 1
        return times

    with ThreadPoolExecutor(4) as threads:
        threads_holding = [threads.submit(hold) for _ in range(4)]
        begun.wait(600)
        for _ in range(200):
            replaced.append(holder.engine)
            holder.replace(LightEngine())
        going_on.clear()
        assert all(thread.result() > 0 for thread in threads_holding)
    eventually(lambda: all(isinstance(one, LightEngine) and one.closed for one in replaced))
    assert isinstance(holder.engine, LightEngine)
    assert not holder.engine.closed


def test_replaced_engine_stays_open_while_held() -> None:
    holder = opened()
    with holder.held() as before:
        holder.replace(LightEngine())
        assert isinstance(before, LightEngine)
        assert not before.closed
        with holder.held() as after:
            assert after is not before
    eventually(lambda: before.closed)


def test_raises_not_ready_if_no_engine_is_open() -> None:
    with pytest.raises(NotReadyError, match="still being opened"), EngineHolder(LightEngine).held():
        pass
