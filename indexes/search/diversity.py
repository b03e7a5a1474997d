"""The final choice among the items that a search finds: one of each group of variants, and diversified by MMR."""

from collections.abc import Collection, Hashable, Sequence

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from indexes.live.snapshot import Snapshot
from indexes.vectors.contract import LOWEST_COSINE, Neighbours

from .selection import Selection
from .vector_search import Search

MAX_GROUPED_ITEMS = 10_000
"""Items read for one answer to tell variants apart: to read all of a large catalogue would take seconds."""

MMR_POOL_FACTOR = 10
"""Candidates for diversification, as a multiple of the results wanted."""


def choose(
    snapshot: Snapshot,
    selection: Selection,
    search: Search,
    k: int,
    query_rows: Collection[int] = (),
    min_score: float = LOWEST_COSINE,
) -> Neighbours:
    """Choose the `k` best that `search` finds: of variants only the best, and diversified.

    No result is a variant of an item at `query_rows`. If the attribute that groups has fewer values than results
    are wanted, the variants are told apart among the nearest `MAX_GROUPED_ITEMS`. If the results are diversified, what
    scores less than `min_score` is left out first, since it would take the places of what does not.
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
    return Neighbours(found.rows[kept], found.scores[kept])


def variants(snapshot: Snapshot, selection: Selection, rows: Sequence[int]) -> list[Hashable]:
    """Give each of the items at `rows` a key that is equal for variants of one, and for no others."""
    if selection.group_by is None:
        return [*rows]
    groups = map(selection.group_of, snapshot.at(rows))
    # In a tuple of two, a row is no value of an attribute.
    return [(None, row) if group is None else group for row, group in zip(rows, groups, strict=True)]


def mmr_order(
    scores: Float32[ndarray, " n"], vectors: Float32[ndarray, "n dim"], k: int, diversity: float
) -> list[int]:
    """Order `k` vectors by maximal marginal relevance, and return their places; the first of equals comes first.

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
        likest = np.maximum(likest, np.vecdot(vectors, vectors[best]))
    return chosen


def _first_of_each_group(
    snapshot: Snapshot, selection: Selection, found: Neighbours, query_rows: Collection[int]
) -> list[int]:
    """List the places in `found` that are no variant of one before, or of a query item."""
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
