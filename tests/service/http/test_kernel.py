"""When requests may be late: the kernel is asked unless the loop has looked at its sockets moments ago."""

import asyncio
import time

import pytest
import uvloop

from service.http.kernel import Looks


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_all_requests_that_a_look_finds_after_a_long_turn_may_be_late(run: object) -> None:
    now = 5.0

    async def main() -> list[list[bool]]:
        nonlocal now
        looks, found = Looks(lambda: now), []
        loop = asyncio.get_running_loop()
        for passed in (0.0, 0.01, 0.015, 3.0, 0.001):
            now += passed
            one = []
            for _ in range(3):
                one.append(looks.may_be_late(loop))
                now += 0.004  # the time that other requests of the same look take
                time.sleep(0.002)
            found.append(one)
            await asyncio.sleep(0)
        return found

    assert run(main()) == [[True] * 3, [True] * 3, [True] * 3, [True] * 3, [False] * 3]  # type: ignore[operator]
