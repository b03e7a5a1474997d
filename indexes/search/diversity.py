"""Final choice among the results of a search: one item per group of variants, diversified by MMR."""

from collections.abc import Collection, Hashable, Sequence

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from indexes.live.snapshot import Snapshot
from indexes.vectors.contract import LOWEST_COSINE, Neighbours

from .selection import Selection
from .vector_search import Search

MAX_GROUPED_ITEMS = 10_000
"""Number of items after which the search for more groups stops; reading a large catalogue would take seconds."""

MMR_POOL_FACTOR = 10
"""Number of candidates for diversification, as a multiple of the number of results."""


def choose(
    snapshot: Snapshot,
    selection: Selection,
    search: Search,
    k: int,
    query_rows: Collection[int] = (),
    min_score: float = LOWEST_COSINE,
) -> Neighbours:
    """Choose the `k` best results of `search`: only the best of each group of variants, diversified by MMR.

    No result is a variant of an item at `query_rows`. The search for more groups stops once `MAX_GROUPED_ITEMS` or more
    items have been read, even if there are fewer than `k` groups. Items that score below `min_score` are removed before
    MMR, because MMR could choose them instead of items that reach `min_score`.
    """
    pool = k if selection.diversity == 0 else MMR_POOL_FACTOR * k
    depth = pool
    while True:
        found = search.best(depth)
        kept = _first_of_each_group(snapshot, selection, found, query_rows)
        if len(kept) >= pool or len(found.rows) < depth or depth >= MAX_GROUPED_ITEMS:
            break
        depth *= 4
    kept = kept[:pool]
    if selection.diversity > 0:
        kept = [place for place in kept if found.scores[place] >= min_score]
        vectors = search.vectors(found.rows[kept].tolist())
        kept = [kept[place] for place in mmr_order(found.scores[kept], vectors, k, selection.diversity)]
    return Neighbours(found.rows[kept], found.scores[kept], found.filtered)


def variants(snapshot: Snapshot, selection: Selection, rows: Sequence[int]) -> list[Hashable]:
    """Return a key for each item at `rows`; two keys are equal if and only if the items are variants of each other."""
    if selection.group_by is None:
        return [*rows]
    groups = map(selection.group_of, snapshot.at(rows))
    # A plain row number could equal an attribute value; a tuple cannot.
    return [(None, row) if group is None else group for row, group in zip(rows, groups, strict=True)]


def mmr_order(
    scores: Float32[ndarray, " n"], vectors: Float32[ndarray, "n dim"], k: int, diversity: float
) -> list[int]:
    """Choose `k` vectors by maximal marginal relevance (MMR), and return their positions in the order of choice.

    Each step chooses the vector with the greatest (1 - diversity) * score - diversity * similarity. The similarity is
    the greatest cosine with a vector already chosen (Carbonell & Goldstein 1998, with lambda = 1 - diversity). The
    first choice is the vector with the greatest score. Ties go to the vector that comes first in the input.
    """
    chosen: list[int] = []
    likest = np.full(len(scores), -np.inf, np.float32)
    left = np.ones(len(scores), bool)
    for _ in range(min(k, len(scores))):
        gain = (1 - diversity) * scores - (diversity * likest if chosen else 0)
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        chosen.append(best)
        left[best] = False
        likest = np.maximum(likest, np.vecdot(vectors, vectors[best]))
    return chosen


def _first_of_each_group(
    snapshot: Snapshot, selection: Selection, found: Neighbours, query_rows: Collection[int]
) -> list[int]:
    """Return the positions in `found` of items that are not a variant of an earlier item or of a query item."""
    if selection.group_by is None:
        return [*range(len(found.rows))]
    seen = {selection.group_of(item) for item in snapshot.at([*query_rows])}
    kept = []
    for place, item in enumerate(snapshot.at(found.rows.tolist())):
        group = selection.group_of(item)
        if group is None or group not in seen:
            kept.append(place)
            seen.add(group)
    return kept
