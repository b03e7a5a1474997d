"""Sum of the gradients over all ranks, in buckets that are sent while the backward pass goes on.

`DistributedDataParallel` is unsuitable, because its hooks assume one backward pass per step, and a step here has
several: one for every micro-batch, and one for the relations. The weights are therefore divided into stages, one for
each backward pass in which gradients become final.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.training.distributed import ProcessGroup

BUCKET_BYTES = 25 * 2**20
"""Minimum number of bytes of a bucket, except the last of a stage; as in `DistributedDataParallel`."""


@dataclass
class _Bucket:
    """Weights whose gradients are summed together; `waiting` holds those whose gradients are not final yet."""

    weights: list[nn.Parameter]
    waiting: set[nn.Parameter] = field(default_factory=set)
    sent: tuple[dist.Work, Tensor, list[Tensor]] | None = None

    def send(self) -> None:
        """Start to sum the gradients that exist."""
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        if gradients:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            self.sent = dist.all_reduce(flat, async_op=True), flat, gradients

    def receive(self) -> None:
        """Wait for the sum and copy it into the gradients."""
        if self.sent is not None:
            work, flat, gradients = self.sent
            work.wait()
            parts = flat.split([gradient.numel() for gradient in gradients])
            shaped = [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
            torch._foreach_copy_(gradients, shaped)
            self.sent = None


class GradientBuckets:
    """Buckets of all weights, sent in one order on all ranks.

    `stages` has the weights whose gradients become final in each backward pass. A backward pass reaches the last layers
    first, so the buckets are in the reverse order of the weights. A bucket is sent only after all buckets before it,
    because collective operations must have the same order on all ranks.
    """

    def __init__(self, group: ProcessGroup, stages: Sequence[Sequence[nn.Parameter]]) -> None:
        self._stages: list[list[_Bucket]] = []
        self._next = 0  # position of the next bucket to send, among those of the open stage
        self._open: list[_Bucket] = []
        for weights in stages if group.size > 1 else ():
            buckets = list(_divided([weight for weight in weights if weight.requires_grad][::-1]))
            self._stages.append(buckets)
            for bucket in buckets:
                for weight in bucket.weights:
                    weight.register_post_accumulate_grad_hook(partial(self._arrive, bucket))

    @contextmanager
    def final(self, stage: int) -> Iterator[None]:
        """Send the buckets of `stage` during the enclosed backward pass, and what it did not reach at its end."""
        self._open, self._next = self._stages[stage] if self._stages else [], 0
        for bucket in self._open:
            bucket.waiting = set(bucket.weights)
        yield
        for bucket in self._open[self._next :]:
            bucket.send()
        self._open = []

    def receive(self) -> None:
        """Wait for all buckets; afterwards each gradient is its sum over all ranks."""
        for stage in self._stages:
            for bucket in stage:
                bucket.receive()

    def _arrive(self, bucket: _Bucket, weight: nn.Parameter) -> None:
        """Note that the gradient of `weight` is final, and send the buckets that are complete, in order."""
        bucket.waiting.discard(weight)
        while self._next < len(self._open) and not self._open[self._next].waiting:
            self._open[self._next].send()
            self._next += 1


def _divided(weights: Sequence[nn.Parameter]) -> Iterator[_Bucket]:
    """Divide `weights` into buckets of at least `BUCKET_BYTES`, except the last."""
    held: list[nn.Parameter] = []
    for weight in weights:
        held.append(weight)
        if sum(one.nbytes for one in held) >= BUCKET_BYTES:
            yield _Bucket(held)
            held = []
    if held:
        yield _Bucket(held)
