"""Process group that trains one network: one process per device under `torchrun`, or a single process without it.

Each rank encodes its share of the items of a batch. The vectors are gathered *with* gradient, so the gradients of all
ranks sum to the gradient of the whole batch on one device. If the vectors were gathered without gradient, the sum
would be wrong: in a measurement, it had 0.54 times the norm of the correct gradient and a cosine of 0.96 with it. If
they were not gathered at all, the negatives on the other ranks would be missing.

`steps/gradient_buckets.py` sums the gradients.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from model.config import Device
from model.errors import InputError
from model.network.devices import choose_device

COLLECTIVE_TIMEOUT = timedelta(hours=12)
"""Timeout of a collective operation, longer than the first rank ever needs to decode pictures or to validate.

While the first rank decodes or validates, the other ranks wait in a collective operation. NCCL's default timeout would
abort them after ten minutes. The long timeout does not delay the end of a failed run, because `torchrun` ends all ranks
if one of them dies.
"""


@dataclass(frozen=True)
class ProcessGroup:
    """Rank and device of this process, and the number of processes in the group."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """True for rank 0, the only rank that writes files, validates and prints messages."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return the slice of `count` rows that belongs to this rank; the sizes of the slices differ by at most 1."""
        return self._shares(count)[self.rank]

    def gather(self, own: Float[Tensor, "own ..."], count: int) -> Float[Tensor, "count ..."]:
        """Gather all `count` rows from the ranks; the gradient of a row flows back to the rank that computed it."""
        if self.size == 1:
            return own
        most = -(-count // self.size)
        padded = torch.cat([own, own.new_zeros(most - len(own), *own.shape[1:])])
        parts = _Gather.apply(padded, self.rank, self.size)  # type: ignore[no-untyped-call]
        lengths = [share.stop - share.start for share in self._shares(count)]
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    def _shares(self, count: int) -> list[slice]:
        bounds = [count * rank // self.size for rank in range(self.size + 1)]
        return [slice(start, stop) for start, stop in pairwise(bounds)]

    def total(self, value: float) -> float:
        """Return the sum of `value` over all ranks; every rank receives the same sum."""
        if self.size == 1:
            return value
        summed = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return summed.item()

    def summed(self, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Return the sum of `value` over all ranks, on their devices."""
        if self.size == 1:
            return value
        value = value.double()
        dist.all_reduce(value)
        return value

    def copy_from_first(self, values: Tensor) -> None:
        """Replace `values` on every other rank with those of the first rank."""
        if self.size > 1:
            dist.broadcast(values, 0)

    def wait(self) -> None:
        """Block until every rank has called this method."""
        self.total(0.0)


@contextmanager
def join_process_group(device: Device) -> Iterator[ProcessGroup]:
    """Join the process group that `torchrun` started; on CUDA, each process gets its own device.

    Without `torchrun`, this process forms a group of its own.

    Raises:
        InputError: CUDA is requested but not available, or this machine has fewer CUDA devices than processes.
    """
    chosen = choose_device(device)
    if not dist.is_torchelastic_launched():
        yield ProcessGroup(0, 1, chosen)
        return
    if chosen.type == "cuda":
        local, devices = dist.get_node_local_rank(), torch.cuda.device_count()
        if local >= devices:
            raise InputError(
                f"torchrun started more processes on this machine than it has CUDA devices ({devices}). Start torchrun "
                f"with --nproc-per-node {devices}."
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=COLLECTIVE_TIMEOUT)
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """All-gather of the rows of all ranks; the backward pass sums the gradient of each row over all ranks."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, rank: int, size: int) -> tuple[Tensor, ...]:
        ctx.rank = rank
        parts = [torch.empty_like(own) for _ in range(size)]
        dist.all_gather(parts, own.contiguous())
        return tuple(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        summed = torch.stack(gradients)
        dist.all_reduce(summed)
        return summed[ctx.rank], None, None
