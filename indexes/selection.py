"""Which of the items a search may find, and how unlike one another they should be."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from model.records import View

from .snapshot import Snapshot
from .vectors import Neighbours

POOL = 10
"""Of so many times the results wanted, those are chosen that are unlike one another."""


@dataclass(frozen=True)
class Selection:
    """What a search is narrowed to; an id that no item has narrows nothing, and is no error.

    `include` lists the only items wanted (None: all), `exclude` those that are not, whatever `include` says.
    `diversity` in [0, 1) trades nearness to the query for unlikeness of the results: 0 orders by score alone.
    """

    include: frozenset[str] | None = None
    exclude: frozenset[str] = frozenset()
    diversity: float = 0.0

    def allowed(self, snapshot: Snapshot) -> Bool[ndarray, " end"] | None:
        """By row, whether the item is one of those included; None where all are."""
        if self.include is None:
            return None
        mask = np.zeros(snapshot.end, bool)
        mask[_rows(snapshot, self.include)] = True
        return mask

    def search(
        self,
        snapshot: Snapshot,
        relation: int,
        view: View,
        query: Float32[ndarray, " dim"],
        k: int,
        but: frozenset[int] = frozenset(),
    ) -> Neighbours:
        """The `k` best of what is selected, without the rows in `but`."""
        excluded = but | frozenset(_rows(snapshot, self.exclude))
        pool = k if self.diversity == 0 else POOL * k
        found = snapshot.search(relation, view, query, pool, self.allowed(snapshot), excluded)
        if self.diversity == 0:
            return found
        chosen = spread(
            found.scores, snapshot.vectors(relation, view, found.rows.tolist()), k, self.diversity
        )
        return Neighbours(found.rows[chosen], found.scores[chosen])


def spread(
    scores: Float32[ndarray, " n"], vectors: Float32[ndarray, "n dim"], k: int, diversity: float
) -> list[int]:
    """Places of `k` vectors in the order of maximal marginal relevance; the first of equals comes first.

    The next is the one that is best by (1 - diversity) * score - diversity * its cosine with the likest of those
    already chosen (Carbonell & Goldstein 1998, with lambda = 1 - diversity). The first is the nearest.
    """
    chosen: list[int] = []
    likest = np.full(len(scores), -np.inf, np.float32)
    left = np.ones(len(scores), bool)
    for _ in range(min(k, len(scores))):
        gain = (1 - diversity) * scores - (diversity * likest if chosen else 0)
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        chosen.append(best)
        left[best] = False
        likest = np.maximum(likest, vectors @ vectors[best])
    return chosen


def _rows(snapshot: Snapshot, item_ids: frozenset[str]) -> list[int]:
    return [row for row in map(snapshot.find, item_ids) if row is not None]
