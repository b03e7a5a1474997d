"""Tests of gradient buckets: complete, in reverse order, and sent during the backward pass."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.training.distributed import ProcessGroup
from model.training.steps import gradient_buckets
from model.training.steps.gradient_buckets import GradientBuckets


class Work:
    """A collective operation that doubles its values when it is waited for, as with a second equal rank."""

    def __init__(self, values: Tensor) -> None:
        self._values = values

    def wait(self) -> None:
        self._values.mul_(2)


def test_buckets_are_sent_in_reverse_order_during_backward_pass_and_summed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = [nn.Parameter(torch.full((4,), float(number))) for number in range(1, 5)]
    unused = nn.Parameter(torch.ones(4))
    unused.grad = torch.full((4,), 5.0)  # found in an earlier backward pass
    events: list[Any] = []

    def all_reduce(flat: Tensor, async_op: bool) -> Work:
        assert async_op
        events.append(flat.tolist())
        return Work(flat)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(gradient_buckets, "BUCKET_BYTES", 32)  # two weights
    buckets = GradientBuckets(ProcessGroup(0, 2, torch.device("cpu")), [[unused, *weights]])
    value = torch.ones(4)
    for weight in weights:
        value = value * weight
        value.register_hook(lambda _, weight=weight: events.append(int(weight[0])))
    with buckets.final(0):
        value.sum().backward()
    # The gradient of the last factor is final first, and the hooks record the factor that is reached.

    sent = [event for event in events if isinstance(event, list)]
    assert sent == [[6.0] * 4 + [8.0] * 4, [12.0] * 4 + [24.0] * 4, [5.0] * 4]
    assert events.index(sent[0]) < events.index(1)  # before the backward pass reached the first factor
    buckets.receive()
    assert [int(weight.grad[0]) for weight in (*weights, unused)] == [48, 24, 16, 12, 10]  # type: ignore[index]


def test_gradients_of_one_process_are_not_touched() -> None:
    weight = nn.Parameter(torch.ones(2))
    buckets = GradientBuckets(ProcessGroup(0, 1, torch.device("cpu")), [[weight]])
    with buckets.final(0):
        (3 * weight).sum().backward()
    buckets.receive()
    assert weight.grad is not None
    assert weight.grad.tolist() == [3.0, 3.0]
