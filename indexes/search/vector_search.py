"""Searches with a common interface: under an indexed relation, a free-text relation, or several relations.

A search under several relations blends the scores of an item: it takes their weighted mean or their maximum. It uses
the threshold algorithm (Fagin, Lotem & Naor, "Optimal aggregation algorithms for middleware", 2001). It examines the
best items of each relation and scores them under all relations. Under each relation, an unexamined item scores at most
as high as the last item examined. Its blended score is therefore at most the blend of these last scores. The search
stops when all results score above this bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from indexes.live.snapshot import Snapshot
from indexes.vectors.contract import ROUNDING, Filtered, Neighbours, cosines
from model.similarity import View

MAX_FUSION_DEPTH = 20_000
"""Number of items per relation after which a search stops, even if it may have missed items."""


class Search(Protocol):
    """A search over the vectors of an index."""

    def best(self, k: int) -> Neighbours:
        """Return the `k` best items, or all items if there are fewer."""

    def vectors(self, rows: Sequence[int]) -> Float32[ndarray, "rows dim"]:
        """Return unit vectors of the items at `rows`; their inner products measure how similar the items are."""

    def scores(self, rows: Sequence[int]) -> Float32[ndarray, " rows"]:
        """Return the exact scores of the items at `rows`, whether or not they are among the best."""


@dataclass(frozen=True)
class KnownSearch:
    """A search for the items whose `view` is nearest to a unit `query` computed under an indexed relation.

    It considers the rows at which `allowed` is true (None: all rows), except the rows in `excluded`.
    """

    snapshot: Snapshot
    relation: int
    view: View
    query: Float32[ndarray, " dim"]
    allowed: Bool[ndarray, " end"] | None = None
    excluded: frozenset[int] = frozenset()

    def best(self, k: int) -> Neighbours:
        """Return the `k` nearest items; see `Snapshot.search`."""
        return self.snapshot.search(self.relation, self.view, self.query, k, self.allowed, self.excluded)

    def vectors(self, rows: Sequence[int]) -> Float32[ndarray, "rows dim"]:
        """Return the vectors of the items at `rows`, in the view and under the relation of the search."""
        return self.snapshot.vectors(self.relation, self.view, rows)

    def scores(self, rows: Sequence[int]) -> Float32[ndarray, " rows"]:
        """Return the cosines of the items at `rows` with the query."""
        return cosines(self.vectors(rows), self.query)


@dataclass(frozen=True)
class BlendedSearch:
    """A search by the weighted mean of the scores of its `parts`; without `weights`, by their maximum.

    The search is exact if the parts are exact, unless it stops after `MAX_FUSION_DEPTH` or more items of each part.
    """

    parts: Sequence[Search]
    weights: Float32[ndarray, " parts"] | None = None

    def best(self, k: int) -> Neighbours:
        """Return the `k` best items, or all items if there are fewer."""
        depth = max(k, 10)
        while True:
            found = [part.best(depth) for part in self.parts]
            rows = np.unique(np.concatenate([one.rows for one in found]))
            filtered = Filtered.joined(one.filtered for one in found)
            best = Neighbours.best(rows, self.scores(rows.tolist()), k, filtered)
            # A part that returns fewer items than requested has returned all its items.
            last = np.asarray([one.scores[-1] for one in found if len(one.rows) == depth], np.float32)
            if len(last) < len(found) or depth >= MAX_FUSION_DEPTH:
                return best
            # Reaching the bound is not enough: an unexamined item with an equal score may come first in the catalogue.
            if len(best.rows) == k and best.scores[-1] > self._blend(last[:, None])[0] + ROUNDING:
                return best
            depth *= 4

    def vectors(self, rows: Sequence[int]) -> Float32[ndarray, "rows parts*dim"]:
        """Concatenate the vectors of the parts, each scaled by the square root of its share of the weights.

        The inner product of two items is then the weighted mean of their inner products in the parts.
        """
        shares = [
            np.sqrt(share) * part.vectors(rows) for share, part in zip(self._shares, self.parts, strict=True)
        ]
        return np.hstack(shares).astype(np.float32)

    def scores(self, rows: Sequence[int]) -> Float32[ndarray, " rows"]:
        """Return the blended scores of the items at `rows`."""
        return self._blend(self._each(rows))

    def brought_by(self, rows: Sequence[int]) -> list[int]:
        """Return, for each item at `rows`, the index of the part that contributes most to its score."""
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
