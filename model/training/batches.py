"""Training batches: their pairs, their items, and the network's inputs.

A batch depends only on the seed and the step, not on the number of ranks, so a resumed run needs no saved generator
state. Threads build batches in advance to keep the device from waiting for data.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar, cast

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from model.config import Objective
from model.data.edge_table import EdgeTable
from model.errors import InputError
from model.network.image_cache import Pictures
from model.network.inputs import PictureInput, TextInput, Tokens
from model.network.token_cache import StoredTokens

from .augmentation import draw_kept, draw_moves, parts_of, two_pictures, two_texts
from .distributed import ProcessGroup
from .loss import PairBatch

Inputs = TypeVar("Inputs")
"""A tensor, or a dataclass whose fields include tensors."""

TOKEN_BUCKET = 8
"""Texts are padded to a multiple of this number of tokens, so that the shapes of batches repeat.

`torch.compile` compiles again for a new shape, and matrix products are fastest for multiples of 8 rows.
"""

SELF_PAIRED: frozenset[Objective] = frozenset({"clip", "siglip", "declip"})
"""Objectives whose only positives are the text and the picture of one item."""


@dataclass(frozen=True)
class Part:
    """Items of one split as inputs of the network; `edges` refers to them by position.

    If the towers are frozen, the inputs are the tokens that the towers encoded before the first step.
    """

    text: TextInput | StoredTokens
    pictures: Pictures | StoredTokens
    edges: EdgeTable

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True)
class Batch:
    """Inputs of one rank for one step.

    `items` contains all items of the batch, as positions in the `Part`. This rank encodes the slice `own` of them;
    `text`, `pictures` and `moves` contain only that slice; if the loss compares two views, the second views follow the
    first ones. `relations` contains the distinct relations of the batch.
    `pairs` contains the pairs whose anchor is in that slice, and refers to `items` and `relations` by position.
    """

    items: Int[ndarray, " items"]
    own: slice
    text: TextInput | Tokens
    pictures: PictureInput | Tokens
    moves: Float[Tensor, "own 2 3"] | None
    relations: Int[ndarray, " relations"]
    pairs: PairBatch

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with its tensors on `device`; a copy from pinned memory does not block."""
        return self if device.type == "cpu" else self._with(lambda part: moved(part, device))

    def pinned(self) -> "Batch":
        """Return the batch with its tensors in pinned memory."""
        return self._with(lambda part: with_tensors(part, Tensor.pin_memory))

    def _with(self, change: Callable[[Any], Any]) -> "Batch":
        moves = None if self.moves is None else change(self.moves)
        parts = {name: change(getattr(self, name)) for name in ("text", "pictures", "pairs")}
        return replace(self, moves=moves, **parts)


