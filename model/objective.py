"""The objective (eq. 1, 2, 7, 8), grouped by relation.

Anchor i, positive j and the negatives k are all compared under the pair's relation. Encoding every
candidate under every pair's relation would take batch x batch conditioned vectors; grouped by the batch's
distinct relations, as here, it takes items x relations of them, with the same values and gradients.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class PairBatch:
    """The pairs P of a batch, by position among the batch's items and relations.

    `related[i, k]` is true where i and k share a relation anywhere in the training graph or are the same
    item: N(i) is what is left. Undirected edges appear in both orders. `count` is the number of pairs that the
    loss is a mean over, and `inter_count` of those between two items: more than are here where other ranks
    have the rest, in which case the losses of the ranks add up to that of the batch.
    """

    anchor: Int[Tensor, "pairs"]
    positive: Int[Tensor, "pairs"]
    relation: Int[Tensor, "pairs"]
    related: Bool[Tensor, "items items"]
    count: int
    inter_count: int

    def to(self, device: torch.device) -> "PairBatch":
        """The same on `device`."""
        tensors = (self.anchor, self.positive, self.relation, self.related)
        return PairBatch(
            *(one.to(device, non_blocking=True) for one in tensors), self.count, self.inter_count
        )


def objective(
    text: Float[Tensor, "items relations dim"],
    image: Float[Tensor, "items relations dim"],
    pairs: PairBatch,
    temperature: float,
    intra_modal_weight: float,
) -> Float[Tensor, ""]:
    """Eq. 1: mean of both cross-modal terms + lambda x (text-text + image-image).

    Intra-modal terms skip self-pairs: a vector against itself teaches nothing. With self-pairs only and
    lambda 0, this is CLIP's loss (eq. 7).
    """
    crossed = (
        contrast(text, image, pairs, temperature).sum() + contrast(image, text, pairs, temperature).sum()
    )
    loss = crossed / (2 * pairs.count)
    if intra_modal_weight and pairs.inter_count:
        inter = pairs.anchor != pairs.positive
        between = replace(
            pairs, anchor=pairs.anchor[inter], positive=pairs.positive[inter], relation=pairs.relation[inter]
        )
        within = (
            contrast(text, text, between, temperature).sum()
            + contrast(image, image, between, temperature).sum()
        )
        loss = loss + intra_modal_weight * within / pairs.inter_count
    return loss


def contrast(
    x: Float[Tensor, "items relations dim"],
    y: Float[Tensor, "items relations dim"],
    pairs: PairBatch,
    temperature: float,
) -> Float[Tensor, "pairs"]:
    """Eq. 2 for each pair: -log of the positive's share among itself and N(i), under the pair's relation."""
    # The vectors may be bf16, whose rounding at a temperature of 0.1 would be felt in the logits.
    x, y = (vectors.to(torch.promote_types(vectors.dtype, torch.float32)) for vectors in (x, y))
    order = pairs.relation.argsort(stable=True)
    groups = order.split(torch.bincount(pairs.relation, minlength=x.shape[1]).tolist())
    similarity = torch.cat(
        [x[pairs.anchor[rows], relation] @ y[:, relation].T for relation, rows in enumerate(groups)]
    )
    anchor, positive = pairs.anchor[order], pairs.positive[order]
    logits = similarity / temperature
    hit = logits.gather(1, positive[:, None])[:, 0]
    candidates = ~pairs.related[anchor]
    candidates = candidates.scatter(1, positive[:, None], True)
    losses = logits.masked_fill(~candidates, -torch.inf).logsumexp(dim=1) - hit
    return torch.empty_like(losses).index_copy(0, order, losses)
