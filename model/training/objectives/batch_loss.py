"""Base class of the losses of a batch, and the vectors that they compare."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from model.training.loss import PairBatch


@dataclass(frozen=True)
class BatchVectors:
    """Unit vectors of all items of a batch; `items` are their positions in the training data."""

    text: Float[Tensor, "items views relations dim"]
    image: Float[Tensor, "items views relations dim"]
    items: Int[Tensor, " items"]

    def unconditioned(self) -> tuple[Float[Tensor, "items dim"], Float[Tensor, "items dim"]]:
        """Return the first view of text and image under the only relation, at least in float32."""
        text, image = self.text[:, 0, 0], self.image[:, 0, 0]
        exact = torch.promote_types(text.dtype, torch.float32)  # bf16 would distort the logits
        return text.to(exact), image.to(exact)


class BatchLoss(nn.Module, ABC):
    """Loss of a batch.

    The parameters of a loss are trained with those of the network, and its buffers change with every step. Both are
    part of the state of a run, for `--resume`, but not of the checkpoint: no vector depends on them.

    `views` is the number of views of each item that the loss compares; the second view is augmented.
    """

    views: ClassVar[int] = 1

    @abstractmethod
    def forward(self, vectors: BatchVectors, pairs: PairBatch) -> Float[Tensor, ""]:
        """Compute the loss of the anchors in `pairs`; the losses of all ranks sum to the loss of the batch."""
