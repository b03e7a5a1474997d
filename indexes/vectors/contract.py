"""The contract between an index and the backend that keeps its vectors, and the one way to score and order.

Vectors are unit-length, so the inner product is the cosine, and larger is better everywhere. Items are named
by their catalogue row, relations by their position in the checkpoint. `indexes/vectors/faiss_backend.py` keeps the
vectors in files of this machine, `indexes/vectors/milvus_backend.py` on a Milvus server.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64
from numpy import ndarray
from pydantic import BaseModel, ConfigDict

from indexes.config import IndexKind
from model.similarity import View

ROUNDING = 4e-6
"""Largest difference in a cosine between two backends, or two orders of summing; `cosines` has none."""

LOWEST_COSINE = -1.0
"""No cosine is less."""

Source = Callable[[int, View], Iterable[Float[ndarray, "chunk dim"]]]
"""The vectors of all items under a relation (by position) in a view, some rows at a time."""


class FileReport(BaseModel):
    """Report on the vectors of one relation and view.

    `effort` is the search parameter of the ANN index (efSearch, nprobe); `recall_at_10` was measured with it against a
    scan, with items as queries. Both are None if every search is a scan.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: IndexKind
    items: int
    bytes_per_vector: float
    effort: int | None = None
    recall_at_10: float | None = None


def file_name(relation: int, view: View) -> str:
    """Name the files of a relation by its position, as its id may hold characters that no file name can."""
    return f"{relation:03d}.{view}"


@dataclass(frozen=True)
class Neighbours:
    """Catalogue rows and their cosine with a query, best first; equal scores stand in catalogue order."""

    rows: Int64[ndarray, " k"]
    scores: Float32[ndarray, " k"]

    @classmethod
    def best(cls, rows: Int64[ndarray, " n"], scores: Float32[ndarray, " n"], k: int) -> "Neighbours":
        """Choose the `k` best of some scored rows, in the order of all results."""
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

    @property
    def report(self) -> Mapping[str, FileReport]:
        """Report on the vectors of each relation and view, by `file_name`."""

    def close(self) -> None:
        """Close what is open."""

    def vectors(self, relation: int, view: View, rows: Sequence[int]) -> Float32[ndarray, "rows dim"]:
        """Get the stored vectors of the items at `rows`, in that order."""

    def search(
        self,
        relation: int,
        view: View,
        query: Float32[ndarray, " dim"],
        k: int,
        allowed: Bool[ndarray, " count"] | None = None,
        dropped: frozenset[int] = frozenset(),
    ) -> Neighbours:
        """Find the `k` items nearest to a unit `query`, or all there are, without the rows in `dropped`.

        With `allowed`, only rows for which it is true are found, and exactly. `dropped` is meant to be short.
        """


def cosines(vectors: Float32[ndarray, "n dim"], query: Float32[ndarray, " dim"]) -> Float32[ndarray, " n"]:
    """Calculate the cosines of unit `vectors` with a unit `query`, at most 1, the same in any batch.

    Summed in float64 and then rounded, so that equal vectors score equally however they are kept: ties are
    ties in every backend.
    """
    scores: ndarray = np.einsum("nd,d->n", vectors, query, dtype=np.float64)
    return scores.clip(-1.0, 1.0, out=scores).astype(np.float32)


def widened(find: Callable[[int], Neighbours | None], wanted: int, few: int) -> Neighbours | None:
    """Find all that may be among the `wanted` nearest of `few`, in no order; None if `find` gives up.

    `find` gives as many as it is asked for, best first by scores of its own summing, in which near-equal ones come in
    any order, and any of those around the cut may be missing. So it is asked for more until the cut falls between two
    clearly different scores.
    """
    depth = wanted
    while True:
        depth = min(depth + wanted, few)
        if (found := find(depth)) is None:
            return None
        least = found.scores[wanted - 1] - ROUNDING
        if depth == few or found.scores[-1] < least:
            near = found.scores >= least
            return Neighbours(found.rows[near], found.scores[near])
