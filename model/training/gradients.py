"""Gradients of one batch, whatever it is cut into: micro-batches on a device, ranks across devices.

A contrastive loss needs all vectors of a batch at once, but not all activations. As in GradCache (Gao et al.
2021, arXiv 2101.06983) the vectors are computed first, the loss is taken back to them, and each micro-batch is
then encoded again and given the gradient of its own vectors. The relations are encoded once, with gradient,
for all micro-batches. One micro-batch alone is encoded once.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from model.network.network import Network
from model.network.processor import Preprocessor
from model.network.relation_attention import RelationContext
from model.records import Relation

from .augmentation import move_pictures
from .batches import Batch, seed_of
from .distributed import ProcessGroup
from .loss import rcml_loss


class Gradients:
    """Loss of a batch, computed so that its gradient is left in the network's parameters."""

    def __init__(
        self,
        network: Network,
        preprocessor: Preprocessor,
        relations: tuple[Relation, ...],
        group: ProcessGroup,
        temperature: float,
        intra_modal_weight: float,
        micro_batch: int | None,
        bf16: bool,
        seed: int,
    ) -> None:
        self._network = network
        self.preprocessor = preprocessor
        self._conditioning = [network.conditioning_relation(relation) for relation in relations]
        self._texts = preprocessor.tokenize([relation.description for relation in self._conditioning]).to(
            group.device
        )
        self._group = group
        self._temperature = temperature
        self._intra_modal_weight = intra_modal_weight
        self._micro_batch = micro_batch
        self._bf16 = bf16
        self._seed = seed

    def of(self, batch: Batch, step: int) -> float:
        """Set the parameters' gradients to those of the whole batch and return its loss."""
        # A tower with dropout must drop the same from relations on all ranks, and when a run is resumed.
        torch.manual_seed(seed_of(self._seed, step))
        context = self._context(batch)
        views = (context.text, context.image)
        cut = [replace(view, queries=_cut(view.queries), output=_cut(view.output)) for view in views]
        apart = replace(context, text=cut[0], image=cut[1])
        chunks = list(self._chunks(len(batch.text.ids)))
        once = len(chunks) == 1
        with torch.set_grad_enabled(once):
            encoded = [self._encode(batch, chunk, apart, step) for chunk in chunks]

        text, image = (_cut(torch.cat(view)) for view in zip(*encoded, strict=True))
        count = len(batch.items)
        loss = rcml_loss(
            self._group.gather(text, count),
            self._group.gather(image, count),
            batch.pairs,
            self._temperature,
            self._intra_modal_weight,
        )
        loss.backward()

        for chunk, vectors in zip(chunks, encoded, strict=True):
            again = vectors if once else self._encode(batch, chunk, apart, step)
            torch.autograd.backward(again, [_gradient(text)[chunk], _gradient(image)[chunk]])
        torch.autograd.backward(
            [part for view in views for part in (view.queries, view.output)],
            [_gradient(part) for view in cut for part in (view.queries, view.output)],
        )
        self._group.sum_gradients(self._network.parameters())
        return self._group.total(loss.item())

    def _chunks(self, count: int) -> Iterator[slice]:
        size = self._micro_batch or count
        return (slice(start, start + size) for start in range(0, count, size))

    def _context(self, batch: Batch) -> RelationContext:
        rows = torch.from_numpy(batch.relations)
        texts = self._texts.take(rows.to(self._group.device))
        with self._arithmetic():
            return self._network.context(texts, [self._conditioning[row] for row in batch.relations])

    def _encode(
        self, batch: Batch, chunk: slice, context: RelationContext, step: int
    ) -> tuple[Float[Tensor, "chunk relations dim"], Float[Tensor, "chunk relations dim"]]:
        # A tower with dropout must drop the same when a chunk is encoded again.
        torch.manual_seed(seed_of(self._seed, step, self._group.rank, chunk.start))
        rows = torch.arange(len(batch.text.ids))[chunk]
        pictures = self.preprocessor.normalise(batch.pictures.take(rows))
        if batch.moves is not None:
            pictures = move_pictures(pictures, batch.moves[chunk])
        with self._arithmetic():
            return (
                self._network.text_vectors(batch.text.take(rows), context),
                self._network.image_vectors(pictures, context),
            )

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast(self._group.device.type, torch.bfloat16, enabled=self._bf16)


def _cut(values: Tensor) -> Tensor:
    """Detach the values into a leaf of their own graph."""
    return values.detach().requires_grad_()


def _gradient(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad
