"""The contract between an index and whatever engine keeps its vectors, and the one way to score and order.

Vectors are unit-length, so the inner product is the cosine, and larger is better everywhere. Items are named
by their catalogue row, relations by their position in the checkpoint. `indexes/faiss_vectors.py` keeps the
vectors in files of this machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from model.records import View

ROUNDING = 4e-6
"""Two engines, or two orders of summing, may differ by so much in one cosine; `cosines` does not."""


@dataclass(frozen=True)
class Neighbours:
    """Catalogue rows and their cosine with a query, best first; equal scores stand in catalogue order."""

    rows: Int64[ndarray, " k"]
    scores: Float32[ndarray, " k"]

    @classmethod
    def best(cls, rows: Int64[ndarray, " n"], scores: Float32[ndarray, " n"], k: int) -> "Neighbours":
        """The `k` first of some scored rows in the one order there is."""
        order = np.lexsort((rows, -scores))[:k]
        return cls(rows[order], scores[order])


class VectorIndex(Protocol):
    """The vectors of all items, under each relation and in each view."""

    @property
    def count(self) -> int:
        """Number of items, the same under every relation and view."""

    @property
    def dim(self) -> int:
        """Length of every vector."""

    def vectors(self, relation: int, view: View, rows: Sequence[int]) -> Float32[ndarray, "rows dim"]:
        """The stored vectors of the items at `rows`, in that order."""

    def search(
        self,
        relation: int,
        view: View,
        query: Float32[ndarray, " dim"],
        k: int,
        allowed: Bool[ndarray, " count"] | None = None,
        dropped: frozenset[int] = frozenset(),
    ) -> Neighbours:
        """The `k` items nearest to a unit `query`, or all there are, without the rows in `dropped`.

        With `allowed`, of the rows where it is true only, and exactly. `dropped` is meant to be short.
        """


def cosines(vectors: Float32[ndarray, "n dim"], query: Float32[ndarray, " dim"]) -> Float32[ndarray, " n"]:
    """Cosines of unit `vectors` with a unit `query`, at most 1, the same wherever and in whatever company.

    Summed in float64 and then rounded, so that equal vectors score equally however they are kept: ties are
    ties in every engine.
    """
    scores: ndarray = np.einsum("nd,d->n", vectors, query, dtype=np.float64)
    return np.asarray(np.clip(scores, -1.0, 1.0), dtype=np.float32)
