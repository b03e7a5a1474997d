"""Free-text relation search: candidates from a low-rank estimate, then exact rescoring from the tokens.

The index stores no vectors under a free-text relation, and computing one requires all tokens of an item. The search
therefore estimates the scores of all items from low-rank projections of their tokens. It rescores the best candidates
from the tokens themselves, with the attention of the network. The returned scores are exact, but the search can miss
an item whose estimate is too low. If there are few items, it scores all of them exactly.

docs/decisions.md has the measurements (`python -m benchmarks.words`) and the alternatives that were tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from indexes.live.snapshot import Snapshot
from indexes.vectors.contract import Filtered, FilterMethod, Neighbours, cosines
from model.embeddings.free_text import FreeTextRelation
from model.errors import NoTokensError
from model.similarity import View

SCORE_ALL_UP_TO = 500
"""Number of items up to which every item is scored exactly, without estimates."""

PROXY_RELATIONS = 10
"""Number of indexed relations, nearest to the free-text relation, that are used to find candidates in the overlay."""


@dataclass(frozen=True)
class FreeTextSearch:
    """A search for the items whose `view` is nearest to a unit `query` computed under `relation`.

    It considers the rows at which `allowed` is true (None: all rows), except the rows in `excluded`.
    """

    snapshot: Snapshot
    relation: FreeTextRelation
    view: View
    query: Float32[ndarray, " dim"]
    allowed: Bool[ndarray, " end"] | None = None
    excluded: frozenset[int] = frozenset()

    def best(self, k: int) -> Neighbours:
        """Return the `k` best items, or all items if there are fewer, with their exact scores.

        Raises:
            NoTokensError: the index stores no tokens.
        """
        store = self.snapshot.generation.tokens
        if store is None:
            raise NoTokensError
        wanted, first = self._wanted(), self.snapshot.overlay.first
        few = int(np.count_nonzero(wanted))
        candidates = store.report.candidates_for(k)
        method: FilterMethod = "scan"
        if candidates is None or few <= max(SCORE_ALL_UP_TO, candidates):
            rows = np.flatnonzero(wanted)
        else:
            method = "estimates"
            old = wanted[:first]
            if np.count_nonzero(old) > candidates:
                likely = store.estimates(self.relation, self.view).best(self.query, candidates, old).rows
            else:
                likely = np.flatnonzero(old)
            new = first + np.flatnonzero(wanted[first:])
            rows = np.concatenate([likely, self._likely_new(new, candidates, k)])
        filtered = None if self.allowed is None else Filtered(few, (method,))
        return Neighbours.best(rows, self.scores(rows.tolist()), k, filtered)

    def vectors(self, rows: Sequence[int]) -> Float32[ndarray, "rows dim"]:
        """Return the vectors of the items at `rows`, in the view and under the relation of the search."""
        return self.snapshot.vectors(self.relation, self.view, rows)

    def scores(self, rows: Sequence[int]) -> Float32[ndarray, " rows"]:
        """Return the cosines of the items at `rows` with the query."""
        return cosines(self.vectors(rows), self.query)

    def _wanted(self) -> Bool[ndarray, " end"]:
        overlay = self.snapshot.overlay
        wanted = np.ones(self.snapshot.end, bool) if self.allowed is None else self.allowed.copy()
        wanted[[*overlay.dropped, *self.excluded]] = False
        wanted[overlay.first :] &= overlay.live
        return wanted

    def _likely_new(self, rows: Int64[ndarray, " n"], candidates: int, k: int) -> Int64[ndarray, " likely"]:
        """Return candidate rows of the overlay: all rows, or the nearest rows under indexed relations.

        The overlay has no low-rank estimates. At least `k` rows are taken under each relation, because all relations
        may return the same rows.
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
