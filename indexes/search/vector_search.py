"""Searches with one interface: under a relation of the index, a free-text one, or several relations at once.

Several relations are answered by the threshold algorithm (Fagin, Lotem & Naor, "Optimal aggregation algorithms for
middleware", 2001): the best under each relation are scored under all, and what was not looked at cannot score more than
the last that was, so that one knows when to stop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from indexes.live.snapshot import Snapshot
from indexes.vectors.contract import ROUNDING, Neighbours, cosines
from model.similarity import View

MAX_FUSION_DEPTH = 20_000
"""Items looked at under each relation at most: deeper, the best among these is good enough."""


class Search(Protocol):
    """One question to the vectors of an index."""

    def best(self, k: int) -> Neighbours:
        """Find the `k` best items, or all there are."""

    def vectors(self, rows: Sequence[int]) -> Float32[ndarray, "rows dim"]:
        """Get unit vectors of the items at `rows`, whose inner products say how alike the items are."""

    def scores(self, rows: Sequence[int]) -> Float32[ndarray, " rows"]:
        """Score the items at `rows` exactly, whether or not they are among the best."""


@dataclass(frozen=True)
class KnownSearch:
    """A search for the items whose `view` is nearest to a unit `query` made under a relation of the index.

    Of the rows where `allowed` is true (None: all), without those `excluded`.
    """

    snapshot: Snapshot
    relation: int
    view: View
    query: Float32[ndarray, " dim"]
    allowed: Bool[ndarray, " end"] | None = None
    excluded: frozenset[int] = frozenset()

    def best(self, k: int) -> Neighbours:
        """Find the `k` nearest; see `Snapshot.search`."""
        return self.snapshot.search(self.relation, self.view, self.query, k, self.allowed, self.excluded)

    def vectors(self, rows: Sequence[int]) -> Float32[ndarray, "rows dim"]:
        """Get the vectors of the view under the relation."""
        return self.snapshot.vectors(self.relation, self.view, rows)

    def scores(self, rows: Sequence[int]) -> Float32[ndarray, " rows"]:
        """Calculate the cosines with the query."""
        return cosines(self.vectors(rows), self.query)


@dataclass(frozen=True)
class BlendedSearch:
    """A search by the weighted mean of the scores in `parts`; without `weights`, by the greatest of them.

    Exact if the parts are: up to `MAX_FUSION_DEPTH` items of each are looked at.
    """

    parts: Sequence[Search]
    weights: Float32[ndarray, " parts"] | None = None

    def best(self, k: int) -> Neighbours:
        """Find the `k` best items, or all there are."""
        depth = max(k, 10)
        while True:
            found = [part.best(depth) for part in self.parts]
            rows = np.unique(np.concatenate([one.rows for one in found]))
            best = Neighbours.best(rows, self.scores(rows.tolist()), k)
            # A part that found fewer than it was asked for found all.
            last = np.asarray([one.scores[-1] for one in found if len(one.rows) == depth], np.float32)
            if len(last) < len(found) or depth >= MAX_FUSION_DEPTH:
                return best
            # An item that equals the last one may come before it, so that equal is not enough.
            if len(best.rows) == k and best.scores[-1] > self._blend(last[:, None])[0] + ROUNDING:
                return best
            depth *= 4

    def vectors(self, rows: Sequence[int]) -> Float32[ndarray, "rows parts*dim"]:
        """Get the vectors of the parts side by side: inner products are the weighted means of those in the parts."""
        shares = [
            np.sqrt(share) * part.vectors(rows) for share, part in zip(self._shares, self.parts, strict=True)
        ]
        return np.hstack(shares).astype(np.float32)

    def scores(self, rows: Sequence[int]) -> Float32[ndarray, " rows"]:
        """Blend the scores of the parts."""
        return self._blend(self._each(rows))

    def brought_by(self, rows: Sequence[int]) -> list[int]:
        """Find the part that contributes most to the score of each of the items at `rows`."""
        each = self._each(rows)
        weighed = each if self.weights is None else each * self._shares[:, None]
        parts: list[int] = np.argmax(weighed, axis=0).tolist()
        return parts

    def _each(self, rows: Sequence[int]) -> Float32[ndarray, "parts rows"]:
        return np.stack([part.scores(rows) for part in self.parts])

    def _blend(self, each: Float32[ndarray, "parts rows"]) -> Float32[ndarray, " rows"]:
        blended: ndarray
        if self.weights is None:
            blended = each.max(axis=0)
        else:
            blended = np.einsum("pr,p->r", each, self._shares, dtype=np.float64)
        return blended.astype(np.float32)

    @cached_property
    def _shares(self) -> Float32[ndarray, " parts"]:
        weights = np.ones(len(self.parts)) if self.weights is None else np.asarray(self.weights, np.float64)
        return np.asarray(weights / weights.sum(), np.float32)
