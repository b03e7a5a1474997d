"""Contract between an index and its vector backend, with the shared rules for scoring and ordering results.

Vectors have unit length, so the inner product is the cosine, and a larger score is always better. Items are
identified by their catalogue row, relations by their position in the index. `indexes/vectors/faiss_backend.py`
stores the vectors in local files, `indexes/vectors/milvus/milvus_backend.py` on a Milvus server.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64
from numpy import ndarray
from pydantic import BaseModel, ConfigDict

from indexes.config import IndexKind
from model.similarity import Similarity, View

ROUNDING = 4e-6
"""Largest difference between two computations of a cosine, by different backends or in different summation orders.

`cosines` is an exception: it always returns the same score for the same vectors.
"""

MAX_SCANNED_ITEMS = 10_000
"""Number of items up to which every search is a scan, which is exact and takes a quarter of a millisecond in files."""

RECALL_QUERIES = 200
"""Number of queries used to measure recall."""

LOWEST_COSINE = -1.0
"""Lower bound of every cosine."""

Source = Callable[[int, View], Iterable[Float[ndarray, "chunk dim"]]]
"""Function that yields the vectors of all items for a relation (by position) and a view, in chunks of rows."""


class FilterRecall(BaseModel):
    """Recall of searches with a filter that allows a `share` of the items.

    The allowed items were drawn at random, or (`clustered`) are those nearest to one item, so that they are near some
    queries and far from most. `scanned` is the share of the searches that scanned all allowed items.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float
    clustered: bool
    recall_at_10: float
    scanned: float


class FileReport(BaseModel):
    """Report on the vectors of one relation and view.

    `effort` is the search parameter of the ANN index (efSearch, nprobe). `recall_at_10` was measured with this
    parameter against a scan, with items as queries. Both are None if every search is a scan. `filters` are measurements
    of searches with a filter, and `least_filter_share` is the least share of allowed items for which such a search uses
    the ANN index (None: it never does), with the search parameter `filter_effort`. `code_margin` is the amount
    by which one-bit codes may underestimate a cosine in a search among many allowed items (None: there are no codes).
    `code_recall_at_10` is the least recall that was measured with this margin.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: IndexKind
    items: int
    bytes_per_vector: float
    effort: int | None = None
    recall_at_10: float | None = None
    filters: tuple[FilterRecall, ...] = ()
    least_filter_share: float | None = None
    filter_effort: int | None = None
    code_margin: float | None = None
    code_recall_at_10: float | None = None


def file_name(relation: int, view: View) -> str:
    """Return the name, without its suffix, of the files of a relation and view.

    The name uses the position of the relation, because an ID may contain characters that a file name cannot.
    """
    return f"{relation:03d}.{view}"


FilterMethod = Literal["scan", "codes", "ann", "estimates", "server"]
"""Way in which a search with a filter finds the nearest allowed items.

