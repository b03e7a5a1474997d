"""When requests may be late: the kernel is asked unless the loop has looked at its sockets moments ago."""

from asyncio import AbstractEventLoop
from typing import cast

from service.http.kernel import Looks


class Loop:
    """Event loop that tells when it last looked at its sockets, as uvloop does."""

    __module__ = "uvloop"

    def __init__(self) -> None:
        self.looked = 5.0

    def time(self) -> float:
        return self.looked


def late(looks: Looks, loop: object) -> bool:
    return looks.may_be_late(cast(AbstractEventLoop, loop))


def test_only_the_requests_after_a_long_turn_of_the_loop_may_be_late() -> None:
    loop, looks, found = Loop(), Looks(), []
    for passed in (0.0, 0.0, 0.01, 0.0, 0.015, 3.0, 0.0, 0.0, 0.001):
        loop.looked += passed
        found.append(late(looks, loop))
    assert found == [True, True, False, False, False, True, True, True, False]


def test_a_loop_that_tells_the_present_time_says_nothing() -> None:
    class Other(Loop):
        __module__ = "asyncio"

    looks = Looks()
    assert [late(looks, Other()) for _ in range(3)] == [True] * 3
