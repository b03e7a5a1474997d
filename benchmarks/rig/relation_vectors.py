"""Synthetic vectors of items under several relations and in three views, made as the network makes them.

An item has a few tokens for its text and for its picture. Each is the sum of a vector of the item and of an aspect of
it; one aspect is common to text and picture. A relation attends to the tokens: its vector of an item is their mean,
weighted by the softmax of their products with the query of the relation (eq. 4-6 of the paper, without projections). So
the vectors of two relations or views are related, but none can be computed from another.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float16, Float32
from numpy import ndarray

from model.embeddings.encoding import EQUAL_SHARE, average, unit_rows
from model.similarity import View
from model.worker_pools import ahead, available_cores

from .embeddings import VECTORS_PER_CHUNK, Embeddings

TOKENS = 4
"""Number of tokens in each modality. The last of the text is the first of the picture."""

ASPECT = 0.6
"""Length of an aspect of an item, as a share of the length of its own vector."""

LOGIT_SD = 2.0
"""Standard deviation of the logits of the tokens of an item, between relations from scratch and with frozen towers."""

SCALED_ITEMS = 1_000
"""Number of items that the scale of the logits is computed from."""


class RelationVectors:
    """Vectors of `items` items under any number of relations; keeps 14 bytes per item and component in memory."""

    def __init__(self, items: int, dim: int) -> None:
        self.items, self._dim = items, dim
        self._tokens: list[Float16[ndarray, "items dim"]] = [
            np.empty((items, dim), np.float16) for _ in range(2 * TOKENS - 1)
        ]

        def fill(place: tuple[int, int]) -> None:
            token, start = place
            some = self._tokens[token][start : start + VECTORS_PER_CHUNK]
            item, aspect = (
                one.chunk(start // VECTORS_PER_CHUNK)[: len(some)] for one in (items_only, aspects[token])
            )
            some[:] = item + np.float32(ASPECT) * aspect

        items_only, *aspects = (Embeddings(seed, dim) for seed in range(2 * TOKENS))
        with ThreadPoolExecutor(available_cores()) as pool:
            list(
                pool.map(fill, ((token, start) for token in range(len(aspects)) for start in self._starts()))
            )

    def chunks(self, relation: int, view: View) -> Iterator[Float32[ndarray, "chunk dim"]]:
        """Yield the unit vectors of all items under a relation, in chunks that all cores compute."""

        def chunk(start: int) -> Float32[ndarray, "chunk dim"]:
            return self.vectors(relation, view, slice(start, start + VECTORS_PER_CHUNK))

        with ThreadPoolExecutor(available_cores()) as pool:
            for _, vectors in ahead(pool, chunk, self._starts(), available_cores()):
                yield vectors

    def vectors(self, relation: int, view: View, rows: slice) -> Float32[ndarray, "rows dim"]:
        """Return the unit vectors of some items under a relation."""
        match view:
            case View.TEXT:
                return self._pooled(relation, self._tokens[:TOKENS], rows)
            case View.IMAGE:
                return self._pooled(relation, self._tokens[TOKENS - 1 :], rows)
            case View.AVERAGE:
                text, image = (self.vectors(relation, one, rows) for one in (View.TEXT, View.IMAGE))
                return average(text, image, EQUAL_SHARE)

    def _pooled(
        self, relation: int, tokens: list[Float16[ndarray, "items dim"]], rows: slice
    ) -> Float32[ndarray, "rows dim"]:
        query = self._query(relation)
        states = [token[rows].astype(np.float32) for token in tokens]
        logits = np.stack([some @ query for some in states])
        weights = np.exp(logits - logits.max(axis=0))
        return unit_rows(sum(one[:, None] * some for one, some in zip(weights, states, strict=True)), 1e-12)

    def _query(self, relation: int) -> Float32[ndarray, " dim"]:
        query = np.random.default_rng([3, relation]).standard_normal(self._dim).astype(np.float32)
        logits = np.stack([token[:SCALED_ITEMS].astype(np.float32) @ query for token in self._tokens])
        return query * np.float32(LOGIT_SD / logits.std(axis=0).mean())

    def _starts(self) -> range:
        return range(0, self.items, VECTORS_PER_CHUNK)
