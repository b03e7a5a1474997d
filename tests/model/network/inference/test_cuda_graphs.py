"""Tests of recorded calls, with a recorder that repeats the call on the same tensors, as the replay of a graph does."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import pytest
import torch
from torch import Tensor

from model.network.inference.cuda_graphs import RecordedCalls, bucket


class Repeater:
    """Recorder that computes a call again into the memory of its first outputs."""

    def __init__(self) -> None:
        self.recorded = 0

    def record(self, call: Callable[[], tuple[Tensor, ...]]) -> tuple[tuple[Tensor, ...], Callable[[], None]]:
        """Return the outputs of `call`, and a function that overwrites them."""
        self.recorded += 1
        outputs = call()

        def replay() -> None:
            for held, found in zip(outputs, call(), strict=True):
                held.copy_(found)

        return outputs, replay


class Refuser:
    """Recorder for which no call can be recorded."""

    def record(self, call: Callable[[], tuple[Tensor, ...]]) -> tuple[tuple[Tensor, ...], Callable[[], None]]:
        """Fail as a recording of a call that waits for the device does."""
        raise RuntimeError("operation not permitted when stream is capturing\nCompile with ...")


def double(values: Tensor) -> tuple[Tensor, ...]:
    return (2 * values,)


def test_replays_one_recording_for_each_shape() -> None:
    recorder = Repeater()
    calls = RecordedCalls(double, recorder)
    assert [calls(torch.tensor(values))[0].tolist() for values in ([1, 2], [5, 7], [3], [1, 9])] == [
        [2, 4],
        [10, 14],
        [6],
        [2, 18],
    ]
    assert recorder.recorded == 2


def test_outputs_are_not_overwritten_by_the_next_call() -> None:
    calls = RecordedCalls(double, Repeater())
    first = calls(torch.tensor([1, 2]))[0]
    calls(torch.tensor([5, 7]))
    assert first.tolist() == [2, 4]


def test_inputs_of_the_caller_are_not_overwritten() -> None:
    calls = RecordedCalls(double, Repeater())
    given = torch.tensor([1, 2])
    calls(given)
    calls(torch.tensor([5, 7]))
    assert given.tolist() == [1, 2]


def test_calls_go_on_without_recordings_and_one_message_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    calls = RecordedCalls(double, Refuser())
    assert [calls(torch.tensor([value]))[0].item() for value in (1, 2)] == [2, 4]
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("CUDA graphs are off") == 1
    assert "operation not permitted when stream is capturing" in printed.out + printed.err


def test_calls_in_several_threads_are_recorded_one_after_another() -> None:
    recording = Lock()

    class Single(Repeater):
        """Recorder of one call at a time, as CUDA is."""

        def record(
            self, call: Callable[[], tuple[Tensor, ...]]
        ) -> tuple[tuple[Tensor, ...], Callable[[], None]]:
            """Take a while."""
            assert recording.acquire(blocking=False), "another call is being recorded"
            time.sleep(0.05)
            recording.release()
            return super().record(call)

    recorder = Single()
    calls = [RecordedCalls(double, recorder) for _ in range(4)]
    with ThreadPoolExecutor(len(calls)) as threads:
        found = threads.map(lambda one: one(torch.tensor([3]))[0].item(), calls)
    assert [*found] == [6] * len(calls)


@pytest.mark.parametrize(("items", "size"), [(1, 1), (3, 4), (17, 32), (32, 32), (33, None)])
def test_batches_are_rounded_up_to_few_sizes(items: int, size: int | None) -> None:
    assert bucket(items) == size
