"""Gradients of a whole batch, even if it is split into micro-batches or across ranks.

A contrastive loss needs all vectors of a batch at once, but not all activations. The implementation follows GradCache
(Gao et al. 2021, arXiv 2101.06983). First, all vectors are computed without storing activations, and the loss is
backpropagated as far as the vectors. Each micro-batch is then encoded again, this time with activations, and the
gradient of its vectors is backpropagated through the network. The relations are encoded only once, with activations,
for all micro-batches. A batch that fits into one micro-batch is also encoded only once.

The host never waits for the device here, so that it can prepare the next step while the device computes.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.network.inputs import PictureInput, TextInput, Tokens
from model.network.network import Network
from model.network.processor import Preprocessor
from model.network.relation_attention import RelationContext
from model.records import Relation
from model.training.augmentation import move_pictures
from model.training.batches import Batch, moved, seed_of, take_texts, with_tensors
from model.training.distributed import ProcessGroup
from model.training.objectives.batch_loss import BatchLoss, BatchVectors

from .gradient_buckets import GradientBuckets


class Gradients:
    """Computation of the loss of a batch and of its gradient with respect to the network's parameters."""

    def __init__(
        self,
        network: Network,
        preprocessor: Preprocessor,
        relations: tuple[Relation, ...],
        group: ProcessGroup,
        loss: BatchLoss,
        micro_batch: int | None,
        bf16: bool,
        seed: int,
        frozen_towers: bool = False,
    ) -> None:
        self._network = network
        self.preprocessor = preprocessor
        self._conditioning = [network.conditioning_relation(relation) for relation in relations]
        texts = preprocessor.tokenize([relation.description for relation in self._conditioning])
        self._texts: TextInput | Tokens = texts
        if frozen_towers:
            with torch.no_grad():
                tokens = network.eval().text_tokens(moved(texts, group.device))
            self._texts = tokens.to(torch.device("cpu"))
        if network.config.conditioning != "paper":  # then every step needs all of them
            self._texts = moved(self._texts, group.device)
        self._group = group
        self._loss = loss
        self._micro_batch = micro_batch
        self._bf16 = bf16
        self._seed = seed
        self.repeatable = True
        """Whether the last call of `of` can be repeated; false if the ranks have begun to exchange data in it."""
        # The relations need the text tower and the attention, but not the image tower.
        image = list(network.backbone.model.vision_model.parameters())
        others = {*network.parameters(), *loss.parameters()} - set(image)
        # The loss comes first, and so its bucket last: no backward pass of the network reaches its weights.
        ordered = dict.fromkeys((*loss.parameters(), *network.parameters()))
        self._buckets = GradientBuckets(group, [image, [weight for weight in ordered if weight in others]])

    def of(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        """Store the gradient of the whole batch in `grad` of all parameters (network, loss), and return the loss.

        The loss stays on the device: reading it makes the host wait for this step. If the call fails, the loss keeps
        its buffers (DeCLIP's queue), and `repeatable` tells whether the call can be repeated.
        """
        self.repeatable = True
        with _kept_if_failed(self._loss):
            return self._of(batch, step)

    def _of(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        # The dropout applied to the relations must be the same on all ranks and after a resume.
        torch.manual_seed(seed_of(self._seed, step))
        # One region of autocast around all forward passes casts the weights of a tower once, not once per pass.
        with self._arithmetic():
            context = self._context(batch)
            views = (context.text, context.image)
            cut = [[_cut(part) for part in view.differentiable()] for view in views]
            apart = replace(
                context, text=context.text.with_tensors(cut[0]), image=context.image.with_tensors(cut[1])
            )
            chunks = list(self._chunks(len(batch.text)))
            once = len(chunks) == 1
            with torch.set_grad_enabled(once):
                encoded = [self._encode(batch, chunk, apart, step) for chunk in chunks]
            if not once:  # weights that were cast without gradient must not be used with gradient
                torch.clear_autocast_cache()

            text, image = (_cut(torch.cat(view)) for view in zip(*encoded, strict=True))
            loss = self._loss_of(batch, text, image)

            for chunk, vectors in zip(chunks, encoded, strict=True):
                again = vectors if once else self._encode(batch, chunk, apart, step)
                last = chunk is chunks[-1]
                with self._arithmetic(enabled=False), self._buckets.final(0) if last else nullcontext():
                    torch.autograd.backward(again, [_gradient(text)[chunk], _gradient(image)[chunk]])
        parts = [part for view in views for part in view.differentiable()]
        gradients = [_gradient(part) for parts in cut for part in parts]
        # The projection of a tower that ends in a head (SigLIP) is a constant.
        learnt = [place for place, part in enumerate(parts) if part.requires_grad]
        with self._buckets.final(1):
            torch.autograd.backward(
                [parts[place] for place in learnt], [gradients[place] for place in learnt]
            )
        self._buckets.receive()
        return self._group.summed(loss)

    def _loss_of(
        self,
        batch: Batch,
        text: Float[Tensor, "rows relations dim"],
        image: Float[Tensor, "rows relations dim"],
    ) -> Float[Tensor, ""]:
        """Compute the loss of the whole batch in full precision, and store the gradients of `text` and `image`."""
        self.repeatable = self._group.size == 1
        items = moved(torch.from_numpy(batch.items), self._group.device)
        with self._arithmetic(enabled=False):
            gathered = BatchVectors(
                self._gathered(text, len(items)), self._gathered(image, len(items)), items
            )
            loss: Tensor = self._loss(gathered, batch.pairs)
            loss.backward()
        return loss.detach()

    def _gathered(
        self, own: Float[Tensor, "rows relations dim"], count: int
    ) -> Float[Tensor, "count views relations dim"]:
        """Gather the vectors of all ranks; the rows of `own` are the first views of its items, then the second."""
        return self._group.gather(torch.stack(own.chunk(self._loss.views), dim=1), count)

    def _chunks(self, count: int) -> Iterator[slice]:
        size = self._micro_batch or count
        return (slice(start, start + size) for start in range(0, count, size))

    def _context(self, batch: Batch) -> RelationContext:
        rows = torch.from_numpy(batch.relations)
        if self._network.config.conditioning != "paper":  # the centre depends on all relations
            context = self._network.context(self._texts, self._conditioning)
            return context.take(moved(rows, self._group.device))
        texts = moved(take_texts(self._texts, rows), self._group.device)
        return self._network.context(texts, [self._conditioning[row] for row in batch.relations])

    def _encode(
        self, batch: Batch, chunk: slice, context: RelationContext, step: int
    ) -> tuple[Float[Tensor, "chunk relations dim"], Float[Tensor, "chunk relations dim"]]:
        # Dropout must be the same when the micro-batch is encoded a second time.
        torch.manual_seed(seed_of(self._seed, step, self._group.rank, chunk.start))
        text: TextInput | Tokens = with_tensors(batch.text, lambda rows: rows[chunk])
        pictures: PictureInput | Tokens = with_tensors(batch.pictures, lambda rows: rows[chunk])
        if isinstance(pictures, PictureInput):
            with self._arithmetic(enabled=False):
                pictures = self.preprocessor.normalise(pictures)
                if batch.moves is not None:
                    pictures = move_pictures(pictures, batch.moves[chunk])
        return (
            self._network.text_vectors(text, context),
            self._network.image_vectors(pictures, context),
        )

    def _arithmetic(self, enabled: bool = True) -> torch.autocast:
        return torch.autocast(self._group.device.type, torch.bfloat16, enabled=self._bf16 and enabled)


@contextmanager
def _kept_if_failed(loss: nn.Module) -> Iterator[None]:
    """Give `loss` its present buffers back if the enclosed block fails."""
    held = [(module, dict(module.named_buffers(recurse=False))) for module in loss.modules()]
    try:
        yield
    except BaseException:
        for module, buffers in held:
            for name, buffer in buffers.items():
                setattr(module, name, buffer)
        raise


def _cut(values: Tensor) -> Tensor:
    """Detach `values` into a leaf tensor that collects its own gradient."""
    return values.detach().requires_grad_()


def _gradient(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad
