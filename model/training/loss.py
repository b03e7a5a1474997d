"""The objective (eq. 1, 2, 7, 8), grouped by relation.

Anchor i, positive j and the negatives k are all compared under the pair's relation. Encoding every
candidate under every pair's relation would take batch x batch conditioned vectors; grouped by the batch's
distinct relations, as here, it takes items x relations of them, with the same values and gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

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

    anchor: Int[Tensor, " pairs"]
    positive: Int[Tensor, " pairs"]
    relation: Int[Tensor, " pairs"]
    related: Bool[Tensor, "items items"]
    count: int
    inter_count: int

    def to(self, device: torch.device) -> "PairBatch":
        """Copy to `device`."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return PairBatch(
            move(self.anchor),
            move(self.positive),
            move(self.relation),
            move(self.related),
            self.count,
            self.inter_count,
        )


def rcml_loss(
    text: Float[Tensor, "items relations dim"],
    image: Float[Tensor, "items relations dim"],
    pairs: PairBatch,
    temperature: float,
    intra_modal_weight: float,
) -> Float[Tensor, ""]:
    """Eq. 1: mean of both cross-modal terms + lambda x (text-text + image-image).

    Intra-modal terms skip self-pairs: a vector against itself teaches nothing. With self-pairs only and
    lambda 0, this is CLIP's loss (eq. 7, 8).
    """
    groups = _Groups.of(pairs, text.shape[1])
    texts, images = _by_relation(text), _by_relation(image)
    crossed = groups.contrast(texts, images, temperature) + groups.contrast(images, texts, temperature)
    loss = crossed.sum() / (2 * pairs.count)
    if intra_modal_weight and pairs.inter_count:
        within = groups.contrast(texts, texts, temperature) + groups.contrast(images, images, temperature)
        loss = loss + intra_modal_weight * (within * groups.inter).sum() / pairs.inter_count
    return loss


def contrast(
    x: Float[Tensor, "items relations dim"],
    y: Float[Tensor, "items relations dim"],
    pairs: PairBatch,
    temperature: float,
) -> Float[Tensor, " pairs"]:
    """Eq. 2 for each pair: -log of the positive's share among itself and N(i), under the pair's relation."""
    groups = _Groups.of(pairs, x.shape[1])
    losses = groups.contrast(_by_relation(x), _by_relation(y), temperature)
    return torch.empty_like(losses).index_copy(0, groups.order, losses)


@dataclass(frozen=True)
class _Groups:
    """The pairs in the order of their relations: what all terms of eq. 1 need of them, worked out once.

    `anchors` holds those of each relation; `excluded` is what is neither the positive nor in N(i).
    """

    order: Int[Tensor, " pairs"]
    anchors: Sequence[Int[Tensor, " group"]]
    positive: Int[Tensor, " pairs"]
    inter: Bool[Tensor, " pairs"]
    excluded: Bool[Tensor, "pairs items"]

    @classmethod
    def of(cls, pairs: PairBatch, relations: int) -> Self:
        """Sort `pairs` by relation."""
        order = pairs.relation.argsort(stable=True)
        anchor, positive = pairs.anchor[order], pairs.positive[order]
        sizes: list[int] = torch.bincount(pairs.relation, minlength=relations).tolist()
        excluded = pairs.related[anchor].scatter(1, positive[:, None], False)
        return cls(order, anchor.split(sizes), positive, anchor != positive, excluded)

    def contrast(
        self,
        x: Sequence[Float[Tensor, "items dim"]],
        y: Sequence[Float[Tensor, "items dim"]],
        temperature: float,
    ) -> Float[Tensor, " pairs"]:
        """Eq. 2, with one product for each relation; `x` and `y` hold the vectors under each."""
        similarity = [
            queries.index_select(0, anchors) @ candidates.T
            for queries, candidates, anchors in zip(x, y, self.anchors, strict=True)
        ]
        logits = torch.cat(similarity) / temperature
        hit = logits.gather(1, self.positive[:, None])[:, 0]
        return logits.masked_fill(self.excluded, -torch.inf).logsumexp(dim=1) - hit


def _by_relation(vectors: Float[Tensor, "items relations dim"]) -> Sequence[Float[Tensor, "items dim"]]:
    # The vectors may be bf16, whose rounding at a temperature of 0.1 would be felt in the logits.
    # Unbound, their gradients are stacked once; each slice would fill one of the whole size, and add it.
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32)).unbind(dim=1)
