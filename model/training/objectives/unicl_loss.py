"""Bidirectional supervised contrastive loss of UniCL (Yang et al. 2022, arXiv 2204.03610)."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from model.training.loss import PairBatch

from .batch_loss import BatchLoss, BatchVectors


class UniclLoss(BatchLoss):
    """Contrast of each text with all pictures, and the reverse; an anchor may have several positives.

    UniCL's positives share a label. Here they are linked in the training graph, under any relation, and each item is
    also its own positive. All other items of the batch are negatives. Without links, this is CLIP's loss. The paper
    learns the temperature; here it is fixed, as for the CLIP baseline.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self._temperature = temperature

    def forward(self, vectors: BatchVectors, pairs: PairBatch) -> Float[Tensor, ""]:
        """Compute the mean of both directions; the target of an anchor is spread evenly over its positives."""
        text, image = vectors.unconditioned()
        own = pairs.anchor.unique()
        targets = pairs.related[own].to(text.dtype)
        targets = targets / targets.sum(dim=1, keepdim=True)
        losses = [
            F.cross_entropy(x[own] @ y.T / self._temperature, targets, reduction="sum")
            for x, y in ((text, image), (image, text))
        ]
        return (losses[0] + losses[1]) / (2 * len(text))
