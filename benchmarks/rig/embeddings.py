"""Synthetic vectors for search benchmarks, which resemble the vectors of a trained network.

The vectors form overlapping groups of very unequal size, and each group contains tighter and looser subgroups. Their
spectrum decays: about 40 of 512 components matter. Random vectors without such structure are all about equally far from
one another, so an ANN index could not find the nearest ones.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

DIM = 512
GROUPS = 2_000
WITHIN = 8
"""Number of subgroups within each group."""

VECTORS_PER_CHUNK = 16_384
"""Number of vectors generated at a time. The first vectors do not depend on how many are requested."""


class Embeddings:
    """Unit vectors under one relation: vectors of items, and queries that are near items but equal to none."""

    def __init__(self, seed: int, dim: int = DIM) -> None:
        draw = np.random.default_rng([seed, 0])
        self._seed = seed
        self._deviations = ((2 + np.arange(dim)) ** -0.5).astype(np.float32)
        self._groups = self._drawn(draw, GROUPS)
        self._within = 0.5 * self._drawn(draw, GROUPS * WITHIN)
        self._looseness = draw.uniform(0.2, 0.7, (GROUPS * WITHIN, 1)).astype(np.float32)
        sizes = np.repeat(draw.lognormal(0, 1.5, GROUPS), WITHIN) * draw.lognormal(0, 1, GROUPS * WITHIN)
        self._until = np.cumsum(sizes / sizes.sum())

    def chunks(self, items: int) -> Iterator[Float32[ndarray, "chunk dim"]]:
        """Yield the vectors of the first `items` items in chunks."""
        for start in range(0, items, VECTORS_PER_CHUNK):
            yield self.chunk(start // VECTORS_PER_CHUNK)[: items - start]

    def queries(self, count: int) -> Float32[ndarray, "count dim"]:
        """Return `count` queries, each near one of the first items."""
        draw = np.random.default_rng([self._seed, 1])
        near = self.chunk(0)[draw.permutation(min(VECTORS_PER_CHUNK, 10_000))[:count]]
        return _unit(near * np.linalg.norm(self._deviations) + 0.5 * self._drawn(draw, count))

    def categories(self, items: int) -> Iterator[Int64[ndarray, " chunk"]]:
        """Yield the subgroups of the first `items` items in chunks."""
        for start in range(0, items, VECTORS_PER_CHUNK):
            yield self._subgroups(self._draw(start // VECTORS_PER_CHUNK))[: items - start]

    @property
    def centres(self) -> Float32[ndarray, "subgroups dim"]:
        """Centre of each subgroup, scaled to unit length."""
        return _unit(np.repeat(self._groups, WITHIN, axis=0) + self._within)

    def chunk(self, number: int) -> Float32[ndarray, "chunk dim"]:
        """Generate chunk `number`; the result depends only on the seed and the number."""
        draw = self._draw(number)
        within = self._subgroups(draw)
        beside = draw.integers(0, GROUPS, VECTORS_PER_CHUNK)
        share = draw.uniform(0, 1, (VECTORS_PER_CHUNK, 1)).astype(np.float32)
        centre = self._groups[within // WITHIN] + self._within[within] + share * self._groups[beside]
        return _unit(centre + self._looseness[within] * self._drawn(draw, VECTORS_PER_CHUNK))

    def _draw(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, 2, number])

    def _subgroups(self, draw: np.random.Generator) -> Int64[ndarray, " chunk"]:
        """Draw the subgroups of a chunk, which are the first numbers that are drawn for it."""
        return np.searchsorted(self._until, draw.random(VECTORS_PER_CHUNK)).clip(max=GROUPS * WITHIN - 1)

    def _drawn(self, draw: np.random.Generator, count: int) -> Float32[ndarray, "count dim"]:
        drawn: ndarray = draw.standard_normal((count, len(self._deviations)), dtype=np.float32)
        return drawn * self._deviations


def _unit(vectors: Float32[ndarray, "n dim"]) -> Float32[ndarray, "n dim"]:
    unit: ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
