"""Pairwise sigmoid loss of SigLIP (Zhai et al. 2023, arXiv 2303.15343, section 3.2)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from model.training.loss import PairBatch

from .batch_loss import BatchLoss, BatchVectors


class SiglipLoss(BatchLoss):
    """Binary classification of all text-image pairs of a batch; the text and the picture of one item belong together.

    The temperature exp(t') and the bias b are learnt. They start at log 10 and -10, as in the paper: almost all pairs
    are negative, and the bias keeps them from dominating the first steps.

    Text and picture of two related items are no pair, neither positive nor negative. The CLIP baseline here has the
    same negatives. Without related items in the batch, the loss is the paper's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def forward(self, vectors: BatchVectors, pairs: PairBatch) -> Float[Tensor, ""]:
        """Compute -1/n sum_i sum_j log sigmoid(z_ij (exp(t') x_i . y_j + b)), with z_ij = 1 if i = j, otherwise -1."""
        text, image = vectors.unconditioned()
        own = pairs.anchor.unique()
        logits = self.log_temperature.exp() * (text[own] @ image.T) + self.bias
        positive = own[:, None] == torch.arange(len(image), device=own.device)
        losses = -F.logsigmoid(torch.where(positive, logits, -logits))
        return losses.masked_fill(pairs.related[own] & ~positive, 0.0).sum() / len(image)
