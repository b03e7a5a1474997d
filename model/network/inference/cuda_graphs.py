"""CUDA graphs of a network's calls: the kernels of one call, recorded once for each shape and then replayed together.

A batch of a few items keeps a GPU busy for less time than the CPU needs to launch its kernels one by one: some 500 for
both towers. A replay launches all of them at once. It reads its inputs from the memory that the recording read them
from, so inputs are copied there, and outputs are copied from there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch import Tensor

from model.console import say

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32)
"""Batch sizes that are recorded. Larger batches keep the GPU busy without a recording."""

LENGTH_STEP = 16
"""Texts are padded to a multiple of this number of tokens, so that few lengths are recorded."""

_ONE_AT_A_TIME = Lock()
"""Lock of recordings and replays: CUDA can record only one graph at a time, and a replay overwrites shared memory."""

MAX_RECORDED_TOKENS = 128
"""Maximum length of texts that are recorded. It bounds the number of recordings, and longer texts keep the GPU busy."""

WARM_UP_CALLS = 3
"""Number of calls before a recording, in which libraries choose their kernels and allocate their workspaces."""

Call = Callable[..., tuple[Tensor, ...]]


def bucket(items: int) -> int | None:
    """Return the smallest batch size that is recorded and holds `items`; None if there is none."""
    return next((size for size in BATCH_BUCKETS if size >= items), None)


class Recorder(Protocol):
    """Way to record a call, so that it can be repeated on new contents of the same input tensors."""

    def record(self, call: Callable[[], tuple[Tensor, ...]]) -> tuple[tuple[Tensor, ...], Callable[[], None]]:
        """Return the outputs of `call`, and a function that computes them again from the current inputs.

        Raises:
            RuntimeError: the call cannot be recorded, for example because it waits for the device.
        """


class CudaRecorder:
    """Recorder of CUDA graphs, which share one pool of memory because only one of them runs at a time.

    The pool exists as long as one of its graphs does.
    """

    def __init__(self) -> None:
        self._graphs: WeakSet[Any] = WeakSet()

    def record(self, call: Callable[[], tuple[Tensor, ...]]) -> tuple[tuple[Tensor, ...], Callable[[], None]]:
        """Record the kernels that `call` launches on the current device."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_CALLS):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        pool = next((other.pool() for other in self._graphs), None)
        # Other threads may use the device during a recording, for example to search vectors. The outer context
        # restores the current stream if the recording fails, which `torch.cuda.graph` does not.
        with (
            torch.cuda.stream(torch.cuda.current_stream()),
            torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"),
        ):
            outputs = call()
        self._graphs.add(graph)
        return outputs, graph.replay


@dataclass(frozen=True)
class _Recording:
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    replay: Callable[[], None]


class RecordedCalls:
    """Calls of one function of tensors, recorded for each combination of input shapes when it first occurs.

    All other tensors that the function reads must stay where they are. If a recording fails, this and all later calls
    run without one, and one message says why. Without a recorder, no call is recorded. Safe to use from many threads.
    """

    def __init__(self, function: Call, recorder: Recorder | None) -> None:
        self.function = function
        self._recorder = recorder
        self._recordings: dict[tuple[tuple[torch.Size, torch.dtype], ...], _Recording] = {}

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the function for `inputs`."""
        with _ONE_AT_A_TIME:
            recording = self._recording(inputs)
            if recording is None:
                return self.function(*inputs)
            for held, given in zip(recording.inputs, inputs, strict=True):
                held.copy_(given, non_blocking=True)
            recording.replay()
            return tuple(output.clone() for output in recording.outputs)

    def _recording(self, inputs: Sequence[Tensor]) -> _Recording | None:
        key = tuple((given.shape, given.dtype) for given in inputs)
        if key not in self._recordings and self._recorder is not None:
            held = tuple(given.clone() for given in inputs)
            try:
                outputs, replay = self._recorder.record(lambda: self.function(*held))
            except RuntimeError as error:
                self._recorder = None
                self._recordings.clear()
                reason = str(error).splitlines()[0]
                say(f"CUDA graphs are off, because this network cannot be recorded ({reason}).")
                return None
            self._recordings[key] = _Recording(held, outputs, replay)
        return self._recordings.get(key)
