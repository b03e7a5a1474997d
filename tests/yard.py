"""How fast this machine is just now, for tests that something takes little time."""

from collections.abc import Callable
from time import process_time


def yards(work: Callable[[], object]) -> float:
    """CPU time of `work`, in units of what a million multiplications take here, some 50 ms on a common server.

    The best of three, each beside a unit taken just before it: neither other processes nor a slow machine count.
    """

    def once() -> float:
        unit = _seconds(lambda: sum(number * number for number in range(1_000_000)))
        return _seconds(work) / unit

    return min(once() for _ in range(3))


def _seconds(work: Callable[[], object]) -> float:
    begun = process_time()
    work()
    return process_time() - begun
