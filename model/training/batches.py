"""The batches of a training: which pairs, which items, and all that the network needs of them.

A batch is a pure function of the seed and its step, whatever the number of ranks, so a resumed run needs no
generator's state. Threads make batches ahead of their step; the device should never wait for one.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

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
from model.network.inputs import PictureInput, TextInput

from .augmentation import draw_moves
from .distributed import ProcessGroup
from .loss import PairBatch


@dataclass(frozen=True)
class Part:
    """The items of one split, ready for the network, with the edges among them by position."""

    text: TextInput
    pictures: Pictures
    edges: EdgeTable

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True)
class Batch:
    """The inputs of one rank for one step.

    `items` are the positions of all the batch's items, `own` which of them this rank encodes, and `text`,
    `pictures` and `moves` are of these. `relations` are the distinct relations of the batch's pairs; `pairs`
    are those whose anchor is the rank's own, by position among `items` and `relations`.
    """

    items: Int[ndarray, " items"]
    own: slice
    text: TextInput
    pictures: PictureInput
    moves: Float[Tensor, "own 2 3"] | None
    relations: Int[ndarray, " relations"]
    pairs: PairBatch

    def to(self, device: torch.device) -> "Batch":
        """Copy its tensors to `device`."""
        if device.type == "cpu":
            return self
        moves = None if self.moves is None else self.moves.to(device)
        text, pictures, pairs = self.text.to(device), self.pictures.to(device), self.pairs.to(device)
        return Batch(self.items, self.own, text, pictures, moves, self.relations, pairs)


class Batches:
    """The batches of a part: `batch_size` pairs sampled without replacement from all pairs, epoch after epoch.

    The items that these pairs bring in are encoded once, and every further edge among them is a positive that
    costs no further encoding.
    """

    def __init__(
        self, part: Part, objective: Objective, batch_size: int, augment: bool, seed: int, group: ProcessGroup
    ) -> None:
        self._part = part
        self._pairs = training_pairs(part, objective)
        self._related = related_items(part)
        self._size = min(batch_size, len(self._pairs))
        self._augment = augment
        self._seed = seed
        self._group = group
        # An epoch's order is asked for at each of its steps, and by several threads.
        self.epoch_order = lru_cache(maxsize=4)(self._draw_epoch_order)

    def at(self, step: int) -> Batch:
        """Make the batch of this step, counted from 1; an epoch's incomplete last batch is left out."""
        epoch, place = divmod(step - 1, len(self._pairs) // self._size)
        drawn = self._pairs.take(self.epoch_order(epoch)[place * self._size : (place + 1) * self._size])
        items = np.unique(np.concatenate([drawn.a, drawn.b]))
        if len(items) < self._group.size:
            raise InputError(
                f"The batch of step {step} has {len(items)} items for {self._group.size} processes to share. "
                "Raise --batch-size or start fewer."
            )
        own = self._group.share(len(items))
        rows = torch.from_numpy(items[own])
        relations, pairs = pairs_among(self._pairs, items, self._related, own)
        moves = None
        if self._augment:
            generator = torch.Generator().manual_seed(seed_of(self._seed, step))
            moves = draw_moves(len(items), generator)[own]
        return Batch(
            items, own, self._part.text.take(rows), self._part.pictures.take(rows), moves, relations, pairs
        )

    def _draw_epoch_order(self, epoch: int) -> Int[ndarray, " pairs"]:
        return np.random.default_rng([self._seed, epoch]).permutation(len(self._pairs))

    @contextmanager
    def ahead(self, steps: range, workers: int) -> Iterator["Queue"]:
        """Yield the batches of `steps` in order, made by `workers` threads ahead of time."""
        with ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
            queue = Queue(self, steps, pool, 2 * workers, self._group.device)
            try:
                yield queue
            finally:
                queue.cancel()


class Queue:
    """Batches in the making."""

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
        """Take the next batch, on the device."""
        batch = self._made.popleft().result()
        self._order_next()
        return batch.to(self._device)

    def cancel(self) -> None:
        """Give up what has not been begun."""
        for future in self._made:
            future.cancel()

    def _order_next(self) -> None:
        if (step := next(self._steps, None)) is not None:
            self._made.append(self._pool.submit(self._make, step))

    def _make(self, step: int) -> Batch:
        batch = self._batches.at(step)
        if self._device.type == "cuda":
            pictures = PictureInput(batch.pictures.pixels.pin_memory(), batch.pictures.grid.pin_memory())
            return Batch(
                batch.items, batch.own, batch.text, pictures, batch.moves, batch.relations, batch.pairs
            )
        return batch


def seed_of(*numbers: int) -> int:
    """Mix several numbers into one seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def training_pairs(part: Part, objective: Objective) -> EdgeTable:
    """Build P: every edge, and every item with itself under the intra-sample relation, which is relation 0."""
    every = np.arange(len(part))
    intra = EdgeTable(every, every, np.zeros_like(every))
    if objective == "clip":
        return intra
    edges = part.edges
    return EdgeTable(
        np.concatenate([edges.a, intra.a]),
        np.concatenate([edges.b, intra.b]),
        np.concatenate([edges.relation, intra.relation]),
    )


def related_items(part: Part) -> sp.csr_array:
    """Mark the pairs of items that share a relation anywhere in the training graph, or are the same item."""
    count = len(part)
    a = np.concatenate([part.edges.a, part.edges.b, np.arange(count)])
    b = np.concatenate([part.edges.b, part.edges.a, np.arange(count)])
    return sp.csr_array((np.ones(len(a), dtype=np.int32), (a, b)), shape=(count, count))


def pairs_among(
    pairs: EdgeTable, items: Int[ndarray, " items"], related: sp.csr_array, own: slice
) -> tuple[Int[ndarray, " relations"], PairBatch]:
    """Find the pairs among `items` (edges in both orders, self-pairs once) and their distinct relations.

    Of the pairs, those whose anchor is among the `own` items; the loss is a mean over all of them.
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
    )
