"""Retrieval from the whole catalogue: every new item is a candidate, and every true partner of the query is relevant.

The score matrix is computed in blocks of queries under one relation, so the memory does not grow with the number of
queries. A tie counts as its expected value under a random order of the tied candidates, as in `metrics.py`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int
from numpy import ndarray

from model.data.edge_table import EdgeTable

from .metrics import MAX_TIE_DIFFERENCE
from .scoring import MAX_BLOCK_SCORES, Scorer, blocks

NDCG_AT = 10
"""k of nDCG@k."""

TIE = np.float32(MAX_TIE_DIFFERENCE)

MAX_COUNTED = 32
"""Maximum number of limits for which counting is faster than sorting the scores."""


@dataclass(frozen=True)
class CatalogueQueries:
    """Queries for the whole catalogue: the items of `catalogue` are the candidates, except the query item.

    The true partners of query q are `partner[starts[q] : starts[q + 1]]`.
    """

    item: Int[ndarray, " queries"]
    relation: Int[ndarray, " queries"]
    starts: Int[ndarray, " bounds"]
    partner: Int[ndarray, " pairs"]
    catalogue: Int[ndarray, " candidates"]

    @classmethod
    def of(
        cls, asked: EdgeTable, catalogue: Int[ndarray, " candidates"], most: int, rng: np.random.Generator
    ) -> "CatalogueQueries":
        """Ask for the partners (`b`) of each item (`a`) under each relation; keep a random sample of `most` queries."""
        order = np.lexsort((asked.b, asked.relation, asked.a))
        asked = asked.take(order)
        first = np.ones(len(asked), dtype=bool)
        first[1:] = (np.diff(asked.a) != 0) | (np.diff(asked.relation) != 0)
        query = np.cumsum(first) - 1
        kept = np.arange(first.sum())
        if len(kept) > most:
            kept = np.sort(rng.choice(kept, size=most, replace=False))
        pairs = np.isin(query, kept)
        starts = np.append(0, np.cumsum(np.bincount(query)[kept]))
        heads = np.flatnonzero(first)[kept]
        return cls(asked.a[heads], asked.relation[heads], starts, asked.b[pairs], catalogue)

    def __len__(self) -> int:
        return len(self.item)

    @property
    def query(self) -> Int[ndarray, " pairs"]:
        """Query of each pair of a query and a true partner."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))


@dataclass(frozen=True)
class Places:
    """Where the true partners are in the ranking: `better` candidates score higher, and `equal` tie.

    `equal` includes the partner itself. `tied` is, for the query's best partner, the number of its partners that tie.
    """

    better: Int[ndarray, " pairs"]
    equal: Int[ndarray, " pairs"]
    tied: Int[ndarray, " queries"]


def rank_catalogue(scorer: Scorer, queries: CatalogueQueries, block_scores: int = MAX_BLOCK_SCORES) -> Places:
    """Rank the whole catalogue for each query and find the places of its partners."""
    size = len(queries.catalogue)
    column = np.full(int(max(queries.catalogue.max(), queries.item.max())) + 1, -1)
    column[queries.catalogue] = np.arange(size)
    better, equal = np.empty((2, len(queries.partner)), dtype=np.int64)
    tied = np.empty(len(queries), dtype=np.int64)
    for relation, rows in blocks(queries.relation, size, block_scores):
        scores = np.array(scorer.scores(queries.item[rows], relation, queries.catalogue), dtype=np.float32)
        scores[np.isnan(scores)] = -np.inf  # a score that is not a number ranks last
        own = column[queries.item[rows]]
        scores[np.flatnonzero(own >= 0), own[own >= 0]] = -np.inf
        for row, own_scores in zip(rows.tolist(), scores, strict=True):
            pairs = slice(queries.starts[row], queries.starts[row + 1])
            true = own_scores[column[queries.partner[pairs]]]
            above, least = count_above(own_scores, true + TIE), count_above(own_scores, true - TIE)
            better[pairs], equal[pairs] = above, np.maximum(least - above, 1)
            tied[row] = (true >= true.max() - TIE).sum()
    return Places(better, equal, tied)


def count_above(
    scores: Float32[ndarray, " candidates"], limits: Float32[ndarray, " limits"]
) -> Int[ndarray, " limits"]:
    """Count the candidates whose score is higher than each limit."""
    if len(limits) > MAX_COUNTED:
        return len(scores) - np.searchsorted(np.sort(scores), limits, side="right")
    return np.array([np.count_nonzero(scores > limit) for limit in limits])


def found_at(k: int, places: Places) -> Float[ndarray, " pairs"]:
    """Compute the probability in [0, 1] that each partner is among the `k` best candidates."""
    return np.asarray(np.clip((k - places.better) / places.equal, 0.0, 1.0))


def recall_at(k: int, places: Places, queries: CatalogueQueries) -> Float[ndarray, " queries"]:
    """Compute Recall@k of each query: the share of its partners among the `k` best candidates."""
    return np.add.reduceat(found_at(k, places), queries.starts[:-1]) / np.diff(queries.starts)


def ndcg(places: Places, queries: CatalogueQueries, k: int = NDCG_AT) -> Float[ndarray, " queries"]:
    """Compute nDCG@k of each query with binary relevance (Järvelin & Kekäläinen 2002).

    A tied partner counts with the mean discount of the places that it may take (McSherry & Najork 2008).
    """
    # Entry n is the sum of the discounts of the first n places.
    total = np.append(0.0, np.cumsum(1 / np.log2(np.arange(2, k + 2))))
    last = np.minimum(places.better + places.equal, k)
    gain = (total[last] - total[np.minimum(places.better, k)]) / places.equal
    ideal = total[np.minimum(np.diff(queries.starts), k)]
    return np.asarray(np.add.reduceat(gain, queries.starts[:-1]) / ideal)


def reciprocal_rank(places: Places, queries: CatalogueQueries) -> Float[ndarray, " queries"]:
    """Compute the reciprocal rank of the best partner of each query; its mean is MRR."""
    better = np.minimum.reduceat(places.better, queries.starts[:-1])
    best = places.better == better[queries.query]
    equal = np.maximum.reduceat(np.where(best, places.equal, 0), queries.starts[:-1])
    cases, which = np.unique(np.column_stack([better, equal, places.tied]), axis=0, return_inverse=True)
    values = [_expected_reciprocal_rank(*(int(count) for count in case)) for case in cases]
    return np.asarray(np.array(values)[which.ravel()])


def _expected_reciprocal_rank(better: int, equal: int, relevant: int) -> float:
    """Return the mean of 1/rank of the first of `relevant` candidates in a random order of `equal` tied ones.

    The first relevant candidate is at place j of the tie with the probability of `j - 1` irrelevant candidates and then
    a relevant one, drawn without replacement.
    """
    relevant = min(relevant, equal)
    place = np.arange(1, equal - relevant + 2)
    hazard = relevant / (equal - place + 1)
    earlier = np.append(1.0, np.cumprod(1 - hazard)[:-1])
    return float((earlier * hazard / (better + place)).sum())
