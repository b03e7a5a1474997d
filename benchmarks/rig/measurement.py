"""How every benchmark measures: the sides in turn, again and again, so that a busy machine slows them alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median, quantiles
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from model.malloc import keep_freed_memory


@dataclass(frozen=True)
class Timings:
    """Seconds of every side in every round."""

    seconds: Mapping[str, Sequence[float]]

    def median(self, side: str) -> float:
        """Seconds of `side`."""
        return median(self.seconds[side])

    def spread(self, side: str) -> tuple[float, float]:
        """The quartiles of `side`, in seconds."""
        low, _, high = quantiles(self.seconds[side], n=4, method="inclusive")
        return low, high

    def ratio(self, side: str, reference: str) -> float:
        """Median over the rounds of `side` / `reference`: within a round, both meet the same machine."""
        pairs = zip(self.seconds[side], self.seconds[reference], strict=True)
        return median(one / other for one, other in pairs)


def interleave(sides: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> Timings:
    """Time every side once a round, in an order drawn anew; `warmup` rounds are not counted.

    In a fixed order, even a rotated one, a side would always meet the caches and the heap of the same other.
    """
    draw = Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-warmup, rounds):
        for name in draw.sample(list(sides), len(sides)):
            took = _seconds(sides[name])
            if turn >= 0:
                seconds[name].append(took)
    return Timings(seconds)


def _seconds(call: Callable[[], object]) -> float:
    _wait()
    start = time.perf_counter()
    kept = call()  # freed after the clock has stopped
    _wait()
    took = time.perf_counter() - start
    del kept
    return took


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(call: Callable[[], object], device: torch.device) -> int:
    """Bytes that `call` holds at its height, above what was held before: what torch's allocator hands out.

    On a CPU from the profiler's record of every allocation, which leaves out what does not differ between
    two sides (libraries, scratch of the matrix products) and is the same in every run.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    results: Any = recorded.profiler
    changes = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    held = highest = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        held += change.nbytes()
        highest = max(highest, held)
    return highest


def on_every_device(measure: Callable[[torch.device], dict[str, Any]]) -> dict[str, Any]:
    """The figures of the CPU, and those of CUDA under `cuda` where there is one.

    Memory is kept, as in every process of `rcml`: by accident, one side would have it cleared anew in every round
    and another not.
    """
    keep_freed_memory()
    figures = measure(torch.device("cpu"))
    if torch.cuda.is_available():
        figures["cuda"] = measure(torch.device("cuda"))
    return figures


def milliseconds(timings: Timings, side: str) -> tuple[str, str]:
    """Median and quartiles of a side, for a table."""
    low, high = timings.spread(side)
    return f"{1e3 * timings.median(side):.1f}", f"{1e3 * low:.1f} - {1e3 * high:.1f}"
