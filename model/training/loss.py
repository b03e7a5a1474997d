"""Contrastive objective (eq. 1, 2, 7, 8), with the pairs grouped by relation.

The loss compares anchor i with positive j and with the negatives k, all under the relation of the pair (i, j). Encoding
every item under the relation of every pair would need items x pairs conditioned vectors. Grouping the pairs by the
distinct relations of the batch needs only items x relations vectors, and gives the same values and gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class PairBatch:
    """Positive pairs P of a batch; items and relations are numbered within the batch.

    `related[i, k]` is True if items i and k have an edge under any relation of the training graph, or if i = k. The
    negatives N(i) are the items k for which it is False. Undirected edges appear in both orders.

    `count` is the number of pairs in the whole batch, and the loss is a mean over them. `inter_count` is the number of
    these pairs that connect two different items. Under `torchrun`, each rank has only some of the pairs, but both
    counts are those of the whole batch. The losses of the ranks then sum to the loss of the batch.

    `sizes` is the number of pairs of each relation. The host needs it to divide the pairs; without it, the host has to
    wait for the device.
    """

    anchor: Int[Tensor, " pairs"]
    positive: Int[Tensor, " pairs"]
    relation: Int[Tensor, " pairs"]
    related: Bool[Tensor, "items items"]
    count: int
    inter_count: int
    sizes: tuple[int, ...] | None = None

    def to(self, device: torch.device) -> "PairBatch":
        """Return the pairs with their tensors on `device`, and with `sizes`."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return PairBatch(
            move(self.anchor),
            move(self.positive),
            move(self.relation),
            move(self.related),
            self.count,
            self.inter_count,
            tuple(self.group_sizes()),
        )

    def group_sizes(self, relations: int = 0) -> list[int]:
        """Return the number of pairs of each relation, of at least `relations` relations."""
        if self.sizes is None:
            counts: list[int] = torch.bincount(self.relation, minlength=relations).tolist()
            return counts
        return [*self.sizes, *[0] * (relations - len(self.sizes))]


def rcml_loss(
    text: Float[Tensor, "items relations dim"],
    image: Float[Tensor, "items relations dim"],
    pairs: PairBatch,
    temperature: float,
    intra_modal_weight: float,
) -> Float[Tensor, ""]:
    """Compute eq. 1: the mean of both cross-modal terms + lambda x (text-text + image-image).

    The intra-modal terms skip self-pairs, because the similarity of a vector to itself is always 1. With only
    self-pairs and lambda = 0, this is CLIP's loss (eq. 7, 8).
    """
    groups = _Groups.of(pairs, text.shape[1])
    if not intra_modal_weight or not pairs.inter_count:
        crossed = contrast(text, image, pairs, temperature) + contrast(image, text, pairs, temperature)
        return crossed.sum() / (2 * pairs.count)
    both = torch.stack([text, image])
    losses = groups.contrast(both, both, temperature)
    crossed, within = losses[0, :, 1] + losses[1, :, 0], losses[0, :, 0] + losses[1, :, 1]
    return (
        crossed.sum() / (2 * pairs.count)
        + intra_modal_weight * (within * groups.inter).sum() / pairs.inter_count
    )


def contrast(
    x: Float[Tensor, "items relations dim"],
    y: Float[Tensor, "items relations dim"],
    pairs: PairBatch,
    temperature: float,
) -> Float[Tensor, " pairs"]:
    """Compute eq. 2 for each pair, under its relation; the denominator contains the positive and N(i)."""
    groups = _Groups.of(pairs, x.shape[1])
    losses = groups.contrast(x[None], y[None], temperature)[0, :, 0]
    return torch.empty_like(losses).index_copy(0, groups.order, losses)


@dataclass(frozen=True)
class _Groups:
    """Pairs sorted by relation, prepared once for all terms of eq. 1.

    `anchors` has one tensor per relation, with the anchors of its pairs. `excluded` is True for each item that is
    neither the positive of the pair nor in N(i).
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
        sizes = pairs.group_sizes(relations)
        excluded = pairs.related[anchor].scatter(1, positive[:, None], False)
        return cls(order, anchor.split(sizes), positive, anchor != positive, excluded)

    def contrast(
        self,
        x: Float[Tensor, "x_views items relations dim"],
        y: Float[Tensor, "y_views items relations dim"],
        temperature: float,
    ) -> Float[Tensor, "x_views pairs y_views"]:
        """Compute eq. 2 between all views (text, image) of anchors and candidates: one matrix product per relation."""
        views, items, _, dim = y.shape
        similarity = [
            (queries.index_select(1, anchors).reshape(-1, dim) @ candidates.reshape(-1, dim).T).view(
                len(x), -1, views, items
            )
            for queries, candidates, anchors in zip(
                _by_relation(x), _by_relation(y), self.anchors, strict=True
            )
        ]
        logits = torch.cat(similarity, dim=1) / temperature
        positive = self.positive[:, None, None].expand(len(x), -1, views, 1)
        hit = logits.gather(-1, positive)[..., 0]
        return logits.masked_fill(self.excluded[:, None], -torch.inf).logsumexp(dim=-1) - hit


def _by_relation(
    vectors: Float[Tensor, "views items relations dim"],
) -> Sequence[Float[Tensor, "views items dim"]]:
    # Convert bf16 vectors to float32: at a temperature of 0.1, bf16 rounding errors would distort the logits.
    # The backward pass of `unbind` stacks the gradients of the slices once. Indexing would instead allocate a gradient
    # of the full size for every slice and add these gradients up.
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32)).unbind(dim=2)
