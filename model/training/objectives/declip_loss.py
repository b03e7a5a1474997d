"""Loss of DeCLIP (Li et al. 2021, arXiv 2110.05208, section 3): CLIP with supervision from the data themselves."""

from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from model.training.loss import PairBatch, contrast

from .batch_loss import BatchLoss, BatchVectors

TERM_WEIGHT = 0.2
"""Weight of the self-supervision, of the further views and of the nearest neighbours (alpha, beta, gamma)."""

QUEUE_SIZE = 65_536
"""Maximum number of text vectors in the queue."""


class DeclipLoss(BatchLoss):
    """Loss on two views of each item, (1 - 3 w) CLIP + w (self-supervision + further views + neighbours), w = 0.2.

    - CLIP: the text with the picture, both in the first view.
    - Self-supervision: the two views of a picture, and the two views of a text. The paper has SimSiam for pictures and
      masked language modelling for texts. Here both are InfoNCE, which needs no weights beside the towers.
    - Further views: the mean over the other three combinations of a view of the text and a view of the picture.
    - Neighbours: each view of a picture with the nearest neighbour of each view of its text in a queue of text vectors.

    The temperature is fixed, and related items are not negatives; both as for the CLIP baseline.
    """

    views = 2

    def __init__(self, temperature: float, queue: "TextQueue") -> None:
        super().__init__()
        self._temperature = temperature
        self.queue = queue

    def forward(self, vectors: BatchVectors, pairs: PairBatch) -> Float[Tensor, ""]:
        """Compute the loss, and put the texts of the batch into the queue."""
        texts, images = vectors.text.unbind(dim=1), vectors.image.unbind(dim=1)
        clip, *further = [self._both_ways(text, image, pairs) for text, image in product(texts, images)]
        within = self._both_ways(texts[0], texts[1], pairs) + self._both_ways(images[0], images[1], pairs)
        loss = (1 - 3 * TERM_WEIGHT) * clip + TERM_WEIGHT * (within + sum(further) / len(further))
        neighbours = [self.queue.nearest(text[:, 0].detach(), vectors.items) for text in texts]
        found = [
            self._mean(image, neighbour[:, None], pairs)
            for image, neighbour in product(images, neighbours)
            if neighbour is not None
        ]
        self.queue.push(texts[0][:, 0].detach(), vectors.items)
        return loss + TERM_WEIGHT * sum(found) / len(found) if found else loss

    def _both_ways(
        self, x: Float[Tensor, "items 1 dim"], y: Float[Tensor, "items 1 dim"], pairs: PairBatch
    ) -> Float[Tensor, ""]:
        return (self._mean(x, y, pairs) + self._mean(y, x, pairs)) / 2

    def _mean(
        self, x: Float[Tensor, "items 1 dim"], y: Float[Tensor, "items 1 dim"], pairs: PairBatch
    ) -> Float[Tensor, ""]:
        return contrast(x, y, pairs, self._temperature).sum() / pairs.count


class TextQueue(nn.Module):
    """Queue of text vectors of past batches, first in, first out; it holds only the newest vector of an item.

    The paper trains on so many items that the queue never holds an earlier vector of the item itself. In a shop it
    would, and this vector would be the nearest. The item itself is therefore passed over.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.vectors: Tensor
        self.items: Tensor
        self.register_buffer("vectors", torch.zeros(size, dim))
        self.register_buffer("items", torch.full((size,), -1))

    def nearest(
        self, text: Float[Tensor, "batch dim"], items: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch dim"] | None:
        """Return for each text the nearest vector of another item; None if the queue has no other item for a text."""
        filled = self.items >= 0
        held, owner = self.vectors[filled].to(text.dtype), self.items[filled]
        own = owner == items[:, None]
        if bool(own.all(dim=1).any()):
            return None
        return held[(text @ held.T).masked_fill(own, -torch.inf).argmax(dim=1)]

    def push(self, text: Float[Tensor, "batch dim"], items: Int[Tensor, " batch"]) -> None:
        """Put the vectors of `items` in front; the oldest fall out."""
        others, size = ~torch.isin(self.items, items), len(self.items)
        self.vectors = torch.cat([text.to(self.vectors.dtype), self.vectors[others]])[:size]
        self.items = torch.cat([items, self.items[others]])[:size]
