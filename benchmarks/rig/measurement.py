"""Timing of benchmarks, in which variants take turns so that other load on the machine slows all of them equally."""

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
    """Seconds that each variant took in each round. A variant is also called a side."""

    seconds: Mapping[str, Sequence[float]]

    def median(self, side: str) -> float:
        """Return the median of `side` in seconds."""
        return median(self.seconds[side])

    def spread(self, side: str) -> tuple[float, float]:
        """Return the lower and upper quartile of `side` in seconds."""
        low, _, high = quantiles(self.seconds[side], n=4, method="inclusive")
        return low, high

    def ratio(self, side: str, reference: str) -> float:
        """Return the median over the rounds of `side` / `reference`.

        Both times come from the same round, so other load on the machine affects both equally.
        """
        pairs = zip(self.seconds[side], self.seconds[reference], strict=True)
        return median(one / other for one, other in pairs)


def interleave(sides: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> Timings:
    """Time every variant once per round, in random order; the first `warmup` rounds are not counted.

    In a fixed order, even a rotated one, each variant would always run after the same other variant, which affects the
    caches and the heap.
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
    kept = call()  # freed only after the clock has stopped
    _wait()
    took = time.perf_counter() - start
    del kept
    return took


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(call: Callable[[], object], device: torch.device) -> int:
    """Return the peak of the bytes that `call` holds in torch's allocator, without the bytes held before the call.

    On a CPU the peak is computed from the profiler's record of every allocation. The record is the same in every run.
    It excludes memory that does not differ between two variants (libraries, scratch memory of matrix products).
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
    """Return the figures of the CPU and, if CUDA is available, the figures of CUDA under `cuda`.

    The process keeps freed memory, as every process of `rcml` does. Otherwise one variant might, by chance, have its
    memory returned to the kernel and cleared again in every round, and another variant might not.
    """
    keep_freed_memory()
    figures = measure(torch.device("cpu"))
    if torch.cuda.is_available():
        figures["cuda"] = measure(torch.device("cuda"))
    return figures


def milliseconds(timings: Timings, side: str) -> tuple[str, str]:
    """Format the median and the quartiles of `side` in milliseconds, for a table."""
    low, high = timings.spread(side)
    return f"{1e3 * timings.median(side):.1f}", f"{1e3 * low:.1f} - {1e3 * high:.1f}"