`filter_plan.py` describes `scan`, `codes` and `ann`. A search under a free-text relation compares `estimates`, and a
Milvus `server` applies a filter itself.
"""


@dataclass(frozen=True)
class Filtered:
    """How a search, or several with the same filter, found the nearest of the `allowed` items."""

    allowed: int
    methods: tuple[FilterMethod, ...]

    @classmethod
    def joined(cls, parts: Iterable["Filtered | None"]) -> "Filtered | None":
        """Return how the searches of a request used its filter; None if there was none. The first one counts items."""
        used = [one for one in parts if one is not None]
        methods = dict.fromkeys(method for one in used for method in one.methods)
        return cls(used[0].allowed, tuple(methods)) if used else None


@dataclass(frozen=True)
class Neighbours:
    """Catalogue rows and their cosines with a query, best first; equal scores are in catalogue order.

    A search among allowed items sets `filtered`.
    """

    rows: Int64[ndarray, " k"]
    scores: Float32[ndarray, " k"]
    filtered: Filtered | None = None

    @classmethod
    def best(
        cls,
        rows: Int64[ndarray, " n"],
        scores: Float32[ndarray, " n"],
        k: int,
        filtered: Filtered | None = None,
    ) -> "Neighbours":
        """Return the `k` best of the scored `rows`, in descending order of score, then in catalogue order."""
        order = np.lexsort((rows, -scores))[:k]
        return cls(rows[order], scores[order], filtered)


@dataclass(frozen=True)
class RoughNeighbours:
    """Rows for each of several queries, and scores that differ from the cosines by at most `error`; best first."""

    rows: Int64[ndarray, "queries k"]
    scores: Float32[ndarray, "queries k"]
    error: float


class VectorIndex(Protocol):
    """Vectors of all items, under each relation and in each view."""

    @property
    def count(self) -> int:
        """Number of items, the same under every relation and view."""

    @property
    def dim(self) -> int:
        """Number of components of every vector."""

    @property
    def report(self) -> Mapping[str, FileReport]:
        """Reports on the vectors of each relation and view, keyed by `file_name`."""

    @property
    def device(self) -> str:
        """Devices that search the vectors, as a sentence about them."""

    def check(self) -> None:
        """Check that the vectors can be searched now.

        Raises:
            UnreachableError: the server that stores the vectors does not answer.
        """

    def copy_to_gpus(self) -> None:
        """Copy the vectors to the GPUs, if there are any and as far as they fit."""

    def close(self) -> None:
        """Close open connections and release open files."""

    def vectors(self, relation: int, view: View, rows: Sequence[int]) -> Float32[ndarray, "rows dim"]:
        """Return the stored vectors of the items at `rows`, in the given order."""

    def search(
        self,
        relation: int,
        view: View,
        query: Float32[ndarray, " dim"],
        k: int,
        allowed: Bool[ndarray, " count"] | None = None,
        dropped: frozenset[int] = frozenset(),
    ) -> Neighbours:
        """Find the `k` items nearest to a unit `query`, or all items if there are fewer.

        Rows in `dropped` are left out; there should be only a few. If `allowed` is given, the search returns only rows
        for which `allowed` is true. It is then exact, unless an ANN index or codes answer it (`filter_plan.py`). The
        result tells which way was taken.
        """

    def scan(
        self, relation: int, view: View, queries: Float32[ndarray, "queries dim"], k: int
    ) -> RoughNeighbours | None:
        """Find the `k` nearest of all items for each of many unit `queries`; `k` must be at most the number of items.

        The result is None if the backend is no faster at this than a product of matrices.
        """


def query_views(view: View) -> list[View]:
    """Return the views of query items that a similarity compares with `view`."""
    return sorted({query for query, target in (one.views for one in Similarity) if target == view})


def cosines(vectors: Float32[ndarray, "n dim"], query: Float32[ndarray, " dim"]) -> Float32[ndarray, " n"]:
    """Return the cosines of unit `vectors` with a unit `query`, at most 1 and independent of the batch.

    The sums are computed in float64 and then rounded. Equal vectors therefore get equal scores in every backend, so
    all backends agree on ties.
    """
    scores: ndarray = np.einsum("nd,d->n", vectors, query, dtype=np.float64)
    return scores.clip(-1.0, 1.0, out=scores).astype(np.float32)


def widened(
    find: Callable[[int], Neighbours | None], wanted: int, few: int, rounding: float = ROUNDING
) -> Neighbours | None:
    """Find every row that may be among the `wanted` best rows, in no particular order.

    `find(depth)` returns at least the `depth` best of the `few` rows that the search considers, best first. It computes
    scores with its own summation order, so rows with nearly equal scores may come in any order, and rows near the
    cutoff may be missing. `depth` is therefore increased until the cutoff falls between two scores that differ by more
    than `rounding`. Scores above 1 count as 1, because `cosines` makes them equal. If `find` returns None, so does this
    function.
    """
    depth = wanted
    while True:
        depth = min(depth + wanted, few)
        if (found := find(depth)) is None:
            return None
        depth = len(found.rows)
        least = min(found.scores[wanted - 1], np.float32(1)) - rounding
        if depth == few or found.scores[-1] < least:
            near = found.scores >= least
            return Neighbours(found.rows[near], found.scores[near])
