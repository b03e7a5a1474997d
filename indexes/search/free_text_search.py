"""Search under a free-text relation: candidates from a low-rank estimate, rescored exactly from their tokens.

No vectors are stored under such a relation, and making one takes all tokens of an item. So all items are estimated from
low-rank projections of their tokens, and the best of them are rescored from the tokens themselves, by the network's own
attention. Scores are exact; an item may be missed that was estimated too low. If items are few, all are scored.

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

SCORE_ALL_UP_TO = 500
"""Items up to which all are scored."""

CANDIDATES_PER_RESULT = 8
"""Items rescored for each result wanted ..."""

MIN_CANDIDATES = 80
"""... and at least so many."""

PROXY_RELATIONS = 10
"""Nearest relations of the index under which candidates are found among the items of the overlay."""


@dataclass(frozen=True)
class FreeTextSearch:
    """A search for the items whose `view` is nearest to a unit `query` made under `relation`.

    Of the rows where `allowed` is true (None: all), without those `excluded`.
    """

    snapshot: Snapshot
    relation: FreeTextRelation
    view: View
    query: Float32[ndarray, " dim"]
    allowed: Bool[ndarray, " end"] | None = None
    excluded: frozenset[int] = frozenset()

    def best(self, k: int) -> Neighbours:
        """Find the `k` best, or all there are, with their exact scores.

        Raises:
            NoTokensError: the index keeps no tokens.
        """
        rows = np.flatnonzero(self._wanted())
        candidates = max(CANDIDATES_PER_RESULT * k, MIN_CANDIDATES)
        if len(rows) > max(SCORE_ALL_UP_TO, candidates):
            first = self.snapshot.overlay.first
            old, new = rows[rows < first], rows[rows >= first]
            rows = np.concatenate([self._likely(old, candidates), self._likely_new(new, candidates, k)])
        return Neighbours.best(rows, self.scores(rows.tolist()), k)

    def vectors(self, rows: Sequence[int]) -> Float32[ndarray, "rows dim"]:
        """Get the vectors of the view under the relation."""
        return self.snapshot.vectors(self.relation, self.view, rows)

    def scores(self, rows: Sequence[int]) -> Float32[ndarray, " rows"]:
        """Calculate the cosines with the query."""
        return cosines(self.vectors(rows), self.query)

    def _wanted(self) -> Bool[ndarray, " end"]:
        overlay = self.snapshot.overlay
        wanted = np.ones(self.snapshot.end, bool) if self.allowed is None else self.allowed.copy()
        wanted[[*overlay.dropped, *self.excluded]] = False
        wanted[overlay.first :] &= overlay.live
        return wanted

    def _likely(self, rows: Int64[ndarray, " n"], candidates: int) -> Int64[ndarray, " likely"]:
        """Choose the rows of the generation that are estimated best."""
        store = self.snapshot.generation.tokens
        assert store is not None, "the query's own vector was made from tokens"
        if len(rows) <= candidates:
            return rows
        scores = store.estimates(self.relation).scores(self.view, self.query)[rows]
        likely: ndarray = rows[np.argpartition(-scores, candidates - 1)[:candidates]]
        return likely

    def _likely_new(self, rows: Int64[ndarray, " n"], candidates: int, k: int) -> Int64[ndarray, " likely"]:
        """Choose rows of the overlay, which has no estimates: all, or the nearest under relations of the index.

        At least `k` are taken under each, as the best may all be near under the first.
        """
        overlay = self.snapshot.overlay
        if len(rows) <= candidates:
            return rows
        kept = np.zeros(len(overlay.entries), bool)
        kept[rows - overlay.first] = True
        relations = self.relation.nearest[:PROXY_RELATIONS]
        each = max(k, -(-candidates // max(1, len(relations))))
        found = [overlay.search(position, self.view, self.query, each, kept).rows for position in relations]
        return np.unique(np.concatenate(found)) if found else rows
