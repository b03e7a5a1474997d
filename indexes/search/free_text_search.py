"""The items that go best with a query under a relation in words that no index knows.

Vectors under such a relation lie nowhere, and making one takes all tokens of an item. So all items are estimated from
a sketch of their tokens, and the best of them are scored from the tokens themselves, by the network's own attention.
Scores are exact; an item may be missed that the sketch thought too little of. Where items are few, all are scored.

Measured in docs/decisions.md (`python -m benchmarks.words`), as is what was tried before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from indexes.live.snapshot import Snapshot
from indexes.vectors.contract import Neighbours, cosines
from model.embeddings.free_text import FreeTextRelation
from model.similarity import View

FEW = 500
"""So few items are all scored."""

SHORTLIST = 8
"""Items scored for each result wanted ..."""

LEAST = 80
"""... and at least so many."""

RELATIONS = 10
"""Known relations under which newcomers are looked for, the nearest ones."""


@dataclass(frozen=True)
class FreeTextSearch:
    """One question: which items of `view` go best with a unit `query` made under `relation`.

    Of the rows where `allowed` is true (None: all), without those `excluded`.
    """

    snapshot: Snapshot
    relation: FreeTextRelation
    view: View
    query: Float32[ndarray, " dim"]
    allowed: Bool[ndarray, " end"] | None = None
    excluded: frozenset[int] = frozenset()

    def best(self, k: int) -> Neighbours:
        """The `k` best, or all there are, with their exact scores.

        Raises:
            NoTokensError: the index keeps no tokens.
        """
        rows = np.flatnonzero(self._wanted())
        most = max(SHORTLIST * k, LEAST)
        if len(rows) > max(FEW, most):
            first = self.snapshot.overlay.first
            old, new = rows[rows < first], rows[rows >= first]
            rows = np.concatenate([self._likely(old, most), self._newcomers(new, most, k)])
        return Neighbours.best(rows, self.scores(rows.tolist()), k)

    def vectors(self, rows: Sequence[int]) -> Float32[ndarray, "rows dim"]:
        """The vectors of the view under the relation."""
        return self.snapshot.vectors(self.relation, self.view, rows)

    def scores(self, rows: Sequence[int]) -> Float32[ndarray, " rows"]:
        """Cosines with the query."""
        return cosines(self.vectors(rows), self.query)

    def _wanted(self) -> Bool[ndarray, " end"]:
        overlay = self.snapshot.overlay
        wanted = np.ones(self.snapshot.end, bool) if self.allowed is None else self.allowed.copy()
        wanted[[*overlay.dropped, *self.excluded]] = False
        wanted[overlay.first :] &= overlay.live
        return wanted

    def _likely(self, rows: Int64[ndarray, " n"], most: int) -> Int64[ndarray, " likely"]:
        """Rows of the generation that are estimated best."""
        store = self.snapshot.generation.tokens
        assert store is not None, "the query's own vector was made from tokens"
        if len(rows) <= most:
            return rows
        scores = store.estimates(self.relation).scores(self.view, self.query)[rows]
        likely: ndarray = rows[np.argpartition(-scores, most - 1)[:most]]
        return likely

    def _newcomers(self, rows: Int64[ndarray, " n"], most: int, k: int) -> Int64[ndarray, " likely"]:
        """Rows of the overlay, of which there is no sketch: all, or those nearest under any known relation.

        At least `k` are nearest under each, as all may be those of the first.
        """
        overlay = self.snapshot.overlay
        if len(rows) <= most:
            return rows
        kept = np.zeros(len(overlay.entries), bool)
        kept[rows - overlay.first] = True
        relations = self.relation.nearest[:RELATIONS]
        each = max(k, -(-most // max(1, len(relations))))
        found = [overlay.search(position, self.view, self.query, each, kept).rows for position in relations]
        return np.unique(np.concatenate(found)) if found else rows
