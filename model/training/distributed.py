"""The processes that train one network together, one a device; started by `torchrun`, or just this one.

Each rank encodes its share of a batch's items, and the vectors are gathered *with* gradient, so that the sum
of all ranks' gradients is that of the whole batch on one device. (Gathered without gradient it is 0.54 of it,
at a cosine of 0.96; not gathered at all, the negatives of the other ranks are missing.)

The gradients are summed once a step by one flat all-reduce rather than by `DistributedDataParallel`: its hooks
count on one backward pass a step, and a step of micro-batches has many.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from model.config import Device
from model.errors import InputError
from model.network.devices import choose_device

COLLECTIVE_TIMEOUT = timedelta(hours=12)
"""For the first rank while it decodes pictures or validates; NCCL would end the others after ten minutes.

They wait in vain for none that has died: then `torchrun` ends them.
"""


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, validates and speaks."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Give this rank its part of `count` things in a row; the ranks' parts differ by one at most."""
        return self._shares(count)[self.rank]

    def gather(self, own: Float[Tensor, "own ..."], count: int) -> Float[Tensor, "count ..."]:
        """Gather the vectors of all `count` things from every rank's share; gradients flow back to the owners."""
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

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the ranks."""
        gradients = [weight.grad for weight in parameters if weight.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(
            gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True
        ):
            gradient.copy_(summed.view_as(gradient))

    def total(self, value: float) -> float:
        """Sum a number over the ranks; each gets the same sum."""
        if self.size == 1:
            return value
        summed = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return summed.item()

    def wait(self) -> None:
        """Block until every rank is here."""
        self.total(0.0)


@contextmanager
def join_process_group(device: Device) -> Iterator[ProcessGroup]:
    """Join the other processes that `torchrun` started, each with a CUDA device of its own where there are any.

    Raises:
        InputError: CUDA is asked for and there is none, or fewer devices than processes.
    """
    chosen = choose_device(device)
    if not dist.is_torchelastic_launched():
        yield ProcessGroup(0, 1, chosen)
        return
    if chosen.type == "cuda":
        local, devices = dist.get_node_local_rank(), torch.cuda.device_count()
        if local >= devices:
            raise InputError(
                f"There are more processes than CUDA devices here, of which there are {devices}: start torchrun with "
                f"--nproc-per-node {devices}."
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=COLLECTIVE_TIMEOUT)
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """Every rank's rows, rank by rank; backward sums all ranks' gradients of the own ones."""

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
