"""Measurement of CPU time relative to the current speed of the machine, for tests of time limits."""

from collections.abc import Callable
from time import process_time


def yards(work: Callable[[], object]) -> float:
    """Measure the CPU time of `work`, in units of a million multiplications (about 50 ms on a typical server).

    The result is the minimum of three measurements, each with a unit measured just before it. It depends neither on
    other processes nor on the speed of the machine.
    """

    def once() -> float:
        unit = _seconds(lambda: sum(number * number for number in range(1_000_000)))
        return _seconds(work) / unit

    return min(once() for _ in range(3))


def _seconds(work: Callable[[], object]) -> float:
    begun = process_time()
    work()
    return process_time() - begun
