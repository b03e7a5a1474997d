"""Steps of a build or compaction, which are told as they go: how much is done, how fast, and the peak of memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from model.console import say

from .machine import peak_memory, readable_size

REPORT_INTERVAL_S = 30.0
"""Minimum number of seconds between two messages about an unfinished step."""

Tell = Callable[[str], None]


def tell_nobody(message: str) -> None:
    """Drop a message, such as those of a compaction within a server, whose log has other lines."""


@contextmanager
def step(label: str, count: int, unit: str, tell: Tell = say) -> Iterator[Callable[[int], None]]:
    """Time a step that makes `count` units, and tell its rate and the peak of memory at its end.

    Yields:
        A function that counts finished units. It tells how many are done, and how long the rest will take, at
        intervals of `REPORT_INTERVAL_S`.
    """
    started = told = monotonic()
    done = 0

    def advance(by: int) -> None:
        nonlocal done, told
        done += by
        now = monotonic()
        if now - told >= REPORT_INTERVAL_S:
            told = now
            left = (count - done) * (now - started) / done / 60
            tell(
                f"{label}: {done:,} of {count:,} {unit}, {_rate(done, now - started)}, {left:,.0f} minutes left"
            )

    yield advance
    took = monotonic() - started
    tell(
        f"{label}: {count:,} {unit} in {took:,.1f} s, {_rate(count, took)}; peak memory so far "
        f"{readable_size(peak_memory())}"
    )


def _rate(count: int, seconds: float) -> str:
    return f"{count / max(seconds, 1e-9):,.0f}/s"