class Batches:
    """Batches of a `Part`: each epoch draws all pairs of the part in random order, `batch_size` at a time.

    Each item of the drawn pairs is encoded once. Every other edge between these items is also used as a positive pair,
    because it needs no further encoding. `views` is the number of views of each item, 1 or 2.
    """

    def __init__(
        self,
        part: Part,
        objective: Objective,
        batch_size: int,
        augment: bool,
        seed: int,
        group: ProcessGroup,
        views: int = 1,
    ) -> None:
        self._part = part
        self._pairs = training_pairs(part, objective)
        self._related = related_items(part)
        self._size = min(batch_size, len(self._pairs))
        self._augment = augment
        self._seed = seed
        self._group = group
        self._views = views
        # All steps of an epoch use the same random order of the pairs, so the order is cached.
        self.epoch_order = lru_cache(maxsize=4)(self._draw_epoch_order)

    def at(self, step: int) -> Batch:
        """Build the batch of `step`, counted from 1; the incomplete last batch of an epoch is dropped."""
        epoch, place = divmod(step - 1, len(self._pairs) // self._size)
        drawn = self._pairs.take(self.epoch_order(epoch)[place * self._size : (place + 1) * self._size])
        items = np.unique(np.concatenate([drawn.a, drawn.b]))
        if len(items) < self._group.size:
            raise InputError(
                f"The batch of step {step} has only {len(items)} items for {self._group.size} processes. "
                "Raise --batch-size, or start fewer processes."
            )
        own = self._group.share(len(items))
        rows = torch.from_numpy(items[own])
        relations, pairs = pairs_among(self._pairs, items, self._related, own)
        text, pictures, moves = take_texts(self._part.text, rows), self._part.pictures.take(rows), None
        generator = torch.Generator().manual_seed(seed_of(self._seed, step))
        if self._augment:
            moves = torch.cat([draw_moves(len(items), generator)[own] for _ in range(self._views)])
        if self._views == 2:
            stored = self._part.text
            whole = stored.kept if isinstance(stored, StoredTokens) else stored
            # Drawn for all items of the batch, so that a view does not depend on the number of ranks.
            text = two_texts(text, draw_kept(len(items), parts_of(whole), generator)[own])
            pictures = two_pictures(pictures, draw_kept(len(items), parts_of(pictures), generator)[own])
        return Batch(items, own, text, pictures, moves, relations, pairs)

    def _draw_epoch_order(self, epoch: int) -> Int[ndarray, " pairs"]:
        return np.random.default_rng([self._seed, epoch]).permutation(len(self._pairs))

    @contextmanager
    def ahead(self, steps: range, workers: int) -> Iterator["Queue"]:
        """Yield a queue that returns the batches of `steps` in order; `workers` threads build them in advance."""
        with ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
            queue = Queue(self, steps, pool, 2 * workers, self._group.device)
            try:
                yield queue
            finally:
                queue.cancel()


class Queue:
    """Queue of batches that worker threads build in advance."""

    def __init__(
        self, batches: Batches, steps: range, pool: ThreadPoolExecutor, depth: int, device: torch.device
    ) -> None:
        self._batches = batches
        self._steps = iter(steps)
        self._pool = pool
        self._device = device
        self._made: deque[Future[Batch]] = deque()
        for _ in range(depth):
            self._order_next()

    def take(self) -> Batch:
        """Wait for the next batch and return it on the device."""
        batch = self._made.popleft().result()
        self._order_next()
        return batch.to(self._device)

    def cancel(self) -> None:
        """Cancel all batches that no thread has started to build."""
        for future in self._made:
            future.cancel()

    def _order_next(self) -> None:
        if (step := next(self._steps, None)) is not None:
            self._made.append(self._pool.submit(self._make, step))

    def _make(self, step: int) -> Batch:
        batch = self._batches.at(step)
        return batch.pinned() if self._device.type == "cuda" else batch


def with_tensors(part: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """Apply `change` to a tensor, or to every tensor of a dataclass."""
    if isinstance(part, Tensor):
        return cast(Inputs, change(part))
    tensors = {name: change(value) for name, value in vars(part).items() if isinstance(value, Tensor)}
    return cast(Inputs, replace(cast(Any, part), **tensors))


def moved(part: Inputs, device: torch.device) -> Inputs:
    """Return a tensor, or a dataclass with its tensors, on `device`.

    The host does not wait for a copy to CUDA, so it can prepare the next operations while the device computes.
    """
    return with_tensors(part, lambda tensor: tensor.to(device, non_blocking=True))


def take_texts(text: TextInput | StoredTokens | Tokens, rows: Int[Tensor, " taken"]) -> TextInput | Tokens:
    """Return the texts at `rows`, padded to the longest of them and on to a multiple of `TOKEN_BUCKET`.

    No text is padded further than `text` is. The texts of SigLIP keep the full length.

    `text` must be on the CPU: to find the longest text on another device, the host would have to wait for it.
    """
    taken = text.take(rows)
    if not isinstance(text, TextInput) or not isinstance(taken, TextInput):
        return taken  # towers do not encode tokens again, so their shapes need not repeat
    longest = -(-taken.mask.shape[1] // TOKEN_BUCKET) * TOKEN_BUCKET
    # NumPy, because several threads prepare batches, and torch would start an OpenMP pool in each.
    return with_tensors(text, lambda tensor: torch.from_numpy(tensor.numpy()[rows.numpy(), :longest]))


def seed_of(*numbers: int) -> int:
    """Derive one seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def training_pairs(part: Part, objective: Objective) -> EdgeTable:
    """Return the positive pairs P: all edges, and each item paired with itself under the intra-sample relation.

    The intra-sample relation is relation 0. Some objectives have only the self-pairs (`SELF_PAIRED`). For `unicl`, all
    edges get the relation 0, because it ignores their relations.
    """
    every = np.arange(len(part))
    intra = EdgeTable(every, every, np.zeros_like(every))
    if objective in SELF_PAIRED:
        return intra
    edges = part.edges
    relation = np.zeros_like(edges.relation) if objective == "unicl" else edges.relation
    return EdgeTable(
        np.concatenate([edges.a, intra.a]),
        np.concatenate([edges.b, intra.b]),
        np.concatenate([relation, intra.relation]),
    )


def related_items(part: Part) -> sp.csr_array:
    """Return a sparse matrix of items x items that is nonzero on the diagonal and for each pair of related items.

    Two items are related if they have an edge under any relation of the training graph.
    """
    count = len(part)
    a = np.concatenate([part.edges.a, part.edges.b, np.arange(count)])
    b = np.concatenate([part.edges.b, part.edges.a, np.arange(count)])
    return sp.csr_array((np.ones(len(a), dtype=np.int32), (a, b)), shape=(count, count))


def pairs_among(
    pairs: EdgeTable, items: Int[ndarray, " items"], related: sp.csr_array, own: slice
) -> tuple[Int[ndarray, " relations"], PairBatch]:
    """Find the pairs among `items` (edges in both orders, self-pairs once) and their distinct relations.

    Only the pairs whose anchor is in the slice `own` are returned. `count` and `inter_count` include the pairs of all
    ranks, because the loss is a mean over the whole batch.
    """
    position = np.full(related.shape[0], -1)
    position[items] = np.arange(len(items))
    a, b = position[pairs.a], position[pairs.b]
    inside = (a >= 0) & (b >= 0)
    a, b, relation = a[inside], b[inside], pairs.relation[inside]
    relations, relation = np.unique(relation, return_inverse=True)
    inter = a != b
    anchor = np.concatenate([a, b[inter]])
    positive = np.concatenate([b, a[inter]])
    relation = np.concatenate([relation, relation[inter]])
    mine = (anchor >= own.start) & (anchor < own.stop)
    among = related[items][:, items].toarray() > 0
    return relations, PairBatch(
        anchor=torch.from_numpy(anchor[mine]),
        positive=torch.from_numpy(positive[mine]),
        relation=torch.from_numpy(relation[mine]),
        related=torch.from_numpy(among),
        count=len(anchor),
        inter_count=2 * int(inter.sum()),
        sizes=tuple(np.bincount(relation[mine], minlength=len(relations)).tolist()),
    )
