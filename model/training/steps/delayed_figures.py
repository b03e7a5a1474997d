"""Figures of a training step that the host reads later, while the device already computes the next step."""

import time

import torch
from jaxtyping import Float
from torch import Tensor


class DelayedFigures:
    """Numbers that the device computes; their copy to the host starts at once, and only `read` waits for it.

    `ready_at` is the time (`time.perf_counter`) at which the host had them; `read` must be called first.
    """

    def __init__(self, *figures: Float[Tensor, ""]) -> None:
        on_device = torch.stack([figure.detach().double() for figure in figures])
        self._figures = on_device.to("cpu", non_blocking=True)
        self._copied: torch.Event | None = None
        if on_device.is_cuda:
            self._copied = torch.Event(on_device.device)
            self._copied.record()
        self.ready_at = time.perf_counter()  # on a CPU, the figures are computed by now

    def read(self) -> tuple[float, ...]:
        """Return the figures; wait for the operations up to them, but not for later ones."""
        if self._copied is not None:
            self._copied.synchronize()
            self.ready_at = time.perf_counter()
        return tuple(self._figures.tolist())
