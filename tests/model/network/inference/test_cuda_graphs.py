"""Tests of recorded calls, with a recorder that repeats the call on the same tensors, as the replay of a graph does."""

from collections.abc import Callable

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


@pytest.mark.parametrize(("items", "size"), [(1, 1), (3, 4), (17, 32), (32, 32), (33, None)])
def test_batches_are_rounded_up_to_few_sizes(items: int, size: int | None) -> None:
    assert bucket(items) == size
