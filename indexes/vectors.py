"""The contract between an index and whatever engine keeps its vectors.

Vectors are unit-length, so the inner product is the cosine, and larger is better everywhere. Items are named
by their catalogue row, relations by their position in the checkpoint. `indexes/faiss_vectors.py` keeps the
vectors in this process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float32, Int64
from numpy import ndarray

from model.records import View


@dataclass(frozen=True)
class Neighbours:
    """Catalogue rows and their cosine with a query, best first; equal scores stand in catalogue order."""

    rows: Int64[ndarray, " k"]
    scores: Float32[ndarray, " k"]


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
        self, relation: int, view: View, query: Float32[ndarray, " dim"], k: int, excluded: int | None = None
    ) -> Neighbours:
        """The `k` items nearest to a unit `query`, or all there are, without row `excluded`."""
