"""Loss of RCML, of its unconditioned ablation `blind` and of the CLIP baseline (`model/training/loss.py`)."""

from jaxtyping import Float
from torch import Tensor

from model.training.loss import PairBatch, rcml_loss

from .batch_loss import BatchLoss, BatchVectors


class RelationLoss(BatchLoss):
    """Equation 1; with weight 0 of the intra-modal terms, self-pairs give CLIP's loss."""

    def __init__(self, temperature: float, intra_modal_weight: float) -> None:
        super().__init__()
        self._temperature = temperature
        self._intra_modal_weight = intra_modal_weight

    def forward(self, vectors: BatchVectors, pairs: PairBatch) -> Float[Tensor, ""]:
        """Compute equation 1."""
        text, image = vectors.text[:, 0], vectors.image[:, 0]
        return rcml_loss(text, image, pairs, self._temperature, self._intra_modal_weight)
